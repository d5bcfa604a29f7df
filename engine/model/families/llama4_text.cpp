// Llama 4's language model (specs/families.md, section 1.15): chunked layers with rope and an L2 norm after it, full
// layers without rope whose queries grow with the position; sigmoid of the top-k logits on the experts' input, one
// shared expert. Also inside the multimodal wrapper, whose vision part is not read. Data only; called while a
// checkpoint opens.
#include <algorithm>

#include <fmt/format.h>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr std::string_view kChunkedAttention = "chunked_attention";

// 1: the layer has rope; an absent or empty list: all but every fourth.
std::vector<int> rope_layers(PlanBuilder& builder, size_t layers) {
  std::vector<int> list = builder.list_or_empty("no_rope_layers", 1);
  const int interval = builder.count_or("no_rope_layer_interval", 4, kMaxLayers);
  if (list.empty())
    for (size_t n = 0; n < layers; ++n) list.push_back((n + 1) % static_cast<size_t>(interval) != 0);
  if (list.size() < layers)
    builder.refuse_config(fmt::format("has {} values of no_rope_layers for {} layers", list.size(), layers));
  list.resize(layers, 1);
  return list;
}

std::vector<int> moe_layers(PlanBuilder& builder, int layers) {
  if (builder.config().has("moe_layers")) return builder.list_or_empty("moe_layers", kMaxLayers);
  const int step = builder.count_or("interleave_moe_layer_step", 1, kMaxLayers);
  std::vector<int> list;
  for (int n = step - 1; n < layers; n += step) list.push_back(n);
  return list;
}

// One tensor an expert and matrix, as quantisers and GGUF files store it.
constexpr MoeNames kSeparate{.module = "feed_forward",
                             .gate = "gate_proj",
                             .up = "up_proj",
                             .down = "down_proj",
                             .experts_key = "num_local_experts",
                             .width_key = "intermediate_size",
                             .router = "router.weight"};

MoeSpec llama4_moe(PlanBuilder& builder, const RouterSpec& spec, const std::string& prefix, int hidden, int width) {
  const std::string module = prefix + "feed_forward.";
  if (builder.has(module + "experts.0.gate_proj.weight")) {
    MoeSpec separate = moe(builder, spec, prefix, kSeparate, hidden, width);
    separate.shared = glu(builder, module + "shared_expert.", hidden, width, "intermediate_size");
    return separate;
  }
  MoeSpec moe{{.router = spec}, {.activation = builder.activation(), .width = width}};
  moe.router_weight = builder.matrix(module + "router.weight", spec.experts, hidden, "num_local_experts");
  moe.experts = transposed_experts(builder, module + "experts.gate_up_proj", module + "experts.down_proj", spec.experts,
                                   hidden, width, "num_local_experts, intermediate_size");
  moe.shared = glu(builder, module + "shared_expert.", hidden, width, "intermediate_size");
  return moe;
}

}  // namespace

ModelPlan plan_llama4_text(PlanBuilder& builder) {
  const bool wrapped = builder.has("language_model.model.embed_tokens.weight");
  const FrameNames frame{.model = wrapped ? "language_model.model." : "model.",
                         .head = wrapped ? "language_model.lm_head" : "lm_head"};
  ModelPlan plan = llama_frame(builder, 1e-5f, frame);
  const float eps = plan.final_norm.eps;
  const bool bias = builder.flag_or("attention_bias", false);
  const AttentionSpec shape = gqa_shape(builder, plan, {.theta = 5e5, .kind = RopeKind::kInterleaved, .head_dim = 128});
  AttentionSpec with_rope = shape, without_rope = shape;
  if (builder.flag_or("use_qk_norm", true)) {
    with_rope.qk_norm = QkNorm::kL2PostRope;
    with_rope.q_norm = with_rope.k_norm = {.kind = NormKind::kRms, .eps = eps};
  }
  without_rope.rope = {};
  if (builder.flag_or("attn_temperature_tuning", true)) {
    without_rope.temperature_floor = static_cast<float>(builder.count_or("floor_scale", 8192, kMaxContext));
    without_rope.temperature_scale = builder.number_or("attn_scale", 0.1f, 0);
  }
  const int chunk = builder.count_or("attention_chunk_size", 8192, kMaxContext);
  const std::vector<int> has_rope = rope_layers(builder, plan.layers.size());
  const auto types =
      layer_types(builder, plan, [&](size_t n) { return has_rope[n] ? kChunkedAttention : kFullAttention; });

  RouterSpec spec = router(builder, {"num_local_experts", "num_experts"}, plan.layers.size());
  spec.score = ScoreFn::kSigmoidTopK;
  spec.apply = ApplyTo::kInput;
  const int width = builder.count({"intermediate_size"}, kMaxHidden);
  const std::vector<int> sparse = moe_layers(builder, static_cast<int>(plan.layers.size()));
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n, frame.model), module = prefix + "feed_forward.";
    AttentionSpec attention = has_rope[n] ? with_rope : without_rope;
    attention.chunk = layer_is(builder, types[n], kChunkedAttention, kFullAttention) ? chunk : 0;
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = gqa(builder, std::move(attention), prefix + "self_attn.", plan.hidden,
                                         {.qkv_bias = bias, .o_bias = bias})});
    const NormSpec norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    if (std::count(sparse.begin(), sparse.end(), static_cast<int>(n)) > 0)
      layer.sublayers.push_back({.norm = norm, .op = llama4_moe(builder, spec, prefix, plan.hidden, width)});
    else
      layer.sublayers.push_back(
          {.norm = norm,
           .op = glu(builder, module, plan.hidden, builder.count({"intermediate_size_mlp"}, kMaxHidden),
                     "intermediate_size_mlp")});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
