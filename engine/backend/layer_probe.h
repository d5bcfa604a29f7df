// What a backend that shows its residual stream offers beside forward(): the logit lens, what the model would predict if
// everything behind a sublayer were left out (specs/analyses.md A19). Engine thread, or the caller's where no session runs.
#pragma once

#include <functional>
#include <span>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/routing/recipe.h"

namespace switchyard {

class LayerProbe {
 public:
  virtual ~LayerProbe() = default;
  // layer, sublayer: of ModelPlan::layers; logits: [n, vocab] of the tokens from `first` on, by the model's final norm and
  // head on the residual stream behind that sublayer. What a sublayer defers (Sublayer::deferred) shows with the layer's last.
  using See = std::function<void(int layer, int sublayer, size_t first, std::span<const float> logits)>;
  // The whole text in one pass from an empty cache, under `recipe`. kUsage: encoder-decoders.
  virtual Result<void> lens(std::span<const TokenId> tokens, const Recipe& recipe, const See& see, const Task* task) = 0;
};

}  // namespace switchyard
