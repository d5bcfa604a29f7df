// What can be said of one routed token in one routing row, read off its frame: the quantities that tint the
// text and the sentence for tooltips and screen readers. Pure; any thread.
#pragma once

#include <string>

#include "engine/routing/frame.h"

namespace switchyard {

enum class TokenQuantity : uint8_t { kNone, kEntropy, kMargin, kExpert, kChanged };

// kEntropy in nats, kMargin in logits, kExpert the id of the first choice (-1: none), kChanged the selected
// experts that the native router would not have selected, over all rows.
double token_value(const RoutingFrame& frame, TokenQuantity quantity, int moe_layer);

// "token 66 " not", layer 5: experts 18, 25, 20, 30; entropy 3.08 nat, margin 0.073"; layer: the model's.
std::string token_sentence(const RoutingFrame& frame, const std::string& piece, int moe_layer, int layer);

}  // namespace switchyard
