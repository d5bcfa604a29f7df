// GLM-4.5 MoE (specs/families.md, section 1.16): DeepSeek-V3's router and shared experts behind grouped-query
// attention with partial rope. Data only; called while a checkpoint opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_glm4_moe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-5f);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4, .partial = true, .partial_factor = 0.5});
  if (builder.flag_or("use_qk_norm", false)) shape.qk_norm = QkNorm::kPerHead;

  const RouterSpec spec = grouped_sigmoid_router(builder, {"n_routed_experts", "num_experts", "num_local_experts"},
                                                 plan.layers.size(), {});
  MoeNames names = kSeparateExperts;
  names.experts_key = "n_routed_experts";
  names.select_bias = "gate.e_score_correction_bias";
  const int width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int shared = builder.count_or("n_shared_experts", 1, kMaxExperts, 0);
  const auto dense = static_cast<size_t>(builder.count_or("first_k_dense_replace", 1, kMaxLayers, 0));
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
         .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .eps = eps})});
    const NormSpec ffn_norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    if (n < dense) {
      layer.sublayers.push_back({.norm = ffn_norm,
                                 .op = glu(builder, prefix + "mlp.", plan.hidden,
                                           builder.count({"intermediate_size"}, kMaxHidden), "intermediate_size")});
      continue;
    }
    MoeSpec experts = moe(builder, spec, prefix, names, plan.hidden, width);
    add_shared(builder, experts, prefix + "mlp.shared_experts.", plan.hidden, width, shared, "n_shared_experts");
    layer.sublayers.push_back({.norm = ffn_norm, .op = std::move(experts)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
