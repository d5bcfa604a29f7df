// Mixtral (specs/families.md, section 1.1): plain grouped-query attention, a sliding window in all layers if one
// is set; softmax over all experts, then top-k, renormalised. Data only; called while a checkpoint opens.
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-5f;
constexpr double kDefaultTheta = 1e6;
constexpr MoeNames kNames{.module = "block_sparse_moe",
                          .gate = "w1",
                          .up = "w3",
                          .down = "w2",
                          .experts_key = "num_local_experts",
                          .width_key = "intermediate_size"};

}  // namespace

ModelPlan plan_mixtral(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const float eps = plan.final_norm.eps;
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = kDefaultTheta});
  if (builder.config().has("sliding_window")) shape.sliding_window = builder.count({"sliding_window"}, kMaxContext);

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.renorm = Renorm::kSum;
  const int expert_width = builder.count({"intermediate_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {})});
    const NormSpec ffn_norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    layer.sublayers.push_back({.norm = ffn_norm, .op = moe(builder, spec, prefix, kNames, plan.hidden, expert_width)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
