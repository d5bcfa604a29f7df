// See capacity.h.
#include "engine/routing/capacity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace switchyard {
namespace {

bool executed(SlotKind kind) { return kind == SlotKind::kRouted || kind == SlotKind::kForced; }

float sum_of(std::span<const float> values) { return std::accumulate(values.begin(), values.end(), 0.0f); }

// Softmax probability of the first choice, whether the weights are renormalised or not.
float first_probability(const DecisionBlock& block, uint32_t token) {
  const Decision& decision = block.decisions[token];
  if (decision.k_used == 0) return 0;
  const auto weights = block.weights.subspan(size_t(token) * block.slots, decision.k_used);
  const float sum = sum_of(weights);
  return sum > 0 ? weights[0] / sum * decision.stats.topk_mass : 0;
}

// The divisor that a sum of probabilities has in `spec`.
float divisor(const RouterSpec& spec, float sum) {
  switch (spec.renorm) {
    case Renorm::kSum:
      return sum;
    case Renorm::kSumEps20:
      return sum + 1e-20f;
    case Renorm::kSumEps6:
      return sum + 1e-6f;
    case Renorm::kMaxSum:
      return std::max(sum, spec.renorm_floor);
    case Renorm::kNone:
    case Renorm::kPNorm:
      break;
  }
  return 1;
}

// weights: renormalised over all slots, the dropped ones 0 since; mass: what the probabilities of all slots add up to.
void renormalise(const RouterSpec& spec, float mass, std::span<float> weights) {
  const float left = sum_of(weights);
  if (left <= 0) return;
  const float before = divisor(spec, mass), probabilities = left / spec.scale * before;
  const float factor = before / divisor(spec, probabilities);
  for (float& weight : weights) weight *= factor;
}

}  // namespace

int64_t capacity_of(const RouterSpec& spec, int64_t tokens) {
  const auto count = static_cast<double>(tokens);
  switch (spec.capacity) {
    case Capacity::kNone:
      break;
    case Capacity::kPerSequence:
      return static_cast<int64_t>(spec.capacity_value);
    case Capacity::kFraction:
      return std::max<int64_t>(static_cast<int64_t>(std::ceil(spec.capacity_value * count)), spec.capacity_min);
    case Capacity::kFactor: {
      const auto room =
          static_cast<int64_t>(std::floor(spec.experts_per_token * spec.capacity_value * count / spec.experts));
      return std::max<int64_t>(room + room % 2, spec.capacity_min);
    }
  }
  return std::numeric_limits<int64_t>::max();
}

void limit_to_capacity(const RouterSpec& spec, const LayerRecipe* recipe, const DecisionBlock& block,
                       std::vector<uint32_t>& scratch) {
  if (spec.capacity == Capacity::kNone) return;
  const size_t tokens = block.decisions.size();
  const int64_t room = capacity_of(spec, static_cast<int64_t>(tokens));
  scratch.assign(spec.experts + tokens, 0);
  const std::span<uint32_t> asked = std::span(scratch).first(spec.experts), order = std::span(scratch).subspan(spec.experts);
  std::iota(order.begin(), order.end(), 0u);
  if (spec.batch_prioritised)
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return first_probability(block, a) > first_probability(block, b);
    });

  const auto forced = [&](ExpertId expert) { return recipe && !recipe->forced.empty() && recipe->forced[expert]; };
  for (int slot = 0; slot < block.slots; ++slot)
    for (const uint32_t token : order) {
      const size_t at = size_t(token) * block.slots + slot;
      if (slot >= block.decisions[token].k_used || !executed(block.kinds[at])) continue;
      const ExpertId expert = block.ids[at];
      if (asked[expert]++ >= room && !forced(expert)) block.kinds[at] = SlotKind::kDropped;
    }

  for (size_t token = 0; token < tokens; ++token) {
    const Decision& decision = block.decisions[token];
    const auto weights = block.weights.subspan(token * block.slots, decision.k_used);
    bool dropped = false;
    for (int slot = 0; slot < decision.k_used; ++slot)
      if (block.kinds[token * block.slots + slot] == SlotKind::kDropped) {
        weights[slot] = 0;
        dropped = true;
      }
    if (dropped && !spec.renorm_before_capacity) renormalise(spec, decision.stats.topk_mass, weights);
  }
}

}  // namespace switchyard
