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

  // router_names: of each row; empty: not known, then one side.
  static Sides of(const std::vector<std::string>& router_names, int rows) {
    const auto end = std::find_if(router_names.begin(), router_names.end(), [](const std::string& name) { return !name.starts_with("encoder "); });
    return {end != router_names.end() ? int(end - router_names.begin()) : 0, rows};
  }
  bool two() const { return encoder_rows > 0; }
  // [tokens]: whether each is the decoder's. first_row: [tokens, k] of the trace's first row.
  std::vector<uint8_t> decodes(std::span<const ExpertId> first_row, size_t k) const {
    std::vector<uint8_t> out(first_row.size() / k);
    for (size_t t = 0; t < out.size(); ++t) out[t] = two() && first_row[t * k] == kNoExpert;
    return out;
  }
  // Rows that tokens of a side pass.
  int begin(bool decoder) const { return decoder ? encoder_rows : 0; }
  int end(bool decoder) const { return two() && !decoder ? encoder_rows : rows; }
};

}  // namespace switchyard
