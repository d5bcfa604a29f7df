// Decisions on the host for the tokens of a step: route() and what is around it, as the cpu backend calls them, on
// logits and inputs that came from the device. For routers whose rule no table holds (engine.md section 8, tier C).
// Engine thread.
#pragma once

#include <span>
#include <vector>

#include "engine/routing/block.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/router_states.h"

namespace switchyard::cuda {

// What a layer's router gives and reads for the tokens of a step; what the scheme does not ask for is empty.
struct GateNumbers {
  std::span<const float> logits;       // [tokens, E], biases in them
  std::span<const float> native;       // [tokens, E] of the checkpoint's own rows, where others stand in their places
  std::span<const float> inputs;       // [tokens, hidden]
  std::span<const float> shares;       // [tokens, window] of the attention before it
  std::span<const float> row_norms;    // [E]
  std::span<const float> router_bias;  // [E]
  std::span<const float> select_bias;  // [E]
};
struct GateTokens {
  std::span<const TokenId> ids;
  int position = 0;  // of the first
  uint32_t sequence = 0;
  int row = 0;                    // of the router in this pass through its layer
  TokenMemory* memory = nullptr;  // of the sequence
};

// A slot that runs.
struct HostSlot {
  int token = 0;  // of the step
  ExpertId expert = 0;
  float weight = 1, input = 1;  // multiplies the output, expert_scale included; the input
  float share = 1;              // the routing weight where it multiplies the output
};

class HostGate {
 public:
  // Before the first layer of a step.
  void begin() { states_.begin(); }
  void decide(const RouterSpec& spec, const LayerRecipe* recipe, const GateTokens& tokens, const GateNumbers& numbers);

  // Of the last decision: [tokens], [tokens, slots()].
  int slots() const { return slots_; }
  std::span<const Decision> decisions() const { return decisions_; }
  std::span<const ExpertId> ids(size_t token) const { return {ids_.data() + token * size_t(slots_), size_t(slots_)}; }
  std::span<const float> weights(size_t token) const {
    return {weights_.data() + token * size_t(slots_), size_t(slots_)};
  }
  std::span<const SlotKind> kinds(size_t token) const {
    return {kinds_.data() + token * size_t(slots_), size_t(slots_)};
  }
  // What runs of it, token by token, by rising expert id.
  std::vector<HostSlot> chosen(const RouterSpec& spec, const LayerRecipe* recipe) const;

 private:
  RouterInput input(const RouterSpec& spec, const GateTokens& tokens, const GateNumbers& numbers, size_t token) const;
  void mix_neighbours(const RouterSpec& spec, const LayerRecipe& recipe, const GateTokens& tokens,
                      const GateNumbers& numbers);
  void settle(const RouterSpec& spec, const LayerRecipe& recipe);

  int slots_ = 0;
  std::vector<Decision> decisions_;
  std::vector<ExpertId> ids_;
  std::vector<float> weights_, scratch_, edited_, mixed_;
  std::vector<SlotKind> kinds_;
  RouterStates states_;
  NeighbourMix neighbours_;
  BlockScratch block_;
};

}  // namespace switchyard::cuda
