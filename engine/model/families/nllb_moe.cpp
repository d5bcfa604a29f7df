// NLLB-MoE (specs/families.md, section 1.13): a pre-norm encoder-decoder with sinusoidal positions and biases
// everywhere; softmax, the two best experts, capacity as a share of the tokens, experts' sum damped by the token
// dropout. Data only; called while a checkpoint opens.
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "engine/model/families/families.h"
#include "engine/model/families/seq2seq.h"

namespace switchyard {
namespace {

constexpr float kEps = 1e-5f;

double real_or(PlanBuilder& builder, std::string_view key, double fallback, double min, double max) {
  const auto member = builder.config().find(key);
  return member ? builder.take(member->as_number(min, max), fallback) : fallback;
}

NormSpec layer_norm(PlanBuilder& builder, const std::string& name, int hidden) {
  return {.kind = NormKind::kLayerNorm,
          .weight = builder.vector(name + ".weight", hidden),
          .bias = builder.vector(name + ".bias", hidden),
          .eps = kEps};
}

// One of the two stacks.
struct Side {
  std::string name;  // "encoder"
  int layers = 0, heads = 0, width = 0;
  int step = 0;  // layer i is sparse iff (i + 1) % step == 0; 0: none
  bool decoder = false;
};

Side read_side(PlanBuilder& builder, int hidden, bool decoder) {
  Side side{.name = decoder ? "decoder" : "encoder", .decoder = decoder};
  side.layers = builder.count({side.name + "_layers"}, kMaxLayers);
  side.heads = builder.count({side.name + "_attention_heads"}, kMaxHidden);
  side.width = builder.count({side.name + "_ffn_dim"}, kMaxHidden);
  side.step = builder.count_or(side.name + "_sparse_step", 4, kMaxLayers, 0);
  if (hidden % side.heads != 0)
    builder.refuse_config(
        fmt::format("has d_model = {}, not a multiple of {}_attention_heads = {}", hidden, side.name, side.heads));
  return side;
}

RouterSpec read_router(PlanBuilder& builder) {
  RouterSpec router;
  router.experts = builder.count({"num_experts"}, kMaxExperts);
  if (router.experts < 2) builder.refuse_config("has num_experts = 1, needs at least the 2 that a token chooses");
  router.experts_per_token = 2;
  router.has_logit_bias = builder.flag_or("router_bias", false);
  builder.only("second_expert_policy", "all");  // the others draw experts at random
  router.renorm = Renorm::kMaxSum;  // the divisor is clamped
  router.renorm_floor = std::numeric_limits<float>::epsilon();
  router.renorm_before_capacity = builder.flag_or("normalize_router_prob_before_dropping", false);
  router.batch_prioritised = builder.flag_or("batch_prioritized_routing", false);
  router.capacity = Capacity::kFraction;
  const double fraction = real_or(builder, "moe_eval_capacity_token_fraction", 1.0, -1e6, 1e6);
  if (fraction > 0)
    router.capacity_value = fraction;
  else
    router.capacity_min = builder.count_or("expert_capacity", 64, kMaxContext);
  router.post_scale = static_cast<float>(1.0 - real_or(builder, "moe_token_dropout", 0.2, 0, 1));
  return router;
}

AttentionSpec attention(PlanBuilder& builder, const Side& side, int hidden, const std::string& prefix, bool cross) {
  AttentionSpec spec{.heads = side.heads, .kv_heads = side.heads, .head_dim = hidden / side.heads};
  spec.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec.head_dim)));
  const auto weight = [&](const char* name) { return builder.matrix(prefix + name + ".weight", hidden, hidden); };
  const auto bias = [&](const char* name) { return builder.vector(prefix + name + ".bias", hidden); };
  spec.q = weight("q_proj");
  spec.k = weight("k_proj");
  spec.v = weight("v_proj");
  spec.o = weight("out_proj");
  spec.q_bias = bias("q_proj");
  spec.k_bias = bias("k_proj");
  spec.v_bias = bias("v_proj");
  spec.o_bias = bias("out_proj");
  spec.causal = side.decoder && !cross;
  spec.cross = cross;
  return spec;
}

FfnWeights ffn(PlanBuilder& builder, const Side& side, int hidden, const std::string& prefix) {
  const std::string why = fmt::format("{}_ffn_dim = {}", side.name, side.width);
  return {.up = builder.matrix(prefix + "fc1.weight", side.width, hidden, why),
          .down = builder.matrix(prefix + "fc2.weight", hidden, side.width, why),
          .up_bias = builder.vector(prefix + "fc1.bias", side.width, why),
          .down_bias = builder.vector(prefix + "fc2.bias", hidden, why)};
}

SublayerOp feed_forward(PlanBuilder& builder, const Side& side, int hidden, const RouterSpec& router,
                        Activation activation, const std::string& prefix, bool sparse) {
  const FfnShape block{.kind = FfnKind::kMlp, .activation = activation, .width = side.width};
  if (!sparse) return FfnSpec{block, ffn(builder, side, hidden, prefix)};
  MoeSpec moe{{.router = router}, block};
  moe.router_weight = builder.matrix(prefix + "router.classifier.weight", router.experts, hidden,
                                     fmt::format("num_experts = {}", router.experts));
  moe.router_bias = builder.vector_if(router.has_logit_bias, prefix + "router.classifier.bias", router.experts);
  for (int e = 0; e < router.experts && !builder.failed(); ++e)
    moe.experts.push_back(ffn(builder, side, hidden, fmt::format("{}experts.expert_{}.", prefix, e)));
  return moe;
}

void add_layers(PlanBuilder& builder, const Side& side, const RouterSpec& router, Activation activation,
                ModelPlan& plan) {
  const int hidden = plan.hidden;
  for (int i = 0; i < side.layers && !builder.failed(); ++i) {
    const std::string prefix = fmt::format("model.{}.layers.{}.", side.name, i);
    LayerPlan& layer = plan.layers.emplace_back();
    layer.sublayers.push_back({.norm = layer_norm(builder, prefix + "self_attn_layer_norm", hidden),
                               .op = attention(builder, side, hidden, prefix + "self_attn.", false)});
    if (side.decoder)
      layer.sublayers.push_back({.norm = layer_norm(builder, prefix + "cross_attention_layer_norm", hidden),
                                 .op = attention(builder, side, hidden, prefix + "cross_attention.", true)});
    const bool sparse = side.step > 0 && (i + 1) % side.step == 0;
    layer.sublayers.push_back(
        {.norm = layer_norm(builder, prefix + "ff_layer_norm", hidden),
         .op = feed_forward(builder, side, hidden, router, activation, prefix + "ffn.", sparse)});
  }
}

}  // namespace

ModelPlan plan_nllb_moe(PlanBuilder& builder) {
  ModelPlan plan;
  plan.hidden = builder.count({"d_model"}, kMaxHidden);
  plan.vocab = builder.count({"vocab_size"}, kMaxVocab);
  // Each side has its own positions; the cache counts both.
  plan.context = 2 * builder.count_or("max_position_embeddings", 1024, kMaxContext / 2);
  read_seq2seq_ids(builder, plan, {.padding = 1, .eos = 2, .decoder_start = 2});
  seq2seq_embedding(builder, plan, {"model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens"});
  if (builder.flag_or("scale_embedding", true))
    plan.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(plan.hidden)));
  if (plan.hidden < 4) builder.refuse_config(fmt::format("has d_model = {}, needs at least 4", plan.hidden));
  plan.sinusoidal_positions = true;

  const Side encoder = read_side(builder, plan.hidden, false), decoder = read_side(builder, plan.hidden, true);
  const RouterSpec router = read_router(builder);
  const Activation activation = builder.activation("activation_function", builder.take(builder.config().text_or("activation_function", "relu"), std::string("relu")));
  check_expert_count(builder, encoder.layers + decoder.layers, router.experts);
  plan.encoder_layers = encoder.layers;
  add_layers(builder, encoder, router, activation, plan);
  add_layers(builder, decoder, router, activation, plan);
  plan.encoder_norm = layer_norm(builder, "model.encoder.layer_norm", plan.hidden);
  plan.final_norm = layer_norm(builder, "model.decoder.layer_norm", plan.hidden);
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
