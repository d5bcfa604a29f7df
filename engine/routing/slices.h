// Which slices of its experts' hidden units a token uses (Union-of-Experts, specs/gating.md 1.3): the slice gate's
// decision over the tokens that run together. Pure; called by a backend on the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/routing/decision.h"
#include "engine/routing/scheme.h"

namespace switchyard {

// The unit where slice `slice` of `width` begins; slices are runs of equal length.
constexpr int64_t slice_begin(int slice, int slices, int64_t width) { return width * slice / slices; }

// g m / (sum over the tokens of g m + 1e-6) * int(cap * tokens), per slice. g, mask and out: [tokens, slices].
void normalise_slices(std::span<const float> g, std::span<const uint8_t> mask, int slices, double cap, std::span<float> out);

// on [tokens, slices] by the logits [tokens, slices] of the slice gate, whose softmax is g. Token: its slices_on best.
// Data: each slice takes its max(1, tokens / 2) best tokens by g of the tokens' slices_on best, normalised over the
// tokens. Sequence: the slices_on best of the mean logits, for all tokens. Ties: lower slice, lower token.
void choose_slices(const Stages& stages, std::span<const float> logits, std::span<uint8_t> on);

// The decision of one token for a frame: ids are slices, weights 1. ids, weights, kinds: [slices].
Decision slice_decision(std::span<const float> logits, std::span<const uint8_t> on, const DecisionSpans& out);

}  // namespace switchyard
