// Integer names of things, shared by all rooms.
#pragma once

#include <cstdint>

namespace switchyard {

using TokenId = int32_t;
using ExpertId = uint16_t;                    // experts <= 65,535 (reliability.md, section 4)
inline constexpr ExpertId kNoExpert = 0xFFFF;  // an empty slot

// A layer index says which kind it is: `layer` is the model's layer, `moe_layer` the ordinal among
// the routing rows (MoE layers; a layer with two routers has two rows).

}  // namespace switchyard
