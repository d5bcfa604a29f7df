// MiniMax-M2 (specs/families.md, section 1.20): q and k norm over the whole vectors, partial rope; sigmoid scores with a
// selection bias, renormalised. Data only; called while a checkpoint opens.
#include <fmt/format.h>
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_minimax_m2(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-6f);
  const float eps = plan.final_norm.eps;
  // Published files say rotary_dim, transformers 5 partial_rotary_factor.
  const int head_dim = builder.count_or("head_dim", 128, kMaxHidden);
  const int rotary_dim = builder.count_or("rotary_dim", head_dim, kMaxHidden);
  AttentionSpec shape = gqa_shape(
      builder, plan,
      {.theta = 5e6, .partial = true, .partial_factor = static_cast<double>(rotary_dim) / head_dim});
  shape.qk_norm = QkNorm::kFullVector;

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.score = ScoreFn::kSigmoid;
  spec.has_select_bias = true;
  spec.renorm = Renorm::kSum;
  const MoeNames names{.module = "block_sparse_moe",
                       .gate = "w1",
                       .up = "w3",
                       .down = "w2",
                       .experts_key = "num_local_experts",
                       .width_key = "intermediate_size",
                       .select_bias = "e_score_correction_bias"};
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.eps = eps})});
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = moe(builder, spec, prefix, names, plan.hidden, width)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
