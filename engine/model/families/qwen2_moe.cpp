// Qwen2-MoE (specs/families.md, section 1.3): biased q, k, v; softmax over all experts, then top-k; one shared expert
// behind a sigmoid gate; some layers may be dense. Data only; called while a checkpoint opens.
#include <algorithm>
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_qwen2_moe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-6f);
  const float eps = plan.final_norm.eps;
  const bool qkv_bias = builder.flag_or("qkv_bias", true);
  const AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4});
  // Without the flag the window is not in force, whatever sliding_window says (transformers 5 then writes 0).
  const bool windowed = builder.flag_or("use_sliding_window", false);
  const int window = windowed ? builder.count_or("sliding_window", 4096, kMaxContext) : 0;
  const auto first_full = static_cast<size_t>(builder.count_or("max_window_layers", 28, kMaxLayers, 0));
  const std::vector<std::string> types = layer_types(builder, plan, [&](size_t n) {
    return windowed && (n + 1) % 2 == 1 && n < first_full ? kSlidingAttention : kFullAttention;
  });

  RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  spec.renorm = builder.flag_or("norm_topk_prob", false) ? Renorm::kSum : Renorm::kNone;
  const int expert_width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int shared_width = builder.count({"shared_expert_intermediate_size"}, kMaxHidden);
  const int sparse_step = builder.count_or("decoder_sparse_step", 1, kMaxLayers);
  const std::vector<int> dense_layers = builder.list_or_empty("mlp_only_layers", kMaxLayers);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    AttentionSpec attention =
        gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = qkv_bias, .eps = eps});
    if (types[n] == kSlidingAttention) attention.sliding_window = window;
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps), .op = std::move(attention)});
    const NormSpec ffn_norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    const bool listed_dense = std::count(dense_layers.begin(), dense_layers.end(), static_cast<int>(n)) > 0;
    if (listed_dense || (n + 1) % sparse_step != 0) {
      layer.sublayers.push_back({.norm = ffn_norm,
                                 .op = glu(builder, prefix + "mlp.", plan.hidden,
                                           builder.count({"intermediate_size"}, kMaxHidden), "intermediate_size")});
      continue;
    }
    MoeSpec experts = moe(builder, spec, prefix, kSeparateExperts, plan.hidden, expert_width);
    add_shared(builder, experts, prefix + "mlp.shared_expert.", plan.hidden, shared_width, 1,
               "shared_expert_intermediate_size");
    experts.shared_gate = builder.matrix(prefix + "mlp.shared_expert_gate.weight", 1, plan.hidden);
    layer.sublayers.push_back({.norm = ffn_norm, .op = std::move(experts)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
