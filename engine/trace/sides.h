// The two sides of an encoder-decoder in a trace: its tokens pass the rows of one side only, so that no number over the
// tokens of a row may count those of the other. Read off the rows' names; no state.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "engine/base/ids.h"

namespace switchyard {

struct Sides {
  int encoder_rows = 0;  // the first so many; 0: the model has one side
  int rows = 0;

  static Sides of(const std::vector<std::string>& router_names) {
    const auto end = std::find_if(router_names.begin(), router_names.end(), [](const std::string& name) { return !name.starts_with("encoder "); });
    const int encoder = int(end - router_names.begin()), all = int(router_names.size());
    return {encoder < all ? encoder : 0, all};
  }
  bool two() const { return encoder_rows > 0; }
  // first_row: [k] of the token in the trace's first row.
  bool decodes(std::span<const ExpertId> first_row) const { return two() && first_row[0] == kNoExpert; }
  int begin(bool decoder) const { return decoder ? encoder_rows : 0; }
  int end(bool decoder) const { return two() && !decoder ? encoder_rows : rows; }
};

}  // namespace switchyard
