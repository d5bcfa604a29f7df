// What a backend that can differentiate offers beside forward(): gradients with respect to router biases, for online
// adaptation (specs/gating.md 1.5), and what the loss has to say of every expert (1.4, DenseMixer). Engine thread, or
// the caller's where no session runs.
#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace switchyard {

struct BiasGradient {
  double loss = 0;                         // mean of -ln p(next token), nats, over the tokens that count
  std::vector<std::vector<float>> by_row;  // [routing rows][E] d loss / d bias, through every later layer
};

// One routing row of a text, each [tokens, E]. L: mean of -ln p(next token), nats, over all tokens but the last.
struct GateTerms {
  std::vector<float> scores;      // p: softmax of the logits under their edits
  std::vector<float> gains;       // a_i = <dL/dy, E_i(h)> of all experts, also those that did not run; scales included
  std::vector<uint8_t> selected;  // 1: it ran
  bool renormalised = false;      // weights are p over the sum of the selected
};

class Differentiable {
 public:
  virtual ~Differentiable() = default;
  // The whole text in one pass from an empty cache, teacher-forced, under `recipe`; the bias is LayerRecipe::logit_bias.
  // The loss counts the last loss_tokens targets; 0: all. The selection is taken as it is: the gradient says nothing of
  // experts that were not selected, but by raw softmax weights, through which every logit acts. kUsage: a router or
  // scheme that is not differentiable here.
  virtual Result<BiasGradient> bias_gradient(std::span<const TokenId> tokens, const Recipe& recipe, int loss_tokens, const Task* task) = 0;

  // [routing rows]. Runs every expert on every token. kUsage also where weights are not softmax probabilities, raw or
  // over their sum, or multiply the expert's input.
  virtual Result<std::vector<GateTerms>> gate_terms(std::span<const TokenId> tokens, const Recipe& recipe, const Task* task) = 0;
};

}  // namespace switchyard
