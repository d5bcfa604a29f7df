// dots.llm1 (specs/families.md, section 1.24): DeepSeek-V3's router and shared experts behind grouped-query attention
// with per-head q and k norm; a window in the upper layers. Data only; called while a checkpoint opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_dots1(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-6f);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4});
  shape.qk_norm = QkNorm::kPerHead;
  // An explicit null means no window; an absent key is the class default.
  const bool no_window = builder.config().json().contains("sliding_window") && !builder.config().has("sliding_window");
  const int window = no_window ? 0 : builder.count_or("sliding_window", 4096, kMaxContext, 0);
  const auto first_windowed = static_cast<size_t>(builder.count_or("max_window_layers", 62, kMaxLayers, 0));
  const std::vector<std::string> types = layer_types(
      builder, plan, [&](size_t n) { return window > 0 && n >= first_windowed ? kSlidingAttention : kFullAttention; });

  const RouterSpec spec = grouped_sigmoid_router(builder, {"n_routed_experts", "num_experts", "num_local_experts"},
                                                 plan.layers.size(), {.norm_topk_prob = false});
  MoeNames names = kSeparateExperts;
  names.experts_key = "n_routed_experts";
  names.select_bias = "gate.e_score_correction_bias";
  const DenseThenExperts ffn{
      .router = spec,
      .names = names,
      .width = builder.count({"moe_intermediate_size"}, kMaxHidden),
      .shared = builder.count_or("n_shared_experts", 0, kMaxExperts, 0),
      .shared_key = "n_shared_experts",
      .dense_layers = static_cast<size_t>(builder.count_or("first_k_dense_replace", 0, kMaxLayers, 0))};
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    AttentionSpec attention =
        gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .o_bias = bias, .eps = eps});
    if (types[n] == kSlidingAttention) attention.sliding_window = window;
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps), .op = std::move(attention)});
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = dense_or_experts(builder, ffn, n, prefix, plan.hidden)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
