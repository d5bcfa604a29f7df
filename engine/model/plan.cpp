// What a plan adds up to.
#include "engine/model/plan.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

namespace switchyard {
namespace {

using Visit = std::function<void(const TensorRef&)>;

template <class... Refs>
void each(const Visit& visit, const Refs&... refs) {
  ((refs ? visit(refs) : void()), ...);
}

void visit_op(const NormSpec& norm, const Visit& visit) {
  each(visit, norm.weight, norm.bias);
}

void visit_op(const FfnWeights& w, const Visit& visit) {
  each(visit, w.gate, w.up, w.down, w.gate_bias, w.up_bias, w.down_bias);
}

void visit_op(const FfnSpec& ffn, const Visit& visit) {
  visit_op(ffn.weights, visit);
}

void visit_op(const AttentionSpec& a, const Visit& visit) {
  each(visit, a.q, a.k, a.v, a.o, a.q_bias, a.k_bias, a.v_bias, a.o_bias, a.gate, a.gate_bias, a.sinks, a.position_bias, a.mask_a,
       a.mask_dt, a.mask_dt_bias);
  visit_op(a.q_norm, visit);
  visit_op(a.k_norm, visit);
}

void visit_op(const LatentAttentionSpec& a, const Visit& visit) {
  each(visit, a.q, a.q_a, a.q_a_bias, a.kv_a, a.kv_a_bias, a.kv_b, a.o, a.o_bias);
  visit_op(a.q_a_norm, visit);
  visit_op(a.kv_a_norm, visit);
}

void visit_router(const RoutedSpec& r, const Visit& visit) {
  each(visit, r.router_weight, r.router_bias, r.select_bias);
}

void visit_op(const MixtureAttentionSpec& a, const Visit& visit) {
  visit_router(a, visit);
  visit_op(a.attention, visit);
  for (const TensorRef& ref : a.q_experts) visit(ref);
  for (const TensorRef& ref : a.o_experts) visit(ref);
  each(visit, a.output_bias);
}

void visit_op(const LightningSpec& a, const Visit& visit) {
  each(visit, a.qkv, a.gate, a.o);
  visit_op(a.norm, visit);
}

void visit_op(const DeltaNetSpec& a, const Visit& visit) {
  each(visit, a.qkvz, a.ba, a.conv, a.dt_bias, a.a_log, a.o);
  visit_op(a.norm, visit);
}

void visit_op(const MambaSpec& m, const Visit& visit) {
  each(visit, m.in, m.in_bias, m.conv, m.conv_bias, m.x, m.dt, m.dt_bias, m.a_log, m.d, m.out, m.out_bias);
  visit_op(m.dt_norm, visit);
  visit_op(m.b_norm, visit);
  visit_op(m.c_norm, visit);
}

void visit_op(const ShortConvSpec& c, const Visit& visit) {
  each(visit, c.in, c.in_bias, c.conv, c.conv_bias, c.out, c.out_bias);
}

void visit_op(const MoeSpec& moe, const Visit& visit) {
  visit_router(moe, visit);
  for (const FfnWeights& expert : moe.experts) visit_op(expert, visit);
  if (moe.shared) visit_op(*moe.shared, visit);
  each(visit, moe.shared_gate, moe.output_bias);
}

int64_t elements(const std::function<void(const Visit&)>& source) {
  int64_t total = 0;
  source([&](const TensorRef& ref) { total += ref.elements(); });
  return total;
}

// Elements of one expert of a routed sublayer (an identity has none).
int64_t one_expert(const SublayerOp& op) {
  if (const auto* moe = std::get_if<MoeSpec>(&op); moe && !moe->experts.empty())
    return elements([&](const Visit& visit) { visit_op(moe->experts.front(), visit); });
  if (const auto* mixture = std::get_if<MixtureAttentionSpec>(&op); mixture && !mixture->q_experts.empty())
    return mixture->q_experts.front().elements() + mixture->o_experts.front().elements();
  return 0;
}

size_t stored_experts(const SublayerOp& op) {
  if (const auto* moe = std::get_if<MoeSpec>(&op)) return moe->experts.size();
  if (const auto* mixture = std::get_if<MixtureAttentionSpec>(&op)) return mixture->q_experts.size();
  return 0;
}

}  // namespace

void for_each_tensor(const Sublayer& sublayer, const Visit& visit) {
  visit_op(sublayer.norm, visit);
  std::visit([&](const auto& op) { visit_op(op, visit); }, sublayer.op);
  visit_op(sublayer.post_norm, visit);
  each(visit, sublayer.base_weight);
}

void for_each_weight(const ModelPlan& plan, const Visit& visit) {
  each(visit, plan.embedding, plan.lm_head_bias);
  if (!plan.tied) each(visit, plan.lm_head);
  visit_op(plan.final_norm, visit);
  visit_op(plan.encoder_norm, visit);
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) for_each_tensor(sublayer, visit);
}

void number_rows(ModelPlan& plan) {
  for (size_t layer = 0; layer < plan.layers.size(); ++layer)
    for (size_t sublayer = 0; sublayer < plan.layers[layer].sublayers.size(); ++sublayer) {
      if (!plan.layers[layer].sublayers[sublayer].routed()) continue;
      plan.rows.push_back({static_cast<int>(layer), static_cast<int>(sublayer)});
      plan.moe_layers.push_back(static_cast<int>(layer));
    }
}

const RoutedSpec* Sublayer::routed() const {
  if (const auto* moe = std::get_if<MoeSpec>(&op)) return moe;
  return std::get_if<MixtureAttentionSpec>(&op);
}

bool LayerPlan::routes() const {
  return std::any_of(sublayers.begin(), sublayers.end(), [](const Sublayer& s) { return s.routed() != nullptr; });
}

const RoutedSpec& ModelPlan::routed(int row) const {
  const RoutingRow& at = rows[size_t(row)];
  return *layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].routed();
}

const MoeSpec& ModelPlan::moe(int row) const {
  const RoutingRow& at = rows[size_t(row)];
  return std::get<MoeSpec>(layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op);
}

std::string ModelPlan::row_name(int row) const {
  const RoutingRow& at = rows[size_t(row)];
  const bool attention =
      std::holds_alternative<MixtureAttentionSpec>(layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op);
  const std::string_view side = encoder_layers == 0 ? "" : at.layer < encoder_layers ? "encoder " : "decoder ";
  const int layer = at.layer < encoder_layers ? at.layer : at.layer - encoder_layers;
  return fmt::format("{}layer {}{}", side, layer, attention ? " attention" : "");
}

bool ModelPlan::couples_tokens() const {
  for (size_t row = 0; row < rows.size(); ++row) {
    const RouterSpec& router = routed(int(row)).router;
    if (router.capacity != Capacity::kNone || router.product_key) return true;
  }
  return false;
}

bool ModelPlan::recurrent() const {
  for (const LayerPlan& layer : layers)
    if (layer.find<LightningSpec>() || layer.find<DeltaNetSpec>() || layer.find<MambaSpec>() ||
        layer.find<ShortConvSpec>())
      return true;
  return false;
}

int ModelPlan::max_experts() const {
  int most = 0;
  for (size_t row = 0; row < rows.size(); ++row) most = std::max(most, routed(int(row)).router.experts);
  return most;
}

int ModelPlan::max_experts_per_token() const {
  int most = 0;
  for (size_t row = 0; row < rows.size(); ++row) most = std::max(most, routed(int(row)).router.experts_per_token);
  return most;
}

int64_t ModelPlan::parameters() const {
  std::set<std::pair<std::string, int64_t>> shared;  // the few tensors that several layers name
  int64_t total = 0;
  const auto count = [&](const TensorRef& ref) { total += ref.elements(); };
  each(count, embedding, decoder_embedding, lm_head_bias);
  if (!tied) each(count, lm_head);
  visit_op(final_norm, count);
  visit_op(encoder_norm, count);
  for (const LayerPlan& layer : layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      for_each_tensor(sublayer, count);
      if (sublayer.deferred) each([&](const TensorRef& ref) { total -= ref.elements(); }, sublayer.norm.weight);
      const auto* attention = std::get_if<AttentionSpec>(&sublayer.op);
      if (!attention || !attention->position_bias) continue;
      const TensorRef& bias = attention->position_bias;
      if (!shared.emplace(bias.name, bias.element_offset).second) total -= bias.elements();
    }
  return total;
}

int64_t ModelPlan::active_parameters() const {
  int64_t active = parameters();
  for (size_t row = 0; row < rows.size(); ++row) {
    const RoutingRow& at = rows[row];
    const SublayerOp& op = layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op;
    const auto idle = int64_t(stored_experts(op)) - routed(int(row)).router.experts_per_token;
    active -= one_expert(op) * std::max<int64_t>(idle, 0);
  }
  return active;
}

}  // namespace switchyard
