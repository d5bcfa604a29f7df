// Shadow decisions and their differences, see shadow.h.
#include "engine/analysis/shadow.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

double elements(const FfnWeights& weights) {
  return double(weights.gate.elements()) + double(weights.up.elements()) + double(weights.down.elements());
}

void add(GateDifference& sum, const GateDifference& one) {
  sum.jaccard += one.jaccard;
  sum.weight_l1 += one.weight_l1;
  sum.kl += one.kl;
  sum.js += one.js;
  sum.extra_experts += one.extra_experts;
  sum.extra_flops += one.extra_flops;
}

GateDifference mean_of(GateDifference sum, uint64_t tokens) {
  if (tokens == 0) return {};
  const auto n = static_cast<double>(tokens);
  for (double* value : {&sum.jaccard, &sum.weight_l1, &sum.kl, &sum.js, &sum.extra_experts, &sum.extra_flops})
    *value /= n;
  return sum;
}

// kl and js of two decisions whose logits differ.
void diverge(GateDecision& base, GateDecision& other, GateDifference& out) {
  base.distribute();
  other.distribute();
  double middle_entropy = 0;
  for (size_t e = 0; e < base.logits.size(); ++e) {
    const double p = base.probabilities[e], middle = (p + other.probabilities[e]) / 2;
    if (p > 0) out.kl += p * (base.log_probabilities[e] - other.log_probabilities[e]);
    if (middle > 0) middle_entropy -= middle * std::log(middle);
  }
  out.kl = std::max(0.0, out.kl);  // rounding of nearly equal distributions
  out.js = std::max(0.0, middle_entropy - (base.entropy + other.entropy) / 2);
}

}  // namespace

void GateDecision::select(std::span<const ExpertId> ids, std::span<const float> slot_weights,
                          std::span<const SlotKind> kinds) {
  const size_t experts = logits.size();
  runs.assign(experts, 0);
  weights.assign(experts, 0.0f);
  executed = 0;
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    const SlotKind kind = kinds.empty() ? SlotKind::kRouted : kinds[slot];
    if (kind == SlotKind::kNull || kind == SlotKind::kDropped || ids[slot] >= experts) continue;
    ++runs[ids[slot]];
    weights[ids[slot]] += slot_weights[slot];
    ++executed;
  }
}

void GateDecision::select(const RoutingFrame& frame, int row) {
  const size_t used = frame.layer(row).k_used;
  select(frame.ids(row).first(used), frame.weights(row).first(used), frame.kinds(row).first(used));
}

void GateDecision::set(std::span<const ExpertId> ids, std::span<const float> slot_weights,
                       std::span<const SlotKind> kinds, std::span<const float> edited) {
  logits.assign(edited.begin(), edited.end());
  select(ids, slot_weights, kinds);
  distributed = false;
}

void GateDecision::distribute() {
  if (distributed) return;
  distributed = true;
  const size_t experts = logits.size();
  probabilities.resize(experts);
  log_probabilities.resize(experts);
  entropy = 0;
  const float largest = *std::max_element(logits.begin(), logits.end());
  if (std::isinf(largest)) {  // nothing can be selected
    std::fill(probabilities.begin(), probabilities.end(), 0.0);
    std::fill(log_probabilities.begin(), log_probabilities.end(), largest);
    return;
  }
  double sum = 0;
  for (size_t e = 0; e < experts; ++e) sum += probabilities[e] = std::exp(logits[e] - largest);
  const double lse = largest + std::log(sum);
  for (size_t e = 0; e < experts; ++e) {
    probabilities[e] /= sum;
    log_probabilities[e] = logits[e] - lse;
    if (probabilities[e] > 0) entropy -= probabilities[e] * log_probabilities[e];
  }
}

ExpertCost expert_cost(const ModelPlan& plan, int row) {
  const Sublayer& sublayer =
      plan.layers[size_t(plan.rows[size_t(row)].layer)].sublayers[size_t(plan.rows[size_t(row)].sublayer)];
  const int experts = plan.routed(row).router.experts;
  if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op))
    return {moe->experts.empty() ? 0 : 2 * elements(moe->experts.front()), experts - moe->identity_experts};
  const auto& mixture = std::get<MixtureAttentionSpec>(sublayer.op);
  return {2 * double(mixture.q_experts.front().elements() + mixture.o_experts.front().elements()), experts};
}

GateDifference difference(GateDecision& base, GateDecision& other, const ExpertCost& cost) {
  GateDifference out;
  int shared = 0, all = 0, computed = 0;
  for (size_t e = 0; e < base.runs.size(); ++e) {
    shared += base.runs[e] && other.runs[e];
    all += base.runs[e] || other.runs[e];
    if (int(e) < cost.computed) computed += int(other.runs[e]) - int(base.runs[e]);
    out.weight_l1 += std::abs(double(base.weights[e]) - double(other.weights[e]));
  }
  if (all > 0) out.jaccard = double(shared) / all;
  if (base.logits != other.logits) diverge(base, other, out);
  out.extra_experts = other.executed - base.executed;
  out.extra_flops = computed * cost.flops;
  return out;
}

GateShift::GateShift(const ModelPlan& plan) : rows_(plan.moe_layers.size()) {
  for (int row = 0; row < rows(); ++row) {
    rows_[size_t(row)].cost = expert_cost(plan, row);
    rows_[size_t(row)].moved.resize(size_t(plan.routed(row).router.experts));
  }
}

GateDifference GateShift::feed(int row, GateDecision& base, GateDecision& other) {
  Row& at = rows_[size_t(row)];
  const GateDifference one = difference(base, other, at.cost);
  ++at.tokens;
  at.changed += one.jaccard < 1;
  add(at.sum, one);
  for (size_t e = 0; e < at.moved.size(); ++e) at.moved[e] += int(other.runs[e]) - int(base.runs[e]);
  return one;
}

void GateShift::feed_equal(int row) {
  Row& at = rows_[size_t(row)];
  ++at.tokens;
  at.sum.jaccard += 1;
}

void GateShift::merge(const GateShift& other) {
  for (size_t row = 0; row < rows_.size(); ++row) {
    Row& at = rows_[row];
    const Row& from = other.rows_[row];
    at.tokens += from.tokens;
    at.changed += from.changed;
    add(at.sum, from.sum);
    for (size_t e = 0; e < at.moved.size(); ++e) at.moved[e] += from.moved[e];
  }
}

GateDifference GateShift::mean(int row) const {
  return mean_of(rows_[size_t(row)].sum, rows_[size_t(row)].tokens);
}

GateDifference GateShift::mean() const {
  GateDifference sum{.jaccard = 0};
  uint64_t tokens = 0;
  for (const Row& row : rows_) {
    add(sum, row.sum);
    tokens += row.tokens;
  }
  return mean_of(sum, tokens);
}

int GateShift::first_diverging_row() const {
  for (int row = 0; row < rows(); ++row)
    if (rows_[size_t(row)].changed > 0) return row;
  return -1;
}

ShadowRouter::ShadowRouter(const ModelPlan& plan, std::vector<RouterTensors> tensors)
    : plan_(plan), tensors_(std::move(tensors)) {
  tensors_.resize(plan.moe_layers.size());
}

std::string ShadowRouter::unavailable(const ModelPlan& plan) {
  if (plan.couples_tokens()) return "the routing of this model depends on which tokens run together";
  return {};
}

std::string ShadowRouter::unavailable(const Recipe& recipe) {
  if (!recipe.adapters.empty()) return "adapters give the routers an input that the run did not have";
  if (!recipe.path.native()) return "a layer path gives hidden states that the run did not have";
  for (const LayerRecipe& layer : recipe.layers) {
    if (!layer.router_rows.empty()) return "router rows that are replaced give logits that the run did not have";
    if (cuts_experts(layer.scheme)) return "the scheme " + layer.scheme.choice.name + " switches parts of experts, which are not compared";
    if (runs_in_passes(layer.scheme)) return "the scheme " + layer.scheme.choice.name + " routes what its own earlier passes made";
    if (batch_coupled(layer.scheme)) return "the scheme " + layer.scheme.choice.name + " decides over the tokens that run together";
    if (reads_input(layer.scheme)) return "the scheme " + layer.scheme.choice.name + " reads the router's input, which is not captured";
    if (mixes_tokens(layer.scheme)) return "the scheme " + layer.scheme.choice.name + " mixes in earlier tokens, which are not captured";
  }
  return {};
}

void ShadowRouter::decide(int row, const LayerRecipe* recipe, const RoutingFrame& frame, GateDecision& out) {
  const FrameHeader& header = frame.header();
  decide(row, recipe,
         RouterInput{.logits = frame.logits(row),
                     .token = header.token_id,
                     .index = header.token_index,
                     .first_index = header.token_index,
                     .sequence = header.sequence},
         out);
}

void ShadowRouter::decide(int row, const LayerRecipe* recipe, RouterInput token, GateDecision& out) {
  const RouterSpec& spec = plan_.routed(row).router;
  const auto experts = static_cast<size_t>(spec.experts);
  LayerRecipe without;
  if (recipe && !reads_logits_alone(recipe->scheme)) {
    without = *recipe;
    without.scheme = {};
    recipe = &without;
  }
  token.logits = token.logits.first(experts);
  token.router_bias = tensors_[size_t(row)].logit_bias;
  token.select_bias = tensors_[size_t(row)].select_bias;
  token.row = row;
  token.describe = false;  // what ran is in the frame
  const size_t floats = scratch_needed(spec, recipe), slots = floats / 4;
  if (scratch_.size() < floats) scratch_.resize(floats);
  if (ids_.size() < slots) {
    ids_.resize(slots);
    weights_.resize(slots);
    kinds_.resize(slots);
  }
  const Decision decision = route(spec, recipe, token, std::span(scratch_).first(floats), {ids_, weights_, kinds_});
  const auto used = static_cast<size_t>(decision.k_used);
  // route() leaves the edited logits at the start of its scratch, as explain() relies on.
  out.set(std::span(ids_).first(used), std::span(weights_).first(used), std::span(kinds_).first(used),
          std::span(scratch_).first(experts));
}

}  // namespace switchyard
