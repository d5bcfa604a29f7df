// Hunyuan MoE V1 (specs/families.md, section 1.18): per-head q and k norm after rope; softmax over all experts, top-k,
// renormalised; one ungated shared expert. Data only; called while a checkpoint opens.
#include <algorithm>

#include <fmt/format.h>
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

// A number, or (published configs) a list with one entry per layer.
std::vector<int> per_layer(PlanBuilder& builder, std::string_view key, size_t layers, int fallback, int max, int min) {
  const auto value = builder.config().find(key);
  if (!value || !value->json().is_array()) return std::vector<int>(layers, builder.count_or(key, fallback, max, min));
  std::vector<int> list = builder.list_or_empty(key, max);
  if (list.size() != layers)
    builder.refuse_config(fmt::format("has {} values of {} for {} layers", list.size(), key, layers));
  list.resize(layers, min);
  return list;
}

}  // namespace

ModelPlan plan_hunyuan_v1_moe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-5f);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4, .rope_alpha = true});
  shape.qk_norm = QkNorm::kPerHeadPostRope;

  const size_t layers = plan.layers.size();
  const int dense_width = builder.count({"intermediate_size"}, kMaxHidden);
  const std::vector<int> top_k = per_layer(builder, "moe_topk", layers, 1, kMaxExperts, 1);
  // transformers builds every block from intermediate_size; published files also list the experts' own width.
  const std::vector<int> widths = per_layer(builder, "moe_intermediate_size", layers, dense_width, kMaxHidden, 1);
  const std::vector<int> shared = per_layer(builder, "num_shared_expert", layers, 1, kMaxExperts, 0);
  MoeNames names = kSeparateExperts;
  names.router = "gate.wg.weight";
  for (size_t n = 0; n < layers && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden,
                                         {.qkv_bias = bias,
                                          .o_bias = bias,
                                          .eps = eps,
                                          .q_norm = "query_layernorm",
                                          .k_norm = "key_layernorm"})});
    RouterSpec spec{.experts = builder.count({"num_experts", "num_local_experts"}, kMaxExperts),
                    .experts_per_token = top_k[n],
                    .renorm = Renorm::kSum};
    if (spec.experts_per_token > spec.experts)
      builder.refuse_config(
          fmt::format("has moe_topk = {}, more than its {} experts", spec.experts_per_token, spec.experts));
    MoeSpec experts = moe(builder, spec, prefix, names, plan.hidden, widths[n]);
    add_shared(builder, experts, prefix + "mlp.shared_mlp.", plan.hidden, widths[n], shared[n], "num_shared_expert");
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = std::move(experts)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
