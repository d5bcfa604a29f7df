// The part of a decision that looks at all tokens that run together: expert capacity, and the batch-coupled schemes
// (specs/gating.md 1.2). Pure; called by a backend after route(), on the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/routing/decision.h"

namespace switchyard {

// A batch-coupled scheme decides for at most so many tokens together, on every backend: those of one forward() from its
// first token on.
inline constexpr int kBlockTokens = 256;

// What route() decided for tokens that run together, in their order; [tokens, slots] each, in order of selection.
struct DecisionBlock {
  int slots = 0;
  std::span<Decision> decisions;  // [tokens]: k_used slots of a token are filled
  std::span<ExpertId> ids;
  std::span<float> weights;
  std::span<SlotKind> kinds;
  std::span<const float> edited = {};  // [tokens, 2 E], see DecisionSpans; where waits_for_block()
};

// Grows as needed; kept by the caller between calls.
struct BlockScratch {
  std::vector<uint32_t> counts;
  std::vector<float> scores;
  std::vector<double> costs;
  std::vector<int> places;
};

// Completes the decisions: the native router's capacity, or what a batch-coupled scheme decides for the whole block.
void settle_block(const RouterSpec& spec, const LayerRecipe* recipe, const DecisionBlock& block, BlockScratch& scratch);

// Slots of one expert under Switch: int(factor * ceil(tokens / experts)).
int64_t switch_capacity(double factor, int64_t tokens, int64_t experts);
// Tokens of one expert under expert choice: min(n, max(1, int(n c / E))).
int64_t choice_capacity(double c, int64_t tokens, int64_t experts);

// The assignment of tokens to experts of largest total affinity with at most ceil(tokens / experts with any finite
// affinity) tokens each; exact, by successive shortest paths. affinity: [tokens, experts] with row stride `stride`; -inf:
// never. ids: [tokens].
void assign_balanced(std::span<const float> affinity, int tokens, int experts, int stride, std::span<ExpertId> ids,
                     BlockScratch& scratch);

}  // namespace switchyard
