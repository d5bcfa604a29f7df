// What a plan adds up to.
#include "engine/model/plan.h"

#include <algorithm>

namespace switchyard {
namespace {

template <class... Refs>
int64_t elements_of(const Refs&... refs) {
  return (int64_t{0} + ... + (refs ? refs.elements() : 0));
}

int64_t elements(const NormSpec& norm) { return elements_of(norm.weight, norm.bias); }

int64_t elements(const GluWeights& glu) { return elements_of(glu.gate, glu.up, glu.down); }

int64_t elements(const AttentionSpec& a) {
  return elements_of(a.q, a.k, a.v, a.o, a.q_bias, a.k_bias, a.v_bias, a.o_bias) + elements(a.q_norm) + elements(a.k_norm);
}

// Routed experts counted: all of them, or the k that one token reads.
int64_t elements(const LayerPlan& layer, bool active_only) {
  const int64_t frame = elements(layer.attention_norm) + elements(layer.attention) + elements(layer.ffn_norm);
  const MoeSpec* moe = layer.moe();
  if (!moe) return frame + elements(std::get<GluSpec>(layer.ffn).weights);
  const int64_t router = elements_of(moe->router_weight, moe->router_bias, moe->select_bias);
  const int64_t one_expert = moe->experts.empty() ? 0 : elements(moe->experts.front());
  return frame + router + one_expert * (active_only ? moe->router.experts_per_token : moe->router.experts);
}

int64_t elements(const ModelPlan& plan, bool active_only) {
  int64_t total = elements_of(plan.embedding) + elements(plan.final_norm) + (plan.tied ? 0 : elements_of(plan.lm_head));
  for (const LayerPlan& layer : plan.layers) total += elements(layer, active_only);
  return total;
}

}  // namespace

int ModelPlan::max_experts() const {
  int most = 0;
  for (const int layer : moe_layers) most = std::max(most, layers[layer].moe()->router.experts);
  return most;
}

int ModelPlan::max_experts_per_token() const {
  int most = 0;
  for (const int layer : moe_layers) most = std::max(most, layers[layer].moe()->router.experts_per_token);
  return most;
}

int64_t ModelPlan::parameters() const { return elements(*this, false); }

int64_t ModelPlan::active_parameters() const { return elements(*this, true); }

}  // namespace switchyard
