// gpt-oss (specs/families.md, section 1.7): attention with sinks, a window in every second layer; top-k of the logits,
// softmax over the chosen; clamped experts with biases, stored input first and interleaved, or as MXFP4 blocks.
// Data only; called while a checkpoint opens.
#include <limits>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr std::string_view kWhy = "num_local_experts, intermediate_size";

// The rows of an expert's gate and up projection take turns.
std::vector<FfnWeights> interleaved_rows(PlanBuilder& builder, const std::string& module, int experts, int hidden,
                                         int width) {
  const TensorRef gate_up = builder.packed(module + "gate_up_proj", experts, 2 * int64_t{width}, hidden, kWhy);
  const TensorRef down = builder.packed(module + "down_proj", experts, hidden, width, kWhy);
  std::vector<FfnWeights> all;
  const int64_t matrix = int64_t{width} * hidden;
  for (int e = 0; e < experts && !builder.failed(); ++e)
    all.push_back({.gate = PlanBuilder::strided(gate_up, 2 * e * matrix, width, hidden, 2 * int64_t{hidden}, 1),
                   .up = PlanBuilder::strided(gate_up, 2 * e * matrix + hidden, width, hidden, 2 * int64_t{hidden}, 1),
                   .down = PlanBuilder::part(down, e * matrix, hidden, width)});
  return all;
}

MoeSpec gpt_oss_moe(PlanBuilder& builder, const RouterSpec& spec, const FfnShape& shape, const std::string& module,
                    int hidden) {
  MoeSpec moe{{.router = spec}, shape};
  moe.router_weight = builder.matrix(module + "router.weight", spec.experts, hidden, "num_local_experts");
  moe.router_bias = builder.vector(module + "router.bias", spec.experts, "num_local_experts");
  const std::string experts = module + "experts.";
  moe.experts = builder.has(experts + "gate_up_proj_blocks")
                    ? interleaved_rows(builder, experts, spec.experts, hidden, shape.width)
                    : transposed_experts(builder, experts + "gate_up_proj", experts + "down_proj", spec.experts, hidden,
                                         shape.width, kWhy, true);
  const int64_t width = shape.width;
  const TensorRef gate_up_bias = builder.matrix(experts + "gate_up_proj_bias", spec.experts, 2 * width, kWhy);
  const TensorRef down_bias = builder.matrix(experts + "down_proj_bias", spec.experts, hidden, kWhy);
  for (size_t e = 0; e < moe.experts.size() && !builder.failed(); ++e) {
    const auto expert = static_cast<int64_t>(e);
    moe.experts[e].gate_bias = PlanBuilder::strided(gate_up_bias, 2 * expert * width, 1, width, 2 * width, 2);
    moe.experts[e].up_bias = PlanBuilder::strided(gate_up_bias, 2 * expert * width + 1, 1, width, 2 * width, 2);
    moe.experts[e].down_bias = PlanBuilder::part(down_bias, expert * hidden, 1, hidden);
  }
  return moe;
}

}  // namespace

ModelPlan plan_gpt_oss(PlanBuilder& builder) {
  static const Json kDefaultRope{{"rope_type", "yarn"}, {"factor", 32.0},
                                 {"beta_fast", 32.0},   {"beta_slow", 1.0},
                                 {"truncate", false},   {"original_max_position_embeddings", 4096}};
  ModelPlan plan = llama_frame(builder, 1e-5f);
  plan.final_norm.kind = NormKind::kRmsFp32Weight;
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", true);
  const AttentionSpec shape = gqa_shape(builder, plan, {.theta = 150000, .head_dim = 64, .rope = &kDefaultRope});
  const int window = builder.count_or("sliding_window", 128, kMaxContext);
  const auto types =
      layer_types(builder, plan, [](size_t n) { return n % 2 == 0 ? kSlidingAttention : kFullAttention; });

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.score = ScoreFn::kSoftmaxTopK;
  spec.has_logit_bias = true;
  const FfnShape expert{.kind = FfnKind::kGluOss,
                        .width = builder.count({"intermediate_size"}, kMaxHidden),
                        .limit = builder.number_or("swiglu_limit", 7.0f, std::numeric_limits<float>::min()),
                        .alpha = builder.number_or("swiglu_alpha", 1.702f, 0)};
  const auto norm = [&](const std::string& name) {
    NormSpec norm = rms_norm(builder, name, plan.hidden, eps);
    norm.kind = NormKind::kRmsFp32Weight;
    return norm;
  };
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n);
    AttentionSpec attention =
        gqa(builder, shape, prefix + "self_attn.", plan.hidden, {.qkv_bias = bias, .o_bias = bias});
    attention.sinks = builder.vector(prefix + "self_attn.sinks", shape.heads, "num_attention_heads");
    attention.sliding_window = layer_is(builder, types[n], kSlidingAttention, kFullAttention) ? window : 0;
    layer.sublayers.push_back({.norm = norm(prefix + "input_layernorm"), .op = std::move(attention)});
    layer.sublayers.push_back({.norm = norm(prefix + "post_attention_layernorm"),
                               .op = gpt_oss_moe(builder, spec, expert, prefix + "mlp.", plan.hidden)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
