// What a plan adds up to.
#include "engine/model/plan.h"

#include <algorithm>

namespace switchyard {
namespace {

template <class... Refs>
int64_t elements_of(const Refs&... refs) {
  return (int64_t{0} + ... + (refs ? refs.elements() : 0));
}

int64_t elements(const NormSpec& norm) {
  return elements_of(norm.weight, norm.bias);
}

int64_t elements(const GluWeights& glu) {
  return elements_of(glu.gate, glu.up, glu.down);
}

int64_t elements(const AttentionSpec& a) {
  return elements_of(a.q, a.k, a.v, a.o, a.q_bias, a.k_bias, a.v_bias, a.o_bias) + elements(a.q_norm) +
         elements(a.k_norm);
}

int64_t one_expert(const MoeSpec& moe) {
  return moe.experts.empty() ? 0 : elements(moe.experts.front());
}

int64_t elements(const MoeSpec& moe) {
  return elements_of(moe.router_weight, moe.router_bias, moe.select_bias) + one_expert(moe) * moe.router.experts;
}

int64_t elements(const LayerPlan& layer) {
  const int64_t frame = elements(layer.attention_norm) + elements(layer.attention) + elements(layer.ffn_norm);
  const MoeSpec* moe = layer.moe();
  return frame + (moe ? elements(*moe) : elements(std::get<GluSpec>(layer.ffn).weights));
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

int64_t ModelPlan::parameters() const {
  int64_t total = elements_of(embedding) + elements(final_norm) + (tied ? 0 : elements_of(lm_head));
  for (const LayerPlan& layer : layers) total += elements(layer);
  return total;
}

int64_t ModelPlan::active_parameters() const {
  int64_t active = parameters();
  for (const int layer : moe_layers) {
    const MoeSpec& moe = *layers[layer].moe();
    active -= one_expert(moe) * (moe.router.experts - moe.router.experts_per_token);
  }
  return active;
}

}  // namespace switchyard
