// DBRX (specs/families.md, section 1.10): nested configs, layer norms without bias, q, k and v in one clipped matrix,
// experts in flat matrices; softmax over all experts, then top-k, divided by their p-norm. Data only; called while a
// checkpoint opens.
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"
#include "engine/model/rope.h"

namespace switchyard {
namespace {

constexpr float kEps = 1e-5f;  // torch.nn.LayerNorm's

int count(PlanBuilder& builder, const JsonView& config, std::string_view key, int fallback, int max) {
  return static_cast<int>(builder.take(config.integer_or(key, fallback, 1, max), int64_t{1}));
}

// rope_theta of attn_config counts, that of the config itself where there is none.
RopeSpec dbrx_rope(PlanBuilder& builder, const JsonView& attention, int head_dim, ModelPlan& plan) {
  const auto read = [&](const JsonView& config) {
    return builder.take(read_rope(config, RopeKind::kHalf, head_dim, plan.context, {.theta = 1e4}), Rope{});
  };
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const auto scaling = builder.config().find(key);
        scaling && scaling->json().value("rope_type", scaling->json().value("type", "default")) != "default")
      builder.refuse_config(fmt::format("has {} of another type than default, which dbrx does not do", key));
  return read(attention.has("rope_theta") ? attention : builder.config()).spec;
}

AttentionSpec dbrx_attention(PlanBuilder& builder, ModelPlan& plan, const JsonView& config) {
  AttentionSpec shape;
  shape.heads = builder.count_or("n_heads", 16, kMaxHidden);
  shape.kv_heads = count(builder, config, "kv_n_heads", 1, kMaxHidden);
  if (plan.hidden % shape.heads != 0 || shape.heads % shape.kv_heads != 0)
    builder.refuse_config(fmt::format("has d_model = {}, n_heads = {} and kv_n_heads = {}, which do not divide",
                                      plan.hidden, shape.heads, shape.kv_heads));
  shape.head_dim = plan.hidden / shape.heads;
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  if (const auto clip = config.find("clip_qkv"))
    shape.clip_qkv = static_cast<float>(
        builder.take(clip->as_number(std::numeric_limits<float>::min(), std::numeric_limits<float>::max()), 1.0));
  if (!builder.failed()) shape.rope = dbrx_rope(builder, config, shape.head_dim, plan);
  return shape;
}

RouterSpec dbrx_router(PlanBuilder& builder, const JsonView& config, size_t layers) {
  RouterSpec spec{.experts = count(builder, config, "moe_num_experts", 4, kMaxExperts),
                  .experts_per_token = count(builder, config, "moe_top_k", 1, kMaxExperts)};
  check_router(builder, spec, layers, "moe_top_k");
  // Absent: 1; null: not renormalised.
  const bool is_null =
      config.json().contains("moe_normalize_expert_weights") && config.json()["moe_normalize_expert_weights"].is_null();
  if (is_null) return spec;
  spec.renorm = Renorm::kPNorm;
  spec.renorm_floor = static_cast<float>(builder.take(config.number_or("moe_normalize_expert_weights", 1), 1.0));
  if (!(spec.renorm_floor > 0))
    builder.refuse_config(
        fmt::format("has moe_normalize_expert_weights = {}, needs a number above 0 or null", spec.renorm_floor));
  return spec;
}

// One tensor an expert and matrix: how a GGUF file is shown here, whose down matrices are not transposed.
constexpr MoeNames kSeparate{.module = "ffn",
                             .gate = "w1",
                             .up = "v1",
                             .down = "w2",
                             .experts_key = "moe_num_experts",
                             .width_key = "ffn_hidden_size",
                             .router = "router.layer.weight"};

MoeSpec dbrx_moe(PlanBuilder& builder, const RouterSpec& spec, const FfnShape& shape, const std::string& prefix,
                 int hidden) {
  const std::string module = prefix + "ffn.";
  if (builder.has(module + "experts.0.w1.weight")) {
    MoeSpec separate = moe(builder, spec, prefix, kSeparate, hidden, shape.width);
    separate.expert = shape;
    return separate;
  }
  MoeSpec moe{{.router = spec}, shape};
  moe.router_weight = builder.matrix(module + "router.layer.weight", spec.experts, hidden, "moe_num_experts");
  const int64_t width = shape.width, rows = int64_t{spec.experts} * width;
  const auto flat = [&](const char* name) {
    return builder.matrix(module + "experts.mlp." + name, rows, hidden, "moe_num_experts, ffn_hidden_size");
  };
  const TensorRef w1 = flat("w1"), v1 = flat("v1"), w2 = flat("w2");
  for (int64_t e = 0; e < spec.experts && !builder.failed(); ++e) {
    const int64_t first = e * width * hidden;
    moe.experts.push_back({.gate = PlanBuilder::part(w1, first, width, hidden),
                           .up = PlanBuilder::part(v1, first, width, hidden),
                           .down = PlanBuilder::strided(w2, first, hidden, width, 1, hidden)});
  }
  return moe;
}

ModelPlan dbrx_frame(PlanBuilder& builder) {
  ModelPlan plan;
  plan.hidden = builder.count_or("d_model", 2048, kMaxHidden);
  plan.vocab = builder.count_or("vocab_size", 32000, kMaxVocab);
  plan.context = builder.count_or("max_seq_len", 2048, kMaxContext);
  plan.layers.resize(static_cast<size_t>(builder.count_or("n_layers", 24, kMaxLayers)));
  read_token_ids(builder, plan);
  if (builder.flag_or("tie_word_embeddings", false))
    builder.refuse_config("has tie_word_embeddings = true, which dbrx does not do");
  plan.embedding = builder.matrix("transformer.wte.weight", plan.vocab, plan.hidden, "vocab_size");
  plan.dtype = plan.embedding.dtype;
  plan.final_norm = layer_norm(builder, "transformer.norm_f", plan.hidden, kEps, false);
  plan.lm_head = builder.matrix("lm_head.weight", plan.vocab, plan.hidden, "vocab_size");
  return plan;
}

}  // namespace

ModelPlan plan_dbrx(PlanBuilder& builder) {
  static const Json kNone = Json::object();
  const auto part = [&](const char* key) {
    return builder.config().find(key).value_or(JsonView(kNone, builder.config().document(), std::string("/") + key));
  };
  const JsonView attention_config = part("attn_config"), ffn_config = part("ffn_config");
  ModelPlan plan = dbrx_frame(builder);
  const AttentionSpec shape = dbrx_attention(builder, plan, attention_config);
  const RouterSpec spec = dbrx_router(builder, ffn_config, plan.layers.size());
  const auto act = ffn_config.find("ffn_act_fn");
  const FfnShape expert{
      .activation = builder.activation(
          "ffn_act_fn", act ? builder.take(act->text_or("name", "silu"), std::string("silu")) : std::string("silu")),
      .width = count(builder, ffn_config, "ffn_hidden_size", 3584, kMaxHidden)};

  const int64_t q_rows = plan.hidden, kv_rows = int64_t{shape.kv_heads} * shape.head_dim, cols = plan.hidden;
  for (size_t n = 0; n < plan.layers.size() && !builder.failed(); ++n) {
    LayerPlan& layer = plan.layers[n];
    const std::string prefix = fmt::format("transformer.blocks.{}.", n), inner = prefix + "norm_attn_norm.";
    AttentionSpec attention = shape;
    const TensorRef qkv = builder.matrix(inner + "attn.Wqkv.weight", q_rows + 2 * kv_rows, cols, "n_heads, kv_n_heads");
    attention.q = PlanBuilder::part(qkv, 0, q_rows, cols);
    attention.k = PlanBuilder::part(qkv, q_rows * cols, kv_rows, cols);
    attention.v = PlanBuilder::part(qkv, (q_rows + kv_rows) * cols, kv_rows, cols);
    attention.o = builder.matrix(inner + "attn.out_proj.weight", cols, q_rows, "d_model");
    layer.sublayers.push_back(
        {.norm = layer_norm(builder, inner + "norm_1", plan.hidden, kEps, false), .op = std::move(attention)});
    layer.sublayers.push_back({.norm = layer_norm(builder, inner + "norm_2", plan.hidden, kEps, false),
                               .op = dbrx_moe(builder, spec, expert, prefix, plan.hidden)});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
