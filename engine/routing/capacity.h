// Expert capacity: how many of the tokens that run together an expert takes, and what becomes of the rest.
// Pure; called by a backend after route(), on the engine thread. Rules: specs/families.md 1.12 to 1.14.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/router_spec.h"
#include "engine/routing/block.h"

namespace switchyard {

// Slots that one expert has for `tokens` tokens that run together; Capacity::kNone: no limit. k and everything else
// is the checkpoint's, whatever a recipe says.
int64_t capacity_of(const RouterSpec& spec, int64_t tokens);


// Turns the slots for which their expert has no room into SlotKind::kDropped of weight 0. An expert takes first all
// first choices, then all second ones, and so on; in each round by position or, batch_prioritised, by falling
// probability of a token's first choice. Where the spec renormalises after dropping, the weights that stay of a token
// are renormalised. Edits: what a recipe mutes was never chosen and takes no room; an expert that it forces takes
// every token, and other edits act through what they make route() choose. scratch: grows as needed.
void limit_to_capacity(const RouterSpec& spec, const LayerRecipe* recipe, const DecisionBlock& block,
                       std::vector<uint32_t>& scratch);

}  // namespace switchyard
