// The router gradient lens on a run: what the loss of its text asks of every router logit (engine/analysis/gate_gradient.h).
// Computed by a job with a reference backend of its own; the run goes on. Values.
#pragma once

#include <string>
#include <vector>

#include "engine/analysis/gate_gradient.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/recipe.h"
#include "views/ui/table_twin.h"

namespace switchyard {

struct GradientLens {
  std::vector<TokenId> tokens;
  std::vector<GateLens> rows;  // [routing rows]
};

// As the whole text would run under `recipe`.
Result<GradientLens> gradient_lens(const Checkpoint& checkpoint, std::vector<TokenId> tokens, const Recipe& recipe, Task& task);

// A row per token that wants an idle expert, of one routing row; texts: of the tokens, may be shorter.
TableData gradient_table(const GradientLens& lens, int row, const std::vector<std::string>& texts);

// "12 of 80 tokens want an idle expert: 5 (4), 7 (3); cosine 0.913".
std::string gradient_summary(const GradientLens& lens, int row);

}  // namespace switchyard
