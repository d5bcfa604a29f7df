// How many experts the tokens of a run took in one routing row: the numbers behind the Scheme panel. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "views/ui/table_twin.h"
#include "views/view.h"

namespace switchyard {

struct ActiveExperts {
  std::vector<uint64_t> tokens;  // [n]: tokens that took n experts, dropped slots included and null ones not
  uint64_t total = 0;            // tokens counted
  double mean = 0;               // experts a token
};

// Over the last `window` tokens up to `last`; tokens without a record of the row are left out.
ActiveExperts active_experts(const RunData& data, int moe_layer, uint64_t last, uint64_t window);

TableData active_experts_table(const ActiveExperts& counts);

}  // namespace switchyard
