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

  const RouterSpec spec =
      grouped_sigmoid_router(builder, {"n_routed_experts", "num_experts", "num_local_experts"}, plan.layers.size(), {});
  MoeNames names = kSeparateExperts;
  names.experts_key = "n_routed_experts";
  names.select_bias = "gate.e_score_correction_bias";
  const DenseThenExperts ffn{
      .router = spec,
      .names = names,
      .width = builder.count({"moe_intermediate_size"}, kMaxHidden),
      .shared = builder.count_or("n_shared_experts", 1, kMaxExperts, 0),
      .shared_key = "n_shared_experts",
      .dense_layers = static_cast<size_t>(builder.count_or("first_k_dense_replace", 1, kMaxLayers, 0))};
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
         .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .eps = eps})});
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = dense_or_experts(builder, ffn, n, prefix, plan.hidden)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
