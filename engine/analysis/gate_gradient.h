// The router gradient lens: what the loss asks of every logit when all experts are seen (dense, DenseMixer's
// straight-through estimate) and when only those that ran are (sparse, as in ordinary training). specs/gating.md 1.4.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/differentiable.h"
#include "engine/base/ids.h"

namespace switchyard {

// One token at one router, all [E]. p: softmax scores; a: gains <dL/dy, E_i(h)> of all experts; selected: who ran.
// RAW: dense dL/dz_j = p_j (a_j - sum p_i a_i), sparse the same with a sum over the selected alone. Renormalised
// (n = sum of the selected p, w = p / n, n held fixed for those that did not run): sparse w_j (a_j - sum w_i a_i) for the
// selected, else 0; dense adds (p_j / n) (a_j, where j did not run, - sum over those that did not run of p_i a_i).
void gate_gradient(std::span<const float> p, std::span<const float> a, std::span<const uint8_t> selected, bool renormalised,
                   std::span<double> dense, std::span<double> sparse);

// Of one token: the expert that did not run and whose logit the loss would raise most, by the dense gradient.
struct WantedExpert {
  ExpertId expert = kNoExpert;  // kNoExpert: it would raise none of them
  double dense = 0, sparse = 0; // its gradients; negative: the loss falls as the logit rises
};

// One routing row over a text.
struct GateLens {
  std::vector<double> dense, sparse;  // [E] summed over the tokens: with respect to a bias that all of them share
  std::vector<uint32_t> wanted;       // [E] tokens that want the expert most
  std::vector<WantedExpert> tokens;   // [T]
  double cosine = 0;                  // of the dense and the sparse gradient, all tokens and experts end to end
  uint64_t flips = 0;                 // (token, expert) whose two gradients have opposite signs
};
GateLens gate_lens(const GateTerms& terms, int experts);
// The experts that most tokens want, at most `most`, those that some token wants; ties: lower id.
std::vector<int> most_wanted(const GateLens& lens, size_t most);

}  // namespace switchyard
