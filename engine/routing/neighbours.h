// Mixing of a token's routing probabilities with those of earlier tokens (Graph of Tokens, specs/gating.md 1.3): which
// token counts how much, by the likeness of the routers' inputs or by the attention of the same block.
// Called by a backend between the router's logits and route().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/routing/decision.h"
#include "engine/routing/token_memory.h"

namespace switchyard {

// Softmax of the logits under the layer's edits: what later tokens mix in. p: [E]; all 0 where nothing can be selected.
void token_probabilities(const LayerRecipe& recipe, const RouterInput& in, std::span<float> p);

// What a token takes from itself and its neighbours: RouterInput::mixed. Keeps its buffers; one per thread.
class NeighbourMix {
 public:
  // Shares are softmax over j <= i of u_i' W u_j / tau, u the routers' inputs; the token itself is in the memory.
  // mixed: [E].
  void by_likeness(const TokenMemory& memory, int row, uint64_t token, const Scheme& scheme, std::span<float> mixed);
  // attention: [o] is the share of the token o tokens back, 0 the token itself; used over their sum.
  void by_attention(const TokenMemory& memory, int row, uint64_t token, const Scheme& scheme,
                    std::span<const float> attention, std::span<float> mixed);

 private:
  void mix(const TokenMemory& memory, int row, uint64_t token, std::span<float> mixed);

  std::vector<float> query_;    // W' u_i
  std::vector<double> shares_;  // by tokens back
  std::vector<double> sums_;    // [E]
};

// The sublayer whose attention the router of a row follows: the last one before it in its layer that mixes tokens.
// nullptr: there is none.
const Sublayer* mixer_before(const ModelPlan& plan, int row);

// Why a row cannot run a scheme that mixes tokens; empty: it can, or the scheme does not mix.
std::string cannot_mix(const Scheme& scheme, const ModelPlan& plan, int row);

}  // namespace switchyard
