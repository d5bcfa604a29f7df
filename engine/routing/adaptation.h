// The rules by which routers are adapted while a model runs (specs/gating.md 1.2, 1.4, 1.5): pure functions on spans,
// double arithmetic. The loops around them: engine/runtime/adapt.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"

namespace switchyard {

// Rewiring on the fly: C = -(1/k) sum of ln p over the k largest of softmax(logits); grows with uncertainty, whatever
// its name in the paper. logits: [E]; 1 <= k <= E.
double rewire_confidence(std::span<const float> logits, int k);

// ExpertCondenser: b_e += gamma where an expert was used more than on average, -= gamma where less. usage, bias: [E].
// A negative gamma balances, as DeepSeek's loss-free rule does.
void condenser_bias_rule(std::span<const double> usage, double gamma, std::span<double> bias);

// AdaptDHM: tokens go to the prototype of largest cosine (ties: lower id; zero vectors: cosine 0), then every prototype
// that has tokens moves: c = (1 - eta) c + eta * mean of its tokens. hidden: [T, d]; prototypes: [E, d], changed.
// Returns the expert of each token.
std::vector<ExpertId> ema_prototypes(std::span<const float> hidden, size_t width, double eta, std::span<double> prototypes);

// Levenshtein distance of two expert paths: insertions, deletions and replacements, one each.
size_t edit_distance(std::span<const ExpertId> a, std::span<const ExpertId> b);

// Adam (Kingma and Ba 2015) with beta 0.9, 0.999 and eps 1e-8; lr per call.
class Adam {
 public:
  explicit Adam(size_t size) : mean_(size), square_(size) {}
  void step(std::span<const double> gradient, double lr, std::span<double> values);

 private:
  std::vector<double> mean_, square_;
  int64_t steps_ = 0;
};

}  // namespace switchyard
