// What the edits in force do to the loss of the text so far (engine/runtime/effect_run.h). Computed by a job with a backend
// of its own; the run goes on. Values.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine/analysis/compare.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/recipe.h"
#include "engine/tokenizer/tokenizer.h"
#include "views/ui/table_twin.h"

namespace switchyard {

struct TextEffect {
  Recipe recipe;      // in force from the first token on
  EditEffect effect;  // position i predicts token i + 1

  size_t tokens() const { return effect.positions().size() + 1; }
  // Of the prediction of a token of the text; nullptr: the first has none, those that came later neither.
  const PositionEffect* at(size_t token) const { return token >= 1 && token < tokens() ? &effect.positions()[token - 1] : nullptr; }
};

// backend: as make_backend() takes it.
Result<TextEffect> text_effect(const Checkpoint& checkpoint, const std::string& backend, const std::vector<TokenId>& tokens, const Recipe& recipe, Task& task);

// A line each: "PPL 7.3121 → 8.0213, × 1.0970", NLL, KL, flips.
std::array<std::string, 4> effect_summary(const EditEffect& effect);
// "KL 0.0312 nat, NLL 2.1043 before, 2.3310 after (+0.2267), flips the first choice".
std::string effect_sentence(const PositionEffect& effect);
// A row a predicted token: its index, its text (texts may be shorter), KL, JS, NLL before, after and their difference, flip.
TableData effect_table(const TextEffect& effect, const std::vector<std::string>& texts);

}  // namespace switchyard
