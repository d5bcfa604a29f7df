// ERNIE 4.5 MoE (specs/families.md, section 1.17): interleaved rope; softmax over all experts, a selection bias, weights
// divided by at least moe_norm_min; shared experts; dense layers outside a range. Data only; called while a checkpoint
// opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_ernie4_5_moe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-5f);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("use_bias", false);
  plan.lm_head_bias = builder.vector_if(bias, "lm_head.bias", plan.vocab);
  const AttentionSpec shape = gqa_shape(builder, plan, {.theta = 5e5, .kind = RopeKind::kInterleaved});

  RouterSpec spec =
      router(builder, {"moe_num_experts", "num_experts"}, plan.layers.size(), {"moe_k", "num_experts_per_tok"});
  spec.has_select_bias = true;
  spec.renorm = Renorm::kMaxSum;
  spec.renorm_floor = builder.number_or("moe_norm_min", 1e-12f, 0);
  MoeNames names = kSeparateExperts;
  names.experts_key = "moe_num_experts";
  names.select_bias = "moe_statics.e_score_correction_bias|gate.moe_statics.e_score_correction_bias";
  names.select_bias_is_row = true;
  const int width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int shared = builder.count_or("moe_num_shared_experts", 2, kMaxExperts, 0);
  const int first = builder.count_or("moe_layer_start_index", 1, kMaxLayers, 0);
  const int last = builder.count_or("moe_layer_end_index", -1, kMaxLayers, -1);
  const int interval = builder.count_or("moe_layer_interval", 1, kMaxLayers);
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
         .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .o_bias = bias})});
    const NormSpec ffn_norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    const auto layer_index = static_cast<int>(n);
    const bool sparse =
        (layer_index + 1) % interval == 0 && layer_index >= first && (last < 0 || layer_index <= last);
    if (!sparse) {
      layer.sublayers.push_back(
          {.norm = ffn_norm,
           .op = glu(builder, prefix + "mlp.", plan.hidden, builder.count({"intermediate_size"}, kMaxHidden),
                     "intermediate_size", bias)});
      continue;
    }
    MoeSpec experts = moe(builder, spec, prefix, names, plan.hidden, width);
    add_shared(builder, experts, prefix + "mlp.shared_experts.", plan.hidden, width, shared, "moe_num_shared_experts",
               bias);
    layer.sublayers.push_back({.norm = ffn_norm, .op = std::move(experts)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
