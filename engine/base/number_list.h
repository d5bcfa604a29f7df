// Lists of whole numbers as people write them: "3", "2-5", "1,4-6". Pure.
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/text.h"

namespace switchyard {

// Numbers from 0 to a million, in the order written; an empty text is an empty list. where: named in the error.
inline Result<std::vector<int>> number_list(std::string_view text, std::string_view where) {
  std::vector<int> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    at = end + 1;
    const size_t dash = part.find('-');
    const auto number = [](std::string_view digits, int& value) {
      const auto [stop, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      return problem == std::errc() && stop == digits.data() + digits.size() && value >= 0 && value <= 1'000'000;
    };
    int first = 0, last = 0;
    const bool fits = dash == std::string_view::npos ? number(part, first) && ((last = first), true)
                                                     : number(part.substr(0, dash), first) && number(part.substr(dash + 1), last);
    if (!fits || last < first || last - first > 65'535)
      return fail(ErrorCode::kUsage, "is " + quote(text, 60) + ", needs numbers and ranges like 1,4-6.", std::string(where));
    for (int value = first; value <= last; ++value) out.push_back(value);
  }
  return out;
}

}  // namespace switchyard
