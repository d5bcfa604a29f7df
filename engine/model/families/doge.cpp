// Doge (specs/families.md, section 1.27): attention under a mask made of the values; a dense block and, added to it,
// rank-one experts found by product keys; residuals with a weight per channel. Routing depends on the tokens that run
// together. Data only; called while a checkpoint opens.
#include <cmath>

#include <fmt/format.h>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;

AttentionSpec attention(PlanBuilder& builder, const AttentionSpec& shape, const std::string& prefix, int hidden,
                        float eps, bool bias) {
  AttentionSpec a = gqa(builder, shape, prefix, hidden, {.qkv_bias = bias, .o_bias = bias, .eps = eps});
  a.mask_a = builder.vector(prefix + "A", a.kv_heads, "num_key_value_heads");
  a.mask_dt =
      builder.matrix(prefix + "dt_proj.weight", a.kv_heads, int64_t{a.kv_heads} * a.head_dim, "num_key_value_heads");
  a.mask_dt_bias = builder.vector_if(bias, prefix + "dt_proj.bias", a.kv_heads);
  return a;
}

}  // namespace

ModelPlan plan_doge(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, kDefaultEps);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false), mlp_bias = builder.flag_or("mlp_bias", false);
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4});
  shape.qk_norm = QkNorm::kPerHead;
  shape.mask_keep = builder.count_or("keep_window_size", 2048, kMaxContext);
  if (builder.config().has("sliding_window")) shape.sliding_window = builder.count({"sliding_window"}, kMaxContext);
  if (!builder.flag_or("is_moe", false)) {
    builder.refuse_config("describes a model without a layer of experts (is_moe = false).");
    return plan;
  }

  RouterSpec spec = router(builder, {"num_experts"}, plan.layers.size());
  const int stored = spec.experts, keys = static_cast<int>(std::sqrt(static_cast<double>(stored)));
  spec.experts = keys * keys;  // no pair of keys leads to the experts after these
  if (spec.experts_per_token > spec.experts)
    builder.refuse_config(
        fmt::format("has num_experts_per_tok = {}, more than the {} experts that two sets of {} keys reach",
                    spec.experts_per_token, spec.experts, keys));
  spec.score = ScoreFn::kSoftmaxTopK;
  spec.product_key = true;
  spec.renorm = builder.flag_or("norm_topk_prob", false) ? Renorm::kSum : Renorm::kNone;
  const int width = builder.count({"intermediate_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n), mlp = prefix + "mlp.";
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = attention(builder, shape, prefix + "self_attn.", plan.hidden, eps, bias),
                               .base_weight = builder.vector(prefix + "input_residual", plan.hidden)});
    MoeSpec experts{{.router = spec}, {.kind = FfnKind::kRankOne, .activation = builder.activation(), .width = 1}};
    experts.router_weight = builder.matrix(mlp + "router_gate.weight", 2 * int64_t{keys}, plan.hidden, "num_experts");
    const TensorRef down = builder.matrix(mlp + "down_embed.weight", stored, plan.hidden, "num_experts");
    const TensorRef up = builder.matrix(mlp + "up_embed.weight", stored, plan.hidden, "num_experts");
    for (int64_t e = 0; e < spec.experts && !builder.failed(); ++e)
      experts.experts.push_back({.gate = PlanBuilder::part(down, e * plan.hidden, 1, plan.hidden),
                                 .down = PlanBuilder::part(up, e * plan.hidden, 1, plan.hidden)});
    experts.shared = glu(builder, mlp, plan.hidden, width, "intermediate_size", mlp_bias);
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                               .op = std::move(experts),
                               .base_weight = builder.vector(prefix + "post_attention_residual", plan.hidden)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
