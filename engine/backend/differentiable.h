// What a backend that can differentiate offers beside forward(): gradients with respect to router biases, for online
// adaptation (specs/gating.md 1.5). Engine thread, or the caller's where no session runs.
#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace switchyard {

struct BiasGradient {
  double loss = 0;                         // mean of -ln p(next token), nats, over all tokens but the last
  std::vector<std::vector<float>> by_row;  // [routing rows][E] d loss / d bias, through every later layer
};

class Differentiable {
 public:
  virtual ~Differentiable() = default;
  // The whole text in one pass from an empty cache, teacher-forced, under `recipe`; the bias is LayerRecipe::logit_bias.
  // The selection is taken as it is: the gradient says nothing of experts that were not selected, but by raw softmax
  // weights, through which every logit acts. kUsage: a router or scheme that is not differentiable here.
  virtual Result<BiasGradient> bias_gradient(std::span<const TokenId> tokens, const Recipe& recipe, const Task* task) = 0;
};

}  // namespace switchyard
