// Phi-3.5-MoE (specs/families.md, section 1.8): layer norms with bias, biases in attention and head, longrope with a
// magnitude of its own for short and long sequences; two experts by sparsemixer. Data only; called while a checkpoint
// opens.
#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr MoeNames kNames{.module = "block_sparse_moe",
                          .gate = "w1",
                          .up = "w3",
                          .down = "w2",
                          .experts_key = "num_local_experts",
                          .width_key = "intermediate_size",
                          .router = "gate.weight|router.weight"};

// SlimMoE is another architecture under the same model_type.
void refuse_slim(PlanBuilder& builder) {
  const auto auto_map = builder.config().find("auto_map");
  if (auto_map && auto_map->json().dump().find("slimmoe") != std::string::npos)
    builder.refuse_config("is of SlimMoE (auto_map), whose code is not that of phimoe.",
                          "Open Phi-3.5-MoE or a model that transformers saved.");
}

// cos and sin are multiplied by short_mscale or long_mscale, in place of longrope's attention factor. The frequencies
// stay those of short_factor, as in transformers 5 (4 switched them too): see the family's note.
void magnitudes(PlanBuilder& builder, AttentionSpec& shape) {
  const auto parameters = builder.config().find("rope_parameters");
  const auto scaling = parameters ? parameters : builder.config().find("rope_scaling");
  if (builder.failed() || shape.rope.growth != RopeGrowth::kLongRope) return;
  shape.rope.attention_factor = static_cast<float>(builder.take(scaling->number("short_mscale"), 1.0));
  shape.rope.long_inv_freq = shape.rope.inv_freq;
  shape.rope.long_attention_factor = static_cast<float>(builder.take(scaling->number("long_mscale"), 1.0));
}

}  // namespace

ModelPlan plan_phimoe(PlanBuilder& builder) {
  refuse_slim(builder);
  ModelPlan plan = llama_frame(builder, 1e-5f);
  const float eps = plan.final_norm.eps;
  plan.final_norm = layer_norm(builder, "model.norm", plan.hidden, eps, true);
  plan.lm_head_bias = builder.vector_if(builder.flag_or("lm_head_bias", false), "lm_head.bias", plan.vocab);
  const bool bias = builder.flag_or("attention_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e6});
  magnitudes(builder, shape);
  if (builder.config().has("sliding_window")) shape.sliding_window = builder.count({"sliding_window"}, kMaxContext);

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.score = ScoreFn::kSparseMixer;
  spec.experts_per_token = 2;  // whatever num_experts_per_tok says
  spec.jitter = builder.number_or("router_jitter_noise", 0.01f, 0);
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    layer.sublayers.push_back(
        {.norm = layer_norm(builder, prefix + "input_layernorm", plan.hidden, eps, true),
         .op = gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .o_bias = bias})});
    layer.sublayers.push_back({.norm = layer_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps, true),
                               .op = moe(builder, spec, prefix, kNames, plan.hidden, width)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
