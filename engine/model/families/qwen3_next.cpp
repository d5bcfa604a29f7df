// Qwen3-Next (specs/families.md, section 1.23): gated delta rule in most layers, output-gated attention in every
// fourth; norms of 1 + w; experts as qwen2_moe's. Data only; called while a checkpoint opens.
#include <algorithm>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"

namespace switchyard {
namespace {

constexpr std::string_view kLinearAttention = "linear_attention";

NormSpec norm(PlanBuilder& builder, const std::string& name, int64_t size, float eps) {
  NormSpec spec = rms_norm(builder, name, size, eps);
  spec.kind = NormKind::kRmsOnePlus;
  return spec;
}

DeltaNetSpec read_shape(PlanBuilder& builder) {
  DeltaNetSpec shape;
  shape.key_heads = builder.count_or("linear_num_key_heads", 16, kMaxHidden);
  shape.value_heads = builder.count_or("linear_num_value_heads", 32, kMaxHidden);
  shape.key_dim = builder.count_or("linear_key_head_dim", 128, kMaxHidden);
  shape.value_dim = builder.count_or("linear_value_head_dim", 128, kMaxHidden);
  shape.kernel = builder.count_or("linear_conv_kernel_dim", 4, kMaxHidden);
  if (shape.value_heads % shape.key_heads != 0)
    builder.refuse_config(fmt::format("has linear_num_value_heads = {}, not a multiple of linear_num_key_heads = {}",
                                      shape.value_heads, shape.key_heads));
  return shape;
}

DeltaNetSpec delta_net(PlanBuilder& builder, DeltaNetSpec d, const std::string& prefix, int hidden, float eps) {
  const int64_t keys = int64_t{d.key_heads} * d.key_dim, values = int64_t{d.value_heads} * d.value_dim;
  const std::string_view why =
      "linear_num_key_heads, linear_key_head_dim, linear_num_value_heads, linear_value_head_dim";
  d.qkvz = builder.matrix(prefix + "in_proj_qkvz.weight", 2 * keys + 2 * values, hidden, why);
  d.ba = builder.matrix(prefix + "in_proj_ba.weight", 2 * int64_t{d.value_heads}, hidden, "linear_num_value_heads");
  const TensorRef conv = builder.packed(prefix + "conv1d.weight", 2 * keys + values, 1, d.kernel, why);
  d.conv = PlanBuilder::part(conv, 0, 2 * keys + values, d.kernel);
  d.dt_bias = builder.vector(prefix + "dt_bias", d.value_heads);
  d.a_log = builder.vector(prefix + "A_log", d.value_heads);
  d.norm = rms_norm(builder, prefix + "norm", d.value_dim, eps);  // the plain weight, not 1 + w
  d.o = builder.matrix(prefix + "out_proj.weight", hidden, values, why);
  return d;
}

}  // namespace

ModelPlan plan_qwen3_next(PlanBuilder& builder) {
  ModelPlan plan = llama_frame(builder, 1e-6f);
  plan.final_norm.kind = NormKind::kRmsOnePlus;
  const float eps = plan.final_norm.eps;
  AttentionSpec shape = gqa_shape(builder, plan, {.theta = 1e4, .partial = true, .partial_factor = 0.25});
  shape.qk_norm = QkNorm::kPerHead;
  const bool bias = builder.flag_or("attention_bias", false);
  builder.only("hidden_act", "silu");  // it is the convolution's too
  const DeltaNetSpec linear = read_shape(builder);
  const auto interval = static_cast<size_t>(builder.count_or("full_attention_interval", 4, kMaxLayers));
  const std::vector<std::string> types =
      layer_types(builder, plan, [&](size_t n) { return (n + 1) % interval == 0 ? kFullAttention : kLinearAttention; });

  RouterSpec spec = router(builder, {"num_experts", "num_local_experts"}, plan.layers.size());
  spec.renorm = builder.flag_or("norm_topk_prob", true) ? Renorm::kSum : Renorm::kNone;
  const int width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int shared_width = builder.count({"shared_expert_intermediate_size"}, kMaxHidden);
  const int sparse_step = builder.count_or("decoder_sparse_step", 1, kMaxLayers);
  const std::vector<int> dense_layers = builder.list_or_empty("mlp_only_layers", kMaxLayers);

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n), mlp = prefix + "mlp.";
    Sublayer mixer{.norm = norm(builder, prefix + "input_layernorm", plan.hidden, eps)};
    if (types[n] == kLinearAttention) {
      mixer.op = delta_net(builder, linear, prefix + "linear_attn.", plan.hidden, eps);
    } else if (types[n] == kFullAttention) {
      AttentionSpec attention = gqa(builder, shape, prefix + "self_attn.", plan.hidden,
                                    {.qkv_bias = bias, .o_bias = bias, .eps = eps, .gated = true});
      attention.q_norm.kind = attention.k_norm.kind = NormKind::kRmsOnePlus;
      mixer.op = std::move(attention);
    } else {
      builder.refuse_config(fmt::format("has layer_types[{}] = {}, supported are linear_attention and full_attention",
                                        n, quote(types[n])));
    }
    layer.sublayers.push_back(std::move(mixer));

    Sublayer ffn{.norm = norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps)};
    const bool listed_dense = std::count(dense_layers.begin(), dense_layers.end(), static_cast<int>(n)) > 0;
    if (listed_dense || (n + 1) % sparse_step != 0) {
      ffn.op = glu(builder, mlp, plan.hidden, builder.count({"intermediate_size"}, kMaxHidden), "intermediate_size");
    } else {
      MoeSpec experts = moe(builder, spec, prefix, kSeparateExperts, plan.hidden, width);
      add_shared(builder, experts, mlp + "shared_expert.", plan.hidden, shared_width, 1,
                 "shared_expert_intermediate_size");
      experts.shared_gate = builder.matrix(mlp + "shared_expert_gate.weight", 1, plan.hidden);
      ffn.op = std::move(experts);
    }
    layer.sublayers.push_back(std::move(ffn));
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
