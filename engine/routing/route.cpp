// route(): logits -> edited logits -> scores -> selection -> weights, and explain() from the same steps.
// Called by every backend for every token and MoE layer, on the engine thread or a worker; no allocation.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/routing/scheme_stages.h"

namespace switchyard {
using namespace stages;
namespace {

// Marks what the native router selects, by the keys of the workspace, and returns the native lse. A slot of the output
// per native expert is not certain (k may be lowered), so the k-th largest key is found by marking.
double mark_native(const RouterSpec& spec, std::span<const float> select_bias, const Workspace& at) {
  const SoftmaxSums native = score(spec, select_bias, {}, at);
  limit_groups(spec, at);
  std::fill(at.native.begin(), at.native.end(), 0.0f);
  for (int turn = 0; turn < std::min(spec.experts_per_token, spec.experts); ++turn) {
    int best = -1;
    for (int e = 0; e < spec.experts; ++e)
      if (at.native[e] == 0 && at.keys[e] != kNever && (best < 0 || at.keys[e] > at.keys[best])) best = e;
    if (best >= 0) at.native[best] = 1;
  }
  return native.empty() ? 0 : native.lse();
}

// Experts and null experts.
size_t width_of(const RouterSpec& spec, const LayerRecipe* recipe) {
  return size_t(spec.experts) + (recipe ? size_t(recipe->scheme.stages.nulls) : 0);
}

// Stages 1 to 7 of a scheme for one token. at.z holds the cleaned logits; work: what scratch_needed() adds to the
// workspace.
void route_by_scheme(const RouterSpec& spec, const LayerRecipe& recipe, const RouterInput& in, const Workspace& at,
                     std::span<float> work, const DecisionSpans& out, Decision& decision) {
  Stages s = recipe.scheme.stages;
  const SchemeData* data = recipe.scheme.data.get();
  const size_t experts = spec.experts;
  const std::span<float> real = at.z.first(experts);
  if (s.source == LogitSource::kCosine) to_cosines(in, data ? std::span<const float>(data->prototypes) : std::span<const float>(), real);
  if (s.source == LogitSource::kRecurrent) recur(recipe.scheme.file->gru, *data, in.hidden, out.state, work, real);
  // Only the router's own logits have its bias in them.
  edit_logits(recipe, s.source == LogitSource::kLinear ? in.router_bias : std::span<const float>(), real);
  edit_by_scheme(s, data, in, at.z);
  if (s.mixing != Mixing::kNone) mix_in(s.lambda, in.mixed, real);
  if (!out.edited.empty()) {
    std::copy(real.begin(), real.end(), out.edited.begin());
    std::copy_n(at.native.begin(), experts, out.edited.begin() + experts);
  }

  if (s.bank) {
    const auto best = static_cast<ExpertId>(std::max_element(real.begin(), real.end()) - real.begin());
    const Trust trust = trust_of(data->bank, in.hidden, best, work);
    s.sdm_q = static_cast<float>(trust.q), s.sdm_d = static_cast<float>(trust.d);
  }
  const SoftmaxSums sums = score_by_scheme(s, at.z, at.scores);
  const bool biased = any_nonzero(recipe.select_bias);
  for (size_t e = 0; e < at.z.size(); ++e)
    at.keys[e] = at.z[e] == kNever || !biased ? at.z[e] : at.scores[e] + (e < experts ? recipe.select_bias[e] : 0.0f);

  int used = 0;
  const int room = std::min<int>(static_cast<int>(out.ids.size()), static_cast<int>(at.z.size())), k = k_in_force(spec, &recipe);
  switch (s.selector) {
    case Selector::kTable: used = select_from_table(data ? std::span<const ExpertId>(data->table) : std::span<const ExpertId>(), data ? data->columns : 0, s, in.token, k, real, out.ids); break;
    case Selector::kRandom: {
      const uint64_t at_index = s.granularity == Granularity::kToken  ? in.index
                                : s.granularity == Granularity::kStep ? in.first_index
                                                                      : 0;
      for (size_t e = 0; e < experts; ++e)
        if (at.z[e] != kNever) at.keys[e] = static_cast<float>(random_at(s.seed, in, at_index, uint32_t(e)));
      used = select(at.keys.first(experts), k, out.ids);
      break;
    }
    case Selector::kExpertChoice: {  // a token that runs alone
      used = select(at.keys.first(experts), room, out.ids);
      used = over_thresholds(data ? std::span<const float>(data->thresholds) : std::span<const float>(), s.threshold, at.scores, out.ids.first(used));
      break;
    }
    case Selector::kBest:
    case Selector::kSwitch:
    case Selector::kBalanced: used = select(at.keys.first(experts), 1, out.ids); break;
    case Selector::kTopK:
    case Selector::kRatio: used = kept(s, at.scores, out.ids.first(select(at.keys, std::min(k, room), out.ids)), 0); break;
    default: {
      const int all = select(at.keys, room, out.ids);
      const double entropy = s.selector == Selector::kHybrid
                                 ? normalised_entropy(s.entropy, s.q, s.eps, at.scores.first(experts))
                                 : 0;
      used = kept(s, at.scores, out.ids.first(all), entropy);
    }
  }
  if (s.out != OutRule::kSame && !sums.empty()) {
    if (out_of_distribution(s, *std::max_element(at.scores.begin(), at.scores.begin() + experts))) {
      used = select(at.keys.first(experts), room, out.ids);
      s.selector = Selector::kTopP;
      if (s.out == OutRule::kTopP) used = kept(s, at.scores, out.ids.first(used), 0);
    }
  }
  const int real_slots = s.nulls > 0 ? nulls_last(experts, out.ids.first(used)) : used;
  decision.nulls = used - real_slots;
  std::fill_n(out.kinds.begin(), real_slots, SlotKind::kRouted);
  force_slots(recipe.forced, real, real_slots, out);
  decision.k_used = add_by_scheme(s, recipe.logit_bias, real, real_slots, out);
  const auto ids = out.ids.first(decision.k_used);
  if (!ids.empty()) weigh_by_rule(s.weights, spec.scale, real, at.scores, ids, out.weights.first(ids.size()));
  for (int slot = decision.k_used; slot < decision.k_used + decision.nulls; ++slot) {
    out.kinds[slot] = SlotKind::kNull;
    out.weights[slot] = 0;
  }
  if (in.describe) decision.stats = stats_of(s.nulls > 0 ? softmax_sums(real, nullptr) : sums, real, ids);
}

// The route of a record. What edits say of the decision has no say, but that a muted expert never runs.
void route_recorded(const RouterSpec& spec, const LayerRecipe& recipe, const RouterInput& in, const Workspace& at,
                    const DecisionSpans& out, Decision& decision) {
  const SchemeData& data = *recipe.scheme.data;
  edit_logits(recipe, in.router_bias, at.z);
  const SoftmaxSums sums = score(spec, in.select_bias, recipe.select_bias, at);
  const size_t first = size_t(in.index) * size_t(data.columns);
  for (size_t slot = first; slot < first + size_t(data.columns); ++slot) {
    const SlotKind kind = data.kinds.empty() ? SlotKind::kRouted : SlotKind(data.kinds[slot]);
    const ExpertId id = data.table[slot];
    if (kind == SlotKind::kNull) {
      ++decision.nulls;
      continue;
    }
    if (id == kNoExpert || at.z[id] == kNever) continue;
    if (!data.weights.empty()) out.weights[decision.k_used] = data.weights[slot];
    out.ids[decision.k_used] = id;
    out.kinds[decision.k_used++] = kind;
  }
  const auto ids = out.ids.first(decision.k_used);
  if (data.weights.empty() && !ids.empty()) weigh(spec, at, ids, out.weights.first(ids.size()));
  for (int null = 0; null < decision.nulls; ++null) {
    const int slot = decision.k_used + null;
    out.ids[slot] = static_cast<ExpertId>(spec.experts + null);
    out.kinds[slot] = SlotKind::kNull;
    out.weights[slot] = 0;
  }
  if (in.describe) decision.stats = stats_of(sums, at.z, ids);
}

// Forced experts take the last slots of others, each with the weight that stood there.
void force_weighed(const LayerRecipe& recipe, std::span<const float> z, int used, const DecisionSpans& out) {
  if (recipe.forced.empty()) return;
  const auto ids = out.ids.first(used);
  for (int slot = used - 1; slot >= 0; --slot) {
    if (recipe.forced[ids[slot]]) continue;
    int best = -1;
    for (int e = 0; e < int(z.size()); ++e)
      if (recipe.forced[e] && z[e] != kNever && (best < 0 || z[e] > z[best]) && std::find(ids.begin(), ids.end(), e) == ids.end()) best = e;
    if (best < 0) return;
    ids[slot] = static_cast<ExpertId>(best);
    out.kinds[slot] = SlotKind::kForced;
  }
}

// A scheme of code that decides. False: it failed, and the layer's own router is to decide under the same edits.
bool route_by_code(const RouterSpec& spec, const LayerRecipe& recipe, const RouterInput& in, const Workspace& at,
                   const DecisionSpans& out, Decision& decision) {
  edit_logits(recipe, in.router_bias, at.z);
  const CodeCall call{in, recipe.scheme.layer, k_in_force(spec, &recipe), at.z, out.state};
  int used = 0;
  if (!recipe.scheme.code->decide(call, out, used)) return false;
  force_weighed(recipe, at.z, used, out);
  for (int slot = 0; slot < used; ++slot) out.weights[slot] *= spec.scale;
  decision.k_used = used;
  if (!in.describe) return true;
  const SoftmaxSums sums = softmax_sums(at.z, at.scores.data());
  for (float& score : at.scores) score = sums.empty() ? 0 : score / static_cast<float>(sums.sum);
  decision.stats = stats_of(sums, at.z, out.ids.first(used));
  return true;
}

}  // namespace

int stages::k_in_force(const RouterSpec& spec, const LayerRecipe* recipe) {
  const int layer = std::min(recipe && recipe->k > 0 ? recipe->k : spec.experts_per_token, spec.experts);
  if (!recipe || !recipe->scheme) return layer;
  const Stages& s = recipe->scheme.stages;
  return s.k > 0 ? std::min(s.k, spec.experts + s.nulls) : std::max(1, layer / s.passes);
}

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

int slots_needed(const RouterSpec& spec, const LayerRecipe* recipe) {
  const int k = k_in_force(spec, recipe);
  if (recipe && recipe->scheme.stages.selector == Selector::kReplay)
    return std::max(k, recipe->scheme.data ? recipe->scheme.data->columns : 0);
  if (recipe && recipe->scheme.code) return std::max(k, std::min(recipe->scheme.code->slots(spec.experts, k), spec.experts));
  if (!recipe || !replaces_router(recipe->scheme)) return k;
  const Stages& s = recipe->scheme.stages;
  switch (s.out != OutRule::kSame ? Selector::kThreshold : s.selector) {
    case Selector::kTopK:
    case Selector::kRatio:
    case Selector::kTable:
    case Selector::kRandom: return std::min(k + s.forced_low, spec.experts + s.nulls);
    case Selector::kBest:
    case Selector::kSwitch:
    case Selector::kBalanced: return 1;
    case Selector::kTopP:
    case Selector::kMinP: return s.k_max > 0 ? std::min(s.k_max, spec.experts) : spec.experts;
    case Selector::kHybrid:
    case Selector::kThreshold:
    case Selector::kExpertChoice:
    case Selector::kReplay:
    case Selector::kCode: break;
  }
  return spec.experts;
}

size_t scratch_needed(const RouterSpec& spec, const LayerRecipe* recipe) {
  size_t work = 0;
  if (recipe && is_recurrent(recipe->scheme)) work = 2 * size_t(recipe->scheme.file->gru.width());
  if (recipe && recipe->scheme.stages.bank) work = recipe->scheme.data->bank.labels.size();
  return 4 * width_of(spec, recipe) + work;
}

bool waits_for_block(const LayerRecipe* recipe, const RouterInput& in) {
  return recipe && batch_coupled(recipe->scheme) && in.together > 1;
}

Decision route(const RouterSpec& spec, const LayerRecipe* recipe, const RouterInput& in, std::span<float> scratch,
               const DecisionSpans& out) {
  const size_t experts = spec.experts, width = width_of(spec, recipe);
  const Workspace all = cut(scratch, width);
  const Workspace at{all.z.first(experts), all.scores.first(experts), all.keys.first(experts), all.native.first(experts)};
  Decision decision;
  decision.had_nan = copy_clean(in.logits.first(experts), at.z);
  double native_lse = 0;
  const bool against_native = recipe && in.describe;
  if (against_native) {
    if (!in.native.empty()) copy_clean(in.native.first(experts), at.z);
    native_lse = mark_native(spec, in.select_bias, at);
    if (!in.native.empty()) {
      copy_clean(in.logits.first(experts), at.z);
      const SoftmaxSums raw = softmax_sums(at.z, nullptr);
      native_lse = raw.empty() ? 0 : raw.lse();
    }
  }
  const SchemeCode* const code = recipe ? recipe->scheme.code.get() : nullptr;
  const bool decided = code && !code->edits_logits() && route_by_code(spec, *recipe, in, at, out, decision);
  if (code && !code->edits_logits() && !decided) {
    decision.fell_back = true;
    copy_clean(in.logits.first(experts), at.z);
  }
  if (decided) {
  } else if (recipe && replayed(recipe->scheme, in.index, in.token)) {
    route_recorded(spec, *recipe, in, at, out, decision);
  } else if (recipe && replaces_router(recipe->scheme)) {
    route_by_scheme(spec, *recipe, in, all, scratch.subspan(4 * width), out, decision);
  } else {
    if (recipe) edit_logits(*recipe, in.router_bias, at.z);
    if (recipe && mixes_tokens(recipe->scheme)) mix_in(recipe->scheme.stages.lambda, in.mixed, at.z);
    if (code && code->edits_logits())
      decision.fell_back = !code->edit({in, recipe->scheme.layer, k_in_force(spec, recipe), at.z, out.state}, at.z);
    const SoftmaxSums sums = score(spec, in.select_bias, recipe ? std::span<const float>(recipe->select_bias) : std::span<const float>(), at);
    limit_groups(spec, at);
    const int used = select(at.keys, k_in_force(spec, recipe), out.ids);
    std::fill_n(out.kinds.begin(), used, SlotKind::kRouted);
    if (recipe) force_slots(recipe->forced, at.z, used, out);
    const auto ids = out.ids.first(used);
    if (used > 0) weigh(spec, at, ids, out.weights.first(used));
    decision.k_used = used;
    if (in.describe) decision.stats = stats_of(sums, at.z, ids);
  }
  if (against_native) {
    decision.stats.lse = static_cast<float>(native_lse);
    for (const ExpertId id : out.ids.first(decision.k_used)) decision.changed += at.native[id] == 0;
  }
  return decision;
}

GateExplanation explain(const RouterSpec& spec, const LayerRecipe* recipe, const RouterInput& given) {
  const size_t experts = spec.experts;
  const bool no_input = recipe && !reads_logits_alone(recipe->scheme) && given.hidden.empty() && given.mixed.empty();
  LayerRecipe without;  // the scheme's edits alone, where its input is not known
  if (no_input) {
    without = *recipe;
    without.scheme = {};
  }
  const LayerRecipe* shown = no_input ? &without : recipe;
  RouterInput in = given;
  in.together = 1;
  std::vector<float> scratch(scratch_needed(spec, shown));
  const size_t width = width_of(spec, shown);
  const Workspace at = cut(scratch, width), native_at = cut(scratch, experts);
  const size_t slots_at_most = width;
  std::vector<ExpertId> ids(slots_at_most);
  std::vector<float> slot_weights(slots_at_most);
  std::vector<SlotKind> kinds(slots_at_most);
  const DecisionSpans slots{ids, slot_weights, kinds};

  const auto spread = [&](const Decision& decision, std::vector<float>& weights, std::vector<uint8_t>& selected) {
    weights.assign(experts, 0.0f);
    selected.assign(experts, 0);
    for (int slot = 0; slot < decision.k_used; ++slot) {
      weights[ids[slot]] = slot_weights[slot];
      selected[ids[slot]] = 1;
    }
  };
  const auto copy = [&](std::span<const float> values) { return std::vector<float>(values.begin(), values.begin() + experts); };

  GateExplanation out;
  out.logits.assign(in.logits.begin(), in.logits.begin() + experts);
  out.native_decision = route(spec, nullptr, in, scratch, slots);
  out.native_scores = copy(native_at.scores);
  spread(out.native_decision, out.native_weights, out.native_selected);

  out.decision = route(spec, shown, in, scratch, slots);
  out.edited_logits = copy(at.z);
  out.scores = copy(at.scores);
  out.select_scores = copy(at.scores);
  const bool by_scheme = shown && replaces_router(shown->scheme);
  for (size_t e = 0; e < experts; ++e) {
    if (!by_scheme && spec.has_select_bias && !in.select_bias.empty()) out.select_scores[e] += in.select_bias[e];
    if (shown && !shown->select_bias.empty()) out.select_scores[e] += shown->select_bias[e];
    if (!by_scheme && spec.groups > 1) out.select_scores[e] = at.keys[e];
  }
  spread(out.decision, out.weights, out.selected);
  if (no_input)
    out.unknown = reads_input(recipe->scheme)
                      ? "The scheme reads the router's input, which no trace holds: shown without the scheme."
                  : recipe->scheme.code ? "The scheme hands a state from layer to layer, which no trace holds: shown without the scheme."
                      : "The scheme mixes in earlier tokens, which no trace holds: shown without the scheme.";
  else if (out.decision.fell_back)
    out.unknown = "The scheme's code failed here; the model's own router decided.";
  else if (recipe && batch_coupled(recipe->scheme) && given.together != 1)
    out.unknown = "The scheme looks at all tokens that ran together: shown as for a token that runs alone.";
  return out;
}

}  // namespace switchyard
