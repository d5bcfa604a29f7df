// route(): logits -> edited logits -> scores -> selection -> weights, and explain() from the same steps.
// Called by every backend for every token and MoE layer, on the engine thread or a worker; no allocation.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/routing/decision.h"

namespace switchyard {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int kMaxGroups = 256;

// The caller's scratch, cut into the arrays of one decision.
struct Workspace {
  std::span<float> z;       // logits of this decision, -inf: cannot be selected
  std::span<float> scores;
  std::span<float> keys;    // what the selection compares
  std::span<float> native;  // 1 where the native router selects
};

Workspace cut(std::span<float> scratch, size_t experts) {
  return {scratch.subspan(0, experts), scratch.subspan(experts, experts), scratch.subspan(2 * experts, experts),
          scratch.subspan(3 * experts, experts)};
}

// Softmax over all experts, unnormalised: exp(z - max), with the sums that the statistics need.
struct SoftmaxSums {
  float max = kNever;
  double sum = 0;       // of exp(z - max)
  double weighted = 0;  // of exp(z - max) * (z - max)
  bool empty() const { return max == kNever; }
  double lse() const { return double(max) + std::log(sum); }
  double entropy() const { return std::max(0.0, std::log(sum) - weighted / sum); }
};

SoftmaxSums softmax_sums(std::span<const float> z, float* exponentials) {
  SoftmaxSums out;
  out.max = *std::max_element(z.begin(), z.end());
  if (out.empty()) return out;
  for (size_t e = 0; e < z.size(); ++e) {
    const float shifted = z[e] - out.max;
    const float exponential = std::exp(shifted);
    if (exponentials) exponentials[e] = exponential;
    out.sum += exponential;
    if (exponential > 0) out.weighted += double(exponential) * shifted;
  }
  return out;
}

float sigmoid(float z) { return 1.0f / (1.0f + std::exp(-z)); }

// Copies the logits; NaN becomes the smallest finite logit of the token (none: 0) and +inf the largest
// float (gating.md, section 0). True when something was replaced.
bool copy_clean(std::span<const float> logits, std::span<float> z) {
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
    logit = std::min(logit, kLargest);
  }
  return true;
}

// The logit edits, in the order that LayerRecipe documents. A logit that is -inf stays so.
void edit_logits(const LayerRecipe& recipe, std::span<const float> router_bias, std::span<float> z) {
  for (size_t e = 0; e < z.size(); ++e) {
    float logit = z[e];
    if (logit == kNever) continue;
    if (!recipe.row_scale.empty() && recipe.row_scale[e] != 1.0f) {
      const float own = router_bias.empty() ? 0.0f : router_bias[e];
      logit = (logit - own) * recipe.row_scale[e] + own;
    }
    if (!recipe.logit_bias.empty()) logit += recipe.logit_bias[e];
    if (recipe.temperature != 1.0f) logit /= recipe.temperature;
    z[e] = std::clamp(logit, -kLargest, kLargest);
    if (!recipe.muted.empty() && recipe.muted[e]) z[e] = kNever;
  }
}

bool any_nonzero(std::span<const float> values) {
  return std::any_of(values.begin(), values.end(), [](float value) { return value != 0; });
}

// Scores of all experts, and what the selection compares. Without a selection bias or a group limit
// every score function rises with the logit, so the logits themselves are compared: exact where scores
// saturate. Returns the softmax sums of the logits when the scores needed them.
SoftmaxSums score(const RouterSpec& spec, const LayerRecipe* recipe, std::span<const float> select_bias,
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

  const bool own_bias = spec.has_select_bias && !select_bias.empty();
  const bool edit_bias = recipe && any_nonzero(recipe->select_bias);
  if (!own_bias && !edit_bias && spec.groups <= 1) {
    std::copy(at.z.begin(), at.z.end(), at.keys.begin());
    return sums;
  }
  for (size_t e = 0; e < experts; ++e) {
    float key = at.scores[e];
    if (own_bias) key += select_bias[e];
    if (edit_bias) key += recipe->select_bias[e];
    at.keys[e] = at.z[e] == kNever || std::isnan(key) ? kNever : key;
  }
  return sums;
}

// Keeps the best groups of neighbouring experts. The fill lowers the others: -inf takes them out, zero
// leaves them selectable with score 0, as DeepSeek-V2 does.
void limit_groups(const RouterSpec& spec, const Workspace& at) {
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
int select(std::span<const float> keys, int k, std::span<ExpertId> ids) {
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
void force_slots(const LayerRecipe& recipe, std::span<const float> z, int used, const DecisionSpans& out) {
  if (recipe.forced.empty()) return;
  const auto forced = [&](size_t e) { return recipe.forced[e] && z[e] != kNever; };
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
void softmax_selected(std::span<const float> z, std::span<const ExpertId> ids, std::span<float> weights) {
  float max = kNever;
  for (const ExpertId id : ids) max = std::max(max, z[id]);
  float sum = 0;
  for (size_t slot = 0; slot < ids.size(); ++slot) sum += weights[slot] = std::exp(z[ids[slot]] - max);
  for (float& weight : weights) weight /= sum;
}

// PhiMoE's sparsemixer (families.md 1.8): each slot's softmax runs over the experts that earlier slots left and that
// are not more than 2 * jitter, relative to the larger magnitude, below the slot's own expert. Natively that is the
// best of those left; a forced expert counts those above it too.
void mix_sparsely(float jitter, std::span<const float> z, std::span<const ExpertId> ids, std::span<float> weights) {
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
void weigh(const RouterSpec& spec, const Workspace& at, std::span<const ExpertId> ids, std::span<float> weights) {
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

DecisionStats stats_of(const SoftmaxSums& sums, std::span<const float> z, std::span<const ExpertId> ids) {
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
  if (highest != kNever && !ids.empty()) stats.margin = std::clamp(lowest - highest, -kLargest, kLargest);
  stats.lse = static_cast<float>(sums.lse());
  return stats;
}

int k_in_force(const RouterSpec& spec, const LayerRecipe* recipe) {
  return std::min(recipe && recipe->k > 0 ? recipe->k : spec.experts_per_token, spec.experts);
}

}  // namespace

std::string unroutable(const RouterSpec& spec) {
  if (spec.experts <= 0 || spec.experts >= kNoExpert) return "a router of " + std::to_string(spec.experts) + " experts";
  if (spec.experts_per_token <= 0 || spec.experts_per_token > spec.experts)
    return std::to_string(spec.experts_per_token) + " experts per token of " + std::to_string(spec.experts);
  if (spec.groups > kMaxGroups || (spec.groups > 1 && spec.experts % spec.groups != 0))
    return std::to_string(spec.experts) + " experts in " + std::to_string(spec.groups) + " groups";
  if (spec.groups > 1 && (spec.groups_kept < 1 || spec.groups_kept > spec.groups))
    return std::to_string(spec.groups_kept) + " groups kept of " + std::to_string(spec.groups);
  if (spec.renorm == Renorm::kPNorm && !(spec.renorm_floor > 0)) return "p-norm renormalisation without p > 0";
  return {};
}

int slots_needed(const RouterSpec& spec, const LayerRecipe* recipe) { return k_in_force(spec, recipe); }

Decision route(const RouterSpec& spec, const LayerRecipe* recipe, std::span<const float> logits,
               std::span<const float> router_bias, std::span<const float> select_bias, std::span<float> scratch,
               const DecisionSpans& out) {
  const Workspace at = cut(scratch, spec.experts);
  Decision decision;
  decision.had_nan = copy_clean(logits.first(spec.experts), at.z);

  double native_lse = 0;
  if (recipe) {  // what the native router would have selected
    const SoftmaxSums native = score(spec, nullptr, select_bias, at);
    if (!native.empty()) native_lse = native.lse();
    limit_groups(spec, at);
    // A slot of the output per native expert is not certain (k may be lowered), so the k-th largest key
    // is found by marking: the selection below writes to the caller's buffers again.
    std::fill(at.native.begin(), at.native.end(), 0.0f);
    for (int turn = 0; turn < std::min(spec.experts_per_token, spec.experts); ++turn) {
      int best = -1;
      for (int e = 0; e < spec.experts; ++e)
        if (at.native[e] == 0 && at.keys[e] != kNever && (best < 0 || at.keys[e] > at.keys[best])) best = e;
      if (best >= 0) at.native[best] = 1;
    }
    edit_logits(*recipe, router_bias, at.z);
  }

  const SoftmaxSums sums = score(spec, recipe, select_bias, at);
  limit_groups(spec, at);
  const int used = select(at.keys, k_in_force(spec, recipe), out.ids);
  std::fill_n(out.kinds.begin(), used, SlotKind::kRouted);
  if (recipe) force_slots(*recipe, at.z, used, out);

  const auto ids = out.ids.first(used);
  if (used > 0) weigh(spec, at, ids, out.weights.first(used));
  decision.k_used = used;
  decision.stats = stats_of(sums, at.z, ids);
  if (recipe) {
    decision.stats.lse = static_cast<float>(native_lse);
    for (const ExpertId id : ids) decision.changed += at.native[id] == 0;
  }
  return decision;
}

GateExplanation explain(const RouterSpec& spec, const LayerRecipe* recipe, std::span<const float> logits,
                        std::span<const float> router_bias, std::span<const float> select_bias) {
  const size_t experts = spec.experts;
  std::vector<float> scratch(4 * experts);
  const Workspace at = cut(scratch, experts);
  std::vector<ExpertId> ids(experts);
  std::vector<float> slot_weights(experts);
  std::vector<SlotKind> kinds(experts);
  const DecisionSpans slots{ids, slot_weights, kinds};

  const auto spread = [&](const Decision& decision, std::vector<float>& weights, std::vector<uint8_t>& selected) {
    weights.assign(experts, 0.0f);
    selected.assign(experts, 0);
    for (int slot = 0; slot < decision.k_used; ++slot) {
      weights[ids[slot]] = slot_weights[slot];
      selected[ids[slot]] = 1;
    }
  };
  const auto copy = [](std::span<const float> values) { return std::vector<float>(values.begin(), values.end()); };

  GateExplanation out;
  out.logits.assign(logits.begin(), logits.begin() + experts);
  out.native_decision = route(spec, nullptr, logits, router_bias, select_bias, scratch, slots);
  out.native_scores = copy(at.scores);
  spread(out.native_decision, out.native_weights, out.native_selected);

  out.decision = route(spec, recipe, logits, router_bias, select_bias, scratch, slots);
  out.edited_logits = copy(at.z);
  out.scores = copy(at.scores);
  out.select_scores = copy(at.scores);
  for (size_t e = 0; e < experts; ++e) {
    if (spec.has_select_bias && !select_bias.empty()) out.select_scores[e] += select_bias[e];
    if (recipe && !recipe->select_bias.empty()) out.select_scores[e] += recipe->select_bias[e];
    if (spec.groups > 1) out.select_scores[e] = at.keys[e];
  }
  spread(out.decision, out.weights, out.selected);
  return out;
}

}  // namespace switchyard
