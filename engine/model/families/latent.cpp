// Multi-head latent attention.
#include "engine/model/families/latent.h"

#include <cmath>

#include <fmt/format.h>

#include "engine/model/families/blocks.h"
#include "engine/model/rope.h"

namespace switchyard {
namespace {

constexpr float kLatentEps = 1e-6f;  // of q_a and kv_a norms, whatever rms_norm_eps says

// A group limit that transformers could execute: whole groups, and enough experts left to choose from.
void check_groups(PlanBuilder& builder, const RouterSpec& spec) {
  const int width = spec.groups > 0 ? spec.experts / spec.groups : 0;
  const bool pairs = spec.groups > 1 && spec.group_score == GroupScore::kTop2Sum;
  if (spec.groups * width != spec.experts || spec.groups_kept > spec.groups || (pairs && width < 2) ||
      (spec.group_fill == GroupFill::kMinusInfinity && spec.experts_per_token > spec.groups_kept * width))
    builder.refuse_config(
        fmt::format("keeps topk_group = {} of n_group = {} groups for num_experts_per_tok = {} of {} experts, which "
                    "cannot be done",
                    spec.groups_kept, spec.groups, spec.experts_per_token, spec.experts));
}

}  // namespace

LatentShape latent_shape(PlanBuilder& builder, ModelPlan& plan, RopeKind kind, double default_theta) {
  LatentShape shape;
  LatentAttentionSpec& a = shape.attention;
  a.heads = builder.count({"num_attention_heads"}, kMaxHidden);
  if (const int kv_heads = builder.count_or("num_key_value_heads", a.heads, kMaxHidden); kv_heads != a.heads)
    builder.refuse_config(fmt::format("has num_key_value_heads = {}, latent attention needs num_attention_heads = {}",
                                      kv_heads, a.heads));
  a.nope_dim = builder.count({"qk_nope_head_dim"}, kMaxHidden);
  a.rope_dim = builder.count({"qk_rope_head_dim"}, kMaxHidden);
  a.value_dim = builder.count({"v_head_dim"}, kMaxHidden);
  a.kv_rank = builder.count({"kv_lora_rank"}, kMaxHidden);
  if (builder.config().has("q_lora_rank")) shape.q_rank = builder.count({"q_lora_rank"}, kMaxHidden);
  shape.bias = builder.flag_or("attention_bias", false);

  const Rope rope =
      builder.take(read_rope(builder.config(), kind, a.rope_dim, plan.context, {.theta = default_theta}), Rope{});
  if (!builder.failed() && rope.spec.dims != a.rope_dim)
    builder.refuse_config(fmt::format("rotates {} of qk_rope_head_dim = {} dimensions, which this family does not do",
                                      rope.spec.dims, a.rope_dim));
  a.rope = rope.spec;
  plan.context = rope.context;
  a.scale = static_cast<float>(1.0 / std::sqrt(double{1} * a.nope_dim + a.rope_dim)) * rope.score_scale;
  return shape;
}

LatentAttentionSpec latent_attention(PlanBuilder& builder, const LatentShape& shape, const std::string& prefix,
                                     int hidden) {
  LatentAttentionSpec a = shape.attention;
  const int64_t q_size = int64_t{a.heads} * (int64_t{a.nope_dim} + a.rope_dim);
  const std::string q_why = fmt::format("num_attention_heads = {}, qk_nope_head_dim = {}, qk_rope_head_dim = {}",
                                        a.heads, a.nope_dim, a.rope_dim);
  const std::string kv_why = fmt::format("kv_lora_rank = {}, qk_rope_head_dim = {}", a.kv_rank, a.rope_dim);
  if (shape.q_rank > 0) {
    const std::string rank_why = fmt::format("q_lora_rank = {}", shape.q_rank);
    a.q_a = builder.matrix(prefix + "q_a_proj.weight", shape.q_rank, hidden, rank_why);
    a.q_a_bias = builder.vector_if(shape.bias, prefix + "q_a_proj.bias", shape.q_rank);
    a.q_a_norm = rms_norm(builder, prefix + "q_a_layernorm", shape.q_rank, kLatentEps);
    a.q = builder.matrix(prefix + "q_b_proj.weight", q_size, shape.q_rank, q_why + ", " + rank_why);
  } else {
    a.q = builder.matrix(prefix + "q_proj.weight", q_size, hidden, q_why);
  }
  const int64_t kv_size = int64_t{a.kv_rank} + a.rope_dim;
  a.kv_a = builder.matrix(prefix + "kv_a_proj_with_mqa.weight", kv_size, hidden, kv_why);
  a.kv_a_bias = builder.vector_if(shape.bias, prefix + "kv_a_proj_with_mqa.bias", kv_size);
  a.kv_a_norm = rms_norm(builder, prefix + "kv_a_layernorm", a.kv_rank, kLatentEps);
  a.kv_b = builder.matrix(prefix + "kv_b_proj.weight", int64_t{a.heads} * (int64_t{a.nope_dim} + a.value_dim),
                          a.kv_rank, fmt::format("{}, v_head_dim = {}", q_why, a.value_dim));
  const std::string o_why = fmt::format("num_attention_heads = {}, v_head_dim = {}", a.heads, a.value_dim);
  a.o = builder.matrix(prefix + "o_proj.weight", hidden, int64_t{a.heads} * a.value_dim, o_why);
  a.o_bias = builder.vector_if(shape.bias, prefix + "o_proj.bias", hidden);
  return a;
}

void deepseek_layers(PlanBuilder& builder, ModelPlan& plan, const LatentShape& shape, const RouterSpec& spec,
                     int default_first_dense, int default_shared) {
  check_groups(builder, spec);
  MoeNames names = kSeparateExperts;
  names.experts_key = "n_routed_experts";
  names.select_bias = "gate.e_score_correction_bias";
  const float eps = plan.final_norm.eps;
  const int first_moe = builder.count_or("first_k_dense_replace", default_first_dense, kMaxLayers, 0);
  const int frequency = builder.count_or("moe_layer_freq", 1, kMaxLayers);
  const int dense_width = builder.count({"intermediate_size"}, kMaxHidden);
  const int width = builder.count({"moe_intermediate_size"}, kMaxHidden);
  const int shared = builder.count_or("n_shared_experts", default_shared, kMaxExperts, 0);
  if (int64_t{width} * shared > kMaxHidden)
    builder.refuse_config(
        fmt::format("has n_shared_experts = {} of moe_intermediate_size = {}, the limit is a width of {}", shared,
                    width, kMaxHidden));

  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = layer_prefix(n), mlp = prefix + "mlp.";
    layer.sublayers.push_back({.norm = rms_norm(builder, prefix + "input_layernorm", plan.hidden, eps),
                               .op = latent_attention(builder, shape, prefix + "self_attn.", plan.hidden)});
    const NormSpec norm = rms_norm(builder, prefix + "post_attention_layernorm", plan.hidden, eps);
    // Transformers does not read moe_layer_freq and writes an MoE where DeepSeek's own code has a dense layer.
    const auto index = static_cast<int>(n);
    if (index < first_moe || (index % frequency != 0 && !builder.has(mlp + "gate.weight"))) {
      layer.sublayers.push_back({.norm = norm, .op = glu(builder, mlp, plan.hidden, dense_width, "intermediate_size")});
      continue;
    }
    MoeSpec block = moe(builder, spec, prefix, names, plan.hidden, width);
    add_shared(builder, block, mlp + "shared_experts.", plan.hidden, width, shared,
               "moe_intermediate_size * n_shared_experts");
    layer.sublayers.push_back({.norm = norm, .op = std::move(block)});
  }
  number_rows(plan);
}

}  // namespace switchyard
