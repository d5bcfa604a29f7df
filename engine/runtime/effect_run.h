// What edits do to the loss of a text: two teacher-forced passes in lock step, without and with them. The caller's thread;
// the backend must not be in use elsewhere.
#pragma once

#include <span>
#include <string>

#include "engine/analysis/compare.h"
#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/plan.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// Why the passes cannot be compared on a text of so many tokens; empty: they can.
std::string why_no_effect(const ModelPlan& plan, size_t tokens);

// `recipe` is in force from the first token on. Position i of the result predicts tokens[i + 1]. The numbers of
// `score --edits --baseline`. Reports the share of tokens done; kUsage as why_no_effect() says.
Result<EditEffect> edit_effect(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens, const Recipe& recipe, Task& task);

}  // namespace switchyard
