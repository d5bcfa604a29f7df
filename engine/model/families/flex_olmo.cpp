// FlexOlmo (specs/families.md, section 1.25): OLMoE's experts in Olmo2's frame: norms after each block, the router sees
// the residual itself; q and k norm over the whole vectors. Data only; called while a checkpoint opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_flex_olmo(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-6f);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 5e5});
  shape.qk_norm = QkNorm::kFullVector;

  RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  spec.renorm = builder.flag_or("norm_topk_prob", false) ? Renorm::kSum : Renorm::kNone;
  MoeNames names = kSeparateExperts;
  names.width_key = "intermediate_size";
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  const auto olmo_norm = [&](const std::string& name) {
    NormSpec norm = rms_norm(builder, name, plan.hidden, eps);
    norm.kind = NormKind::kRmsFp32Weight;
    return norm;
  };
  plan.final_norm.kind = NormKind::kRmsFp32Weight;
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back({.op = gqa(builder, shape, prefix + "self_attn.", plan.hidden,
                                         {.qkv_bias = bias, .o_bias = bias, .eps = eps}),
                               .post_norm = olmo_norm(prefix + "post_attention_layernorm")});
    layer.sublayers.push_back({.op = moe(builder, spec, prefix, names, plan.hidden, width),
                               .post_norm = olmo_norm(prefix + "post_feedforward_layernorm")});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
