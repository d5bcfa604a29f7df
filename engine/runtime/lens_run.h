// The logit lens over a text: two passes, the model's own predictions and what each sublayer's residual stream says.
// The caller's thread; the backend must not be in use elsewhere.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/analysis/logit_lens.h"
#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/plan.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// Behind every sublayer, in the order of execution; of the last `last` tokens (0: all). Under `recipe`; where routers of
// layers decide its path, they do from these tokens. kUsage: the backend is no LayerProbe (reference is), the model an
// encoder-decoder, or no tokens.
Result<std::vector<LensPlace>> logit_lens(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens,
                                          const Recipe& recipe, size_t last, const Task* task);

// "attention", "experts", "feed-forward", "mixer": what a sublayer is, for people.
const char* sublayer_word(const Sublayer& sublayer);
// "3 attention", "3 experts · pass 2".
std::string place_name(const LensPlace& place, const ModelPlan& plan);

}  // namespace switchyard
