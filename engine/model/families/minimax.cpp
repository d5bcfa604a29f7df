// MiniMax-Text-01 (specs/families.md, section 1.19): lightning attention with a full layer in between; the residual
// is the normed value, both parts with their factors; mixtral's router. Data only; called while a checkpoint opens.
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr std::string_view kLinearAttention = "linear_attention";
constexpr float kLightningEps = 1e-6f;  // whatever rms_norm_eps says
constexpr MoeNames kNames{.module = "block_sparse_moe",
                          .gate = "w1",
                          .up = "w3",
                          .down = "w2",
                          .experts_key = "num_local_experts",
                          .width_key = "intermediate_size"};

// Of all layers and heads, in float32 as transformers computes them.
std::vector<float> slopes(int heads, size_t layer, size_t layers) {
  const auto base = static_cast<float>(1.0 / std::pow(2.0, 8.0 / heads));
  const auto factor =
      static_cast<float>(1 - static_cast<double>(layer) / (static_cast<double>(layers) - 1 + 1e-5) + 1e-5);
  std::vector<float> all;
  for (int head = 0; head < heads; ++head) all.push_back(std::pow(base, static_cast<float>(head + 1)) * factor);
  return all;
}

LightningSpec lightning(PlanBuilder& builder, const AttentionSpec& shape, const std::string& prefix, int hidden) {
  LightningSpec spec{.heads = shape.heads, .head_dim = shape.head_dim, .activation = builder.activation()};
  const int64_t size = int64_t{shape.heads} * shape.head_dim;
  const std::string why = fmt::format("num_attention_heads = {}, head_dim = {}", shape.heads, shape.head_dim);
  spec.qkv = builder.matrix(prefix + "qkv_proj.weight", 3 * size, hidden, why);
  spec.gate = builder.matrix(prefix + "output_gate.weight", size, hidden, why);
  spec.o = builder.matrix(prefix + "out_proj.weight", hidden, size, why);
  spec.norm = rms_norm(builder, prefix + "norm", size, kLightningEps);
  return spec;
}

// Factors of the normed residual (alpha) and of the block's output (beta).
struct Factors {
  float alpha, beta;
};
Factors factors(PlanBuilder& builder, const std::string& block) {
  constexpr float kAny = std::numeric_limits<float>::lowest();
  return {builder.number_or(block + "_alpha_factor", 1, kAny), builder.number_or(block + "_beta_factor", 1, kAny)};
}
Sublayer sublayer(const NormSpec& norm, SublayerOp op, const Factors& by) {
  return {.norm = norm, .op = std::move(op), .scale = by.beta, .base_scale = by.alpha, .base_is_normed = true};
}

}  // namespace

ModelPlan plan_minimax(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-5f);
  const float eps = plan.final_norm.eps;
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e6});
  if (builder.config().has("sliding_window")) shape.sliding_window = builder.count({"sliding_window"}, kMaxContext);
  const std::vector<std::string> types =
      layer_types(builder, plan, [](size_t n) { return n % 2 == 0 ? kFullAttention : kLinearAttention; });
  const Factors full = factors(builder, "full_attn"), linear = factors(builder, "linear_attn"),
                mlp = factors(builder, "mlp");

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.renorm = Renorm::kSum;
  const int width = builder.count({"intermediate_size"}, kMaxHidden);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    const NormSpec norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps);
    if (types[n] == kLinearAttention) {
      LightningSpec mixer = lightning(builder, shape, prefix + "self_attn.", plan.hidden);
      mixer.slopes = slopes(shape.heads, n, plan.layers.size());
      layer.sublayers.push_back(sublayer(norm, std::move(mixer), linear));
    } else if (types[n] == kFullAttention) {
      layer.sublayers.push_back(sublayer(norm, gqa(builder, shape, prefix + "self_attn.", plan.hidden, {}), full));
    } else {
      builder.refuse_config(fmt::format("has layer_types[{}] = {}, supported are linear_attention and full_attention",
                                        n, quote(types[n])));
    }
    layer.sublayers.push_back(sublayer(rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps),
                                       moe(builder, spec, prefix, kNames, plan.hidden, width), mlp));
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
