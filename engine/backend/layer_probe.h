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
  // Behind this sublayer of ModelPlan::layers, in this pass over the layer (a layer path may take several).
  struct Place {
    int layer = 0, sublayer = 0, pass = 0;
  };
  // logits: [n, vocab] of the tokens from `token` on, by the model's final norm and head on the residual stream there. What
  // a sublayer defers (Sublayer::deferred) shows with the layer's last.
  using See = std::function<void(const Place& place, size_t token, std::span<const float> logits)>;
  // The whole text in one go from an empty cache, under `recipe`; tokens before `first` are run, not seen. kUsage:
  // encoder-decoders.
  virtual Result<void> lens(std::span<const TokenId> tokens, const Recipe& recipe, size_t first, const See& see, const Task* task) = 0;
};

}  // namespace switchyard
