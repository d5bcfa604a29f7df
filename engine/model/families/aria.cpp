// Aria's language model (specs/families.md, section 1.28): top-k of the logits, softmax over the chosen; experts stored
// input first; shared experts in one block. Also inside the multimodal wrapper, whose vision part is not read.
// Data only; called while a checkpoint opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
ModelPlan plan_aria_text(PlanBuilder& builder) {
  const bool wrapped = builder.has("language_model.model.embed_tokens.weight");
  const FrameNames frame{.model = wrapped ? "language_model.model." : "model.",
                         .head = wrapped ? "language_model.lm_head" : "lm_head"};
  ModelPlan plan = llama_frame(builder, 1e-6f, frame);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false), mlp_bias = builder.flag_or("mlp_bias", false);
  const AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4});

  RouterSpec spec =
      router(builder, {"moe_num_experts", "num_experts"}, plan.layers.size(), {"moe_topk", "num_experts_per_tok"});
  spec.score = ScoreFn::kSoftmaxTopK;
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  const int shared = builder.count_or("moe_num_shared_experts", 2, kMaxExperts, 0);
  constexpr std::string_view kWhy = "moe_num_experts, intermediate_size";
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n, frame.model), module = prefix + "mlp.";
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
         .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .o_bias = bias})});
    const bool renamed = builder.has(module + "experts.gate_up_proj");  // as transformers 5 holds them in memory
    MoeSpec experts{{.router = spec}, {.activation = builder.activation(), .width = width}};
    experts.router_weight = builder.matrix(module + "router.weight", spec.experts, plan.hidden, "moe_num_experts");
    experts.experts =
        transposed_experts(builder, module + (renamed ? "experts.gate_up_proj" : "experts.fc1.weight"),
                           module + (renamed ? "experts.down_proj" : "experts.fc2.weight"), spec.experts, plan.hidden,
                           width, kWhy);
    add_shared(builder, experts, module + "shared_experts.", plan.hidden, width, shared, "moe_num_shared_experts",
               mlp_bias);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = std::move(experts)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
