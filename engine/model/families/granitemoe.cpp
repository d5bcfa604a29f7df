// GraniteMoE and GraniteMoE shared (specs/families.md, section 1.9): multipliers on embedding, attention, residual
// and logits; top-k of the logits, softmax over the chosen; experts packed. Data only; called while a checkpoint opens.
#include <limits>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

MoeSpec granite_experts(PlanBuilder& builder, const RouterSpec& spec, const std::string& prefix, int hidden,
                        int width, int shared_width) {
  constexpr std::string_view kWhy = "num_local_experts, intermediate_size";
  const std::string module = prefix + "block_sparse_moe.";
  const bool unconverted = builder.has(module + "experts.gate_up_proj");  // as transformers holds them in memory
  MoeSpec moe{{.router = spec}, {.activation = builder.activation(), .width = width}};
  moe.router_weight = builder.matrix(module + (unconverted ? "router.weight" : "router.layer.weight"), spec.experts,
                                     hidden, "num_local_experts");
  moe.experts = unconverted ? packed_experts(builder, module + "experts.gate_up_proj", module + "experts.down_proj",
                                             spec.experts, hidden, width, kWhy)
                            : packed_experts(builder, module + "input_linear.weight", module + "output_linear.weight",
                                             spec.experts, hidden, width, kWhy);
  if (shared_width == 0) return moe;
  const TensorRef gate_up = builder.matrix(prefix + "shared_mlp.input_linear.weight", 2 * int64_t{shared_width},
                                           hidden, "shared_intermediate_size");
  const int64_t half = int64_t{shared_width} * hidden;
  moe.shared = FfnSpec{{.activation = moe.expert.activation, .width = shared_width},
                       {.gate = PlanBuilder::part(gate_up, 0, shared_width, hidden),
                        .up = PlanBuilder::part(gate_up, half, shared_width, hidden),
                        .down = builder.matrix(prefix + "shared_mlp.output_linear.weight", hidden, shared_width,
                                               "shared_intermediate_size")}};
  return moe;
}

ModelPlan plan_granite(PlanBuilder& builder, int shared_width) {
  ModelPlan plan = llama_frame(builder, 1e-6f);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4});
  shape.scale = builder.number_or("attention_multiplier", 1, 0);  // in place of head_dim^-0.5
  const float residual = builder.number_or("residual_multiplier", 1, 0);
  plan.embedding_scale = builder.number_or("embedding_multiplier", 1, 0);
  plan.logit_scale = 1 / builder.number_or("logits_scaling", 1, std::numeric_limits<float>::min());

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.score = ScoreFn::kSoftmaxTopK;
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back(
        {.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
         .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .o_bias = bias}),
         .scale = residual});
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = granite_experts(builder, spec, prefix, plan.hidden, width, shared_width),
                               .scale = residual});
  }
  number_rows(plan);
  return plan;
}

}  // namespace

ModelPlan plan_granitemoe(PlanBuilder& builder) {
  return plan_granite(builder, 0);
}

ModelPlan plan_granitemoeshared(PlanBuilder& builder) {
  return plan_granite(builder, builder.count_or("shared_intermediate_size", 0, kMaxHidden, 0));
}

}  // namespace switchyard
