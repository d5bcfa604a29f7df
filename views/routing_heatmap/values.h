// The numbers behind the routing heat map and its table, from engine/analysis counts. Pure; GUI thread.
#pragma once

#include <vector>

#include "engine/analysis/load.h"
#include "views/view.h"

namespace switchyard {

// Load of each expert over its layer's mean (A1, relative load x/m): [rows, E], NaN beyond a layer's own
// experts, 0 where nothing was routed.
std::vector<double> relative_load(const RunData& data, const Load& load);

// Weights as applied of the shown token: [rows, E], 0 for experts that were not chosen; NaN where weights
// are not captured.
std::vector<double> shown_weights(const RunData& data, const TimeCursor& cursor);

// Relative load after the last edit minus before it. before: the last `window` tokens routed under the
// recipe before; after: the last `window` tokens since.
struct EditChange {
  uint64_t before_tokens = 0, after_tokens = 0;
  std::string sentence;  // of the edit; empty: there was none
  uint64_t first_token = 0;
  std::vector<double> values;  // [rows, E]; empty where either side has no tokens
};
EditChange edit_change(const RunData& data);

}  // namespace switchyard
