// OLMoE (specs/families.md, section 1.2): q and k norm over the whole projected vector, then optional clipping;
// softmax over all experts, then top-k, renormalised iff norm_topk_prob. Data only; called while a checkpoint opens.
#include <limits>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-5f;
constexpr double kDefaultTheta = 1e4;
constexpr MoeNames kNames{.module = "mlp",
                          .gate = "gate_proj",
                          .up = "up_proj",
                          .down = "down_proj",
                          .experts_key = "num_experts",
                          .width_key = "intermediate_size"};

}  // namespace

ModelPlan plan_olmoe(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = kDefaultTheta});
  shape.qk_norm = QkNorm::kFullVector;
  if (builder.config().has("clip_qkv"))
    shape.clip_qkv = builder.number_or("clip_qkv", 0, std::numeric_limits<float>::min());

  RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  spec.renorm = builder.flag_or("norm_topk_prob", false) ? Renorm::kSum : Renorm::kNone;
  const int expert_width = builder.count({"intermediate_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden,
                                         {.qkv_bias = bias, .o_bias = bias, .eps = eps})});
    const NormSpec ffn_norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    layer.sublayers.push_back({.norm = ffn_norm, .op = moe(builder, spec, prefix, kNames, plan.hidden, expert_width)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
