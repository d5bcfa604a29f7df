// The stages of a routing decision as pure functions on spans, without allocation: shared by the native routers and by
// the gating schemes (specs/gating.md section 2) and by all backends. All but what takes a LayerRecipe or a SchemeData
// compiles as device code: a CUDA warp shares out the experts (engine/backend/cuda/gate.cuh) and calls the same stages.
// Called for every token and routing row, on the engine thread or a worker.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "engine/base/ids.h"
#include "engine/base/philox.h"
#include "engine/routing/decision.h"

#ifdef __CUDACC__
#define SWITCHYARD_BOTH_SIDES __host__ __device__
#else
#define SWITCHYARD_BOTH_SIDES
#endif
#define SWITCHYARD_STAGE SWITCHYARD_BOTH_SIDES inline

namespace switchyard::stages {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

constexpr int kMaxGroups = 256;

SWITCHYARD_STAGE float kept_finite(float x) { return x > kLargest ? kLargest : x < -kLargest ? -kLargest : x; }

// Experts per token that the recipe asks for, of those that there are; null: the model's own.
int k_in_force(const RouterSpec& spec, const LayerRecipe* recipe);

// The caller's scratch, cut into the arrays of one decision.
struct Workspace {
  std::span<float> z;       // logits of this decision, -inf: cannot be selected
  std::span<float> scores;
  std::span<float> keys;    // what the selection compares
  std::span<float> native;  // 1 where the native router selects
};

SWITCHYARD_STAGE Workspace cut(std::span<float> scratch, size_t experts) {
  return {scratch.subspan(0, experts), scratch.subspan(experts, experts), scratch.subspan(2 * experts, experts),
          scratch.subspan(3 * experts, experts)};
}

// Softmax over all experts, unnormalised: exp(z - max), with the sums that the statistics need.
struct SoftmaxSums {
  float max = kNever;
  double sum = 0;       // of exp(z - max)
  double weighted = 0;  // of exp(z - max) * (z - max)
  SWITCHYARD_BOTH_SIDES bool empty() const { return max == kNever; }
  SWITCHYARD_BOTH_SIDES double lse() const { return double(max) + std::log(sum); }
  SWITCHYARD_BOTH_SIDES double entropy() const { return std::max(0.0, std::log(sum) - weighted / sum); }
};

// One more expert in the sums, in the order of the experts.
SWITCHYARD_STAGE void include(SoftmaxSums& sums, float z, float exponential) {
  sums.sum += exponential;
  if (exponential > 0) sums.weighted += double(exponential) * (z - sums.max);
}

SWITCHYARD_STAGE SoftmaxSums softmax_sums(std::span<const float> z, float* exponentials) {
  SoftmaxSums out;
  out.max = *std::max_element(z.begin(), z.end());
  if (out.empty()) return out;
  for (size_t e = 0; e < z.size(); ++e) {
    const float exponential = std::exp(z[e] - out.max);
    if (exponentials) exponentials[e] = exponential;
    include(out, z[e], exponential);
  }
  return out;
}

SWITCHYARD_STAGE float sigmoid(float z) { return 1.0f / (1.0f + std::exp(-z)); }

// Copies the logits; NaN becomes the smallest finite logit of the token (none: 0) and +inf the largest
// float (gating.md, section 0). True when something was replaced.
SWITCHYARD_STAGE bool copy_clean(std::span<const float> logits, std::span<float> z) {
  bool clean = true;
  for (size_t e = 0; e < z.size(); ++e) {
    z[e] = logits[e];
    clean &= logits[e] < std::numeric_limits<float>::infinity();  // false for NaN and +inf
  }
  if (clean) return false;
  float smallest = std::numeric_limits<float>::infinity();
  for (const float logit : logits)
    if (std::isfinite(logit)) smallest = std::min(smallest, logit);
  if (!std::isfinite(smallest)) smallest = 0;
  for (float& logit : z) {
    if (std::isnan(logit)) logit = smallest;
    if (logit > kLargest) logit = kLargest;
  }
  return true;
}

// The edits of a layer's logits. Empty: none; else [E].
struct LogitEdits {
  std::span<const float> row_scale, logit_bias;
  float temperature = 1;
  std::span<const uint8_t> muted;
};

// In the order that LayerRecipe documents. A logit that is -inf stays so. own: the router's bias of this expert.
SWITCHYARD_STAGE float edited_logit(const LogitEdits& edits, float own, size_t e, float logit) {
  if (logit == kNever) return logit;
  if (!edits.row_scale.empty() && edits.row_scale[e] != 1.0f) logit = (logit - own) * edits.row_scale[e] + own;
  if (!edits.logit_bias.empty()) logit += edits.logit_bias[e];
  if (edits.temperature != 1.0f) logit /= edits.temperature;
  return !edits.muted.empty() && edits.muted[e] ? kNever : kept_finite(logit);
}

inline void edit_logits(const LayerRecipe& recipe, std::span<const float> router_bias, std::span<float> z) {
  const LogitEdits edits{recipe.row_scale, recipe.logit_bias, recipe.temperature, recipe.muted};
  for (size_t e = 0; e < z.size(); ++e) z[e] = edited_logit(edits, router_bias.empty() ? 0.0f : router_bias[e], e, z[e]);
}

SWITCHYARD_STAGE bool any_nonzero(std::span<const float> values) {
  return std::any_of(values.begin(), values.end(), [](float value) { return value != 0; });
}

// Scores of all experts, and what the selection compares. Without a selection bias or a group limit
// every score function rises with the logit, so the logits themselves are compared: exact where scores
// saturate. Returns the softmax sums of the logits. select_bias: the checkpoint's; edit_bias: of SelectBias edits.
SWITCHYARD_STAGE float selection_key(float z, float score, const float* own_bias, const float* edit_bias) {
  float key = score;
  if (own_bias) key += *own_bias;
  if (edit_bias) key += *edit_bias;
  return z == kNever || std::isnan(key) ? kNever : key;
}

SWITCHYARD_STAGE SoftmaxSums score(const RouterSpec& spec, std::span<const float> select_bias, std::span<const float> edit_bias,
                                   const Workspace& at) {
  const size_t experts = at.z.size();
  const bool softmax = spec.score == ScoreFn::kSoftmaxAll;
  const SoftmaxSums sums = softmax_sums(at.z, softmax ? at.scores.data() : nullptr);
  if (sums.empty()) {
    std::fill(at.scores.begin(), at.scores.end(), 0.0f);
    std::fill(at.keys.begin(), at.keys.end(), kNever);
    return sums;
  }
  if (softmax) {
    const float sum = static_cast<float>(sums.sum);
    for (float& value : at.scores) value /= sum;
  } else if (spec.score == ScoreFn::kSigmoid) {
    for (size_t e = 0; e < experts; ++e) at.scores[e] = sigmoid(at.z[e]);
  } else {  // selection by logit: softmax_topk, sigmoid_topk, sparsemixer, none
    std::copy(at.z.begin(), at.z.end(), at.scores.begin());
  }

  const bool own = spec.has_select_bias && !select_bias.empty(), edited = any_nonzero(edit_bias);
  if (!own && !edited && spec.groups <= 1) {
    std::copy(at.z.begin(), at.z.end(), at.keys.begin());
    return sums;
  }
  for (size_t e = 0; e < experts; ++e)
    at.keys[e] = selection_key(at.z[e], at.scores[e], own ? &select_bias[e] : nullptr, edited ? &edit_bias[e] : nullptr);
  return sums;
}

// Keeps the best groups of neighbouring experts. The fill lowers the others: -inf takes them out, zero
// leaves them selectable with score 0, as DeepSeek-V2 does.
SWITCHYARD_STAGE void limit_groups(const RouterSpec& spec, const Workspace& at) {
  if (spec.groups <= 1) return;
  const size_t width = at.keys.size() / spec.groups;
  std::array<float, kMaxGroups> group_score;
  for (int g = 0; g < spec.groups; ++g) {
    float best = kNever, second = kNever;
    for (const float key : at.keys.subspan(g * width, width)) {
      if (key > best) second = std::exchange(best, key);
      else second = std::max(second, key);
    }
    const bool pair = spec.group_score == GroupScore::kTop2Sum && second != kNever;
    group_score[g] = pair ? best + second : best;
  }
  std::array<bool, kMaxGroups> kept{};
  for (int turn = 0; turn < spec.groups_kept; ++turn) {
    int best = -1;
    for (int g = 0; g < spec.groups; ++g)
      if (!kept[g] && (best < 0 || group_score[g] > group_score[best])) best = g;
    if (best >= 0) kept[best] = true;
  }
  for (int g = 0; g < spec.groups; ++g) {
    if (kept[g]) continue;
    for (size_t e = g * width; e < (g + 1) * width; ++e) {
      if (at.keys[e] == kNever) continue;
      at.keys[e] = spec.group_fill == GroupFill::kZero ? 0.0f : kNever;
      if (spec.group_fill == GroupFill::kZero) at.scores[e] = 0.0f;
    }
  }
}

// The k largest keys, falling; equal keys: lower id first. Returns how many could be selected.
SWITCHYARD_STAGE int select(std::span<const float> keys, int k, std::span<ExpertId> ids) {
  int used = 0;
  for (size_t e = 0; e < keys.size(); ++e) {
    if (keys[e] == kNever) continue;
    if (used == k && !(keys[e] > keys[ids[k - 1]])) continue;
    int slot = used < k ? used++ : k - 1;
    for (; slot > 0 && keys[e] > keys[ids[slot - 1]]; --slot) ids[slot] = ids[slot - 1];
    ids[slot] = static_cast<ExpertId>(e);
  }
  return used;
}

// Forced experts that were not selected push out the last slots that are not forced, and stand last in
// falling order of their logits (gating.md 1.3, Post-MoE; more than one forced expert is ours).
// forced_experts: [E] or empty.
SWITCHYARD_STAGE void force_slots(std::span<const uint8_t> forced_experts, std::span<const float> z, int used,
                                  const DecisionSpans& out) {
  if (forced_experts.empty()) return;
  const auto forced = [&](size_t e) { return forced_experts[e] && z[e] != kNever; };
  const auto selected = [&](size_t e) {
    return std::find(out.ids.begin(), out.ids.begin() + used, static_cast<ExpertId>(e)) != out.ids.begin() + used;
  };
  for (int turn = 0; turn < used; ++turn) {
    size_t next = z.size();
    for (size_t e = 0; e < z.size(); ++e)
      if (forced(e) && (next == z.size() || z[e] > z[next]) && !selected(e)) next = e;
    if (next == z.size()) return;
    int loser = used - 1;
    while (loser >= 0 && forced(out.ids[loser])) --loser;
    if (loser < 0) return;
    for (int slot = loser; slot + 1 < used; ++slot) {
      out.ids[slot] = out.ids[slot + 1];
      out.kinds[slot] = out.kinds[slot + 1];
    }
    out.ids[used - 1] = static_cast<ExpertId>(next);
    out.kinds[used - 1] = SlotKind::kForced;
  }
}

// Softmax over the selected logits.
SWITCHYARD_STAGE void softmax_selected(std::span<const float> z, std::span<const ExpertId> ids, std::span<float> weights) {
  float max = kNever;
  for (const ExpertId id : ids) max = std::max(max, z[id]);
  float sum = 0;
  for (size_t slot = 0; slot < ids.size(); ++slot) sum += weights[slot] = std::exp(z[ids[slot]] - max);
  for (float& weight : weights) weight /= sum;
}

// PhiMoE's sparsemixer (families.md 1.8): each slot's softmax runs over the experts that earlier slots left and that
// are not more than 2 * jitter, relative to the larger magnitude, below the slot's own expert. Natively that is the
// best of those left; a forced expert counts those above it too.
SWITCHYARD_STAGE void mix_sparsely(float jitter, std::span<const float> z, std::span<const ExpertId> ids, std::span<float> weights) {
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    const auto earlier = ids.first(slot);
    const float own = z[ids[slot]];
    float sum = 0;
    for (size_t e = 0; e < z.size(); ++e) {
      if (z[e] == kNever || (own - z[e]) / std::max(std::abs(z[e]), own) > 2 * jitter) continue;
      if (std::find(earlier.begin(), earlier.end(), static_cast<ExpertId>(e)) == earlier.end())
        sum += std::exp(z[e] - own);
    }
    weights[slot] = 1 / sum;
  }
}

// Routing weights of the final selection: native renormalisation, then the routed scale.
SWITCHYARD_STAGE void weigh(const RouterSpec& spec, const Workspace& at, std::span<const ExpertId> ids, std::span<float> weights) {
  if (spec.score == ScoreFn::kSoftmaxTopK) {
    softmax_selected(at.z, ids, weights);
  } else if (spec.score == ScoreFn::kSparseMixer) {
    mix_sparsely(spec.jitter, at.z, ids, weights);
  } else {
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      const float value = at.scores[ids[slot]];
      weights[slot] = spec.score == ScoreFn::kSigmoidTopK ? sigmoid(value) : value;
    }
  }
  float sum = 0;
  for (const float weight : weights) sum += weight;
  float divisor = 1;
  switch (spec.renorm) {
    case Renorm::kNone: break;
    case Renorm::kSum: divisor = sum; break;
    case Renorm::kSumEps20: divisor = sum + 1e-20f; break;
    case Renorm::kSumEps6: divisor = sum + 1e-6f; break;
    case Renorm::kMaxSum: divisor = std::max(sum, spec.renorm_floor); break;
    case Renorm::kPNorm: {
      float powers = 0;
      for (const float weight : weights) powers += std::pow(std::abs(weight), spec.renorm_floor);
      divisor = std::pow(powers, 1.0f / spec.renorm_floor);
      break;
    }
  }
  // Only edits can select experts whose scores all underflow; the ratios are then those of the logits.
  if (spec.renorm == Renorm::kSum && sum < std::numeric_limits<float>::min()) {
    softmax_selected(at.z, ids, weights);
  } else if (spec.renorm != Renorm::kNone) {
    for (float& weight : weights) weight /= divisor;
  }
  for (float& weight : weights) weight *= spec.scale;
}

SWITCHYARD_STAGE DecisionStats stats_of(const SoftmaxSums& sums, std::span<const float> z, std::span<const ExpertId> ids) {
  DecisionStats stats;
  if (sums.empty()) return stats;
  stats.entropy = static_cast<float>(sums.entropy());
  double mass = 0;
  float lowest = kLargest;
  for (const ExpertId id : ids) {
    mass += std::exp(z[id] - sums.max);
    lowest = std::min(lowest, z[id]);
  }
  stats.topk_mass = static_cast<float>(std::min(1.0, mass / sums.sum));
  float highest = kNever;
  for (size_t e = 0; e < z.size(); ++e)
    if (z[e] > highest && std::find(ids.begin(), ids.end(), static_cast<ExpertId>(e)) == ids.end()) highest = z[e];
  if (highest != kNever && !ids.empty()) stats.margin = kept_finite(lowest - highest);
  stats.lse = static_cast<float>(sums.lse());
  return stats;
}

}  // namespace switchyard::stages
