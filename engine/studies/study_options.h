// What a study can be told, as a table from which the command line makes its flags and the window its form; and the
// values that were given. Pure; any thread.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "engine/base/result.h"
#include "engine/base/text.h"

namespace switchyard {

enum class OptionKind : uint8_t { kWhole, kReal, kChoice, kList, kSwitch, kFile };

struct StudyOption {
  const char* name;  // "step-tokens": --step-tokens
  OptionKind kind;
  const char* standard;  // as text; empty: none, and `help` says what holds then
  const char* help;
  double least = 0, most = 0;  // of a number, or of each number of a list; both 0: known with the trace
  std::vector<const char*> choices = {};
  Result<void> (*check)(std::string_view) = nullptr;  // the value's own parser, in the place of range and choices
  bool required = false;
  const char* suggested = "";      // what a form begins with where there is no standard
  bool in_place_of_trace = false;  // a file of what is otherwise counted in the trace
};

// The values of one study's options, the table's standards at first.
class StudyOptions {
 public:
  // The table outlives it.
  explicit StudyOptions(std::span<const StudyOption> table);

  // value: of a switch, ignored; empty: none, where the option may be left out. kUsage naming --name and what would
  // fit: a name that the table does not have, a value that does not fit.
  Result<void> set(std::string_view name, std::string_view value);
  // kUsage: a required option has no value.
  Result<void> complete() const;

  // By a name of the table.
  const std::string& text(std::string_view name) const;
  bool on(std::string_view name) const { return !text(name).empty(); }
  template <class T>
  T number(std::string_view name) const {  // no value: 0
    T value{};
    const std::string& from = text(name);
    std::from_chars(from.data(), from.data() + from.size(), value);
    return value;
  }
  std::vector<double> numbers(std::string_view name) const;  // of a list

 private:
  std::span<const StudyOption> table_;
  std::vector<std::string> values_;
};

// "a,b" as {"a", "b"}; empty words stay.
std::vector<std::string> words_of(std::string_view list);

// Numbers joined by commas, each within the range; option: "--slots", named in errors.
template <class T>
Result<std::vector<T>> numbers_of(std::string_view list, std::string_view option, T min, T max) {
  std::vector<T> out;
  for (const std::string& word : words_of(list)) {
    T value{};
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (problem != std::errc() || end != word.data() + word.size() || !(value >= min && value <= max))
      return fail(ErrorCode::kUsage,
                  fmt::format("holds {}, needs numbers from {} to {}, joined by commas.", quote(word, 40), min, max),
                  std::string(option));
    out.push_back(value);
  }
  return out;
}

}  // namespace switchyard
