// The logit lens on a run: what every layer would predict for the text so far (engine/runtime/lens_run.h). Computed by a job
// with a reference backend of its own; the run goes on. Values.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/analysis/logit_lens.h"
#include "engine/analysis/result_table.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/recipe.h"
#include "engine/tokenizer/tokenizer.h"
#include "views/ui/table_twin.h"

namespace switchyard {

struct LogitLens {
  size_t first_token = 0;           // index of the first token that is read
  std::vector<std::string> behind;  // of each place: "3 attention", "3 experts"
  std::vector<LensPlace> places;
};

// As the whole text would run under `recipe`; of its last `last` tokens.
Result<LogitLens> logit_lens_of(const Checkpoint& checkpoint, const std::vector<TokenId>& tokens, const Recipe& recipe, size_t last, Task& task);

// A row a place and token: layer ("3 experts"), index of the token, KL, rank, probability. For a picture.
ResultTable lens_cells(const LogitLens& lens);
// The same with the text of tokens (may be shorter) and of the lens' first choice (by `piece`).
TableData lens_table(const LogitLens& lens, const std::vector<std::string>& texts, const std::function<std::string(TokenId)>& piece);

}  // namespace switchyard
