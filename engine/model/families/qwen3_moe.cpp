// Qwen3-MoE (specs/families.md, section 1.4): per-head q and k norm before rope; softmax over all experts, then
// top-k, renormalised iff norm_topk_prob; some layers may be dense. Data only; called while a checkpoint opens.
#include <algorithm>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;
constexpr double kDefaultTheta = 1e4;
constexpr MoeNames kNames{.module = "mlp",
                          .gate = "gate_proj",
                          .up = "up_proj",
                          .down = "down_proj",
                          .experts_key = "num_experts",
                          .width_key = "moe_intermediate_size"};

}  // namespace

ModelPlan plan_qwen3_moe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = kDefaultTheta});
  shape.qk_norm = QkNorm::kPerHead;
  // Without the flag the window is not in force, whatever sliding_window says.
  if (builder.flag_or("use_sliding_window", false))
    shape.sliding_window = builder.count_or("sliding_window", 4096, kMaxContext);

  // The hub writes num_experts, transformers 5 num_local_experts.
  RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  spec.renorm = builder.flag_or("norm_topk_prob", false) ? Renorm::kSum : Renorm::kNone;
  const int expert_width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int sparse_step = builder.count_or("decoder_sparse_step", 1, kMaxLayers);
  const std::vector<int> dense_layers = builder.list_or_empty("mlp_only_layers", kMaxLayers);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden,
                                         {.qkv_bias = bias, .o_bias = bias, .eps = eps})});
    const NormSpec ffn_norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    const bool listed_dense = std::count(dense_layers.begin(), dense_layers.end(), static_cast<int>(n)) > 0;
    if (!listed_dense && (n + 1) % sparse_step == 0)
      layer.sublayers.push_back(
          {.norm = ffn_norm, .op = moe(builder, spec, prefix, kNames, plan.hidden, expert_width)});
    else
      layer.sublayers.push_back({.norm = ffn_norm,
                                 .op = glu(builder, prefix + "mlp.", plan.hidden,
                                           builder.count({"intermediate_size"}, kMaxHidden), "intermediate_size")});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
