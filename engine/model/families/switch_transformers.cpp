// Switch Transformers (specs/families.md, section 1.12): a T5 encoder-decoder; unscaled attention with a bucketed
// position bias that the first block lends to all, softmax, the best expert alone, expert capacity per sequence.
// Data only; called while a checkpoint opens.
#include <cmath>

#include <fmt/format.h>

#include "engine/model/families/blocks.h"
#include "engine/model/families/families.h"
#include "engine/model/families/seq2seq.h"

namespace switchyard {
namespace {

constexpr float kDefaultEps = 1e-6f;

// What all layers share.
struct Shape {
  int inner = 0, hidden = 0, width = 0;
  float eps = kDefaultEps;
  AttentionSpec attention;
  RouterSpec router;
  Activation activation = Activation::kRelu;
};

// One of the two stacks.
struct Side {
  std::string name;  // "encoder"
  int layers = 0;
  int step = 0;  // layer i is sparse iff i % step == 1 or step == 1
  bool decoder = false;
};

Shape read_shape(PlanBuilder& builder, const ModelPlan& plan) {
  Shape shape{.hidden = plan.hidden, .width = builder.count({"d_ff"}, kMaxHidden)};
  shape.eps = builder.number_or("layer_norm_epsilon", kDefaultEps, 0);
  shape.activation = builder.activation("dense_act_fn", builder.take(builder.config().text_or("dense_act_fn", "relu"), std::string("relu")));
  AttentionSpec& attention = shape.attention;
  attention.heads = attention.kv_heads = builder.count({"num_heads"}, kMaxHidden);
  attention.head_dim = builder.count({"d_kv"}, kMaxHidden);
  attention.scale = 1;
  attention.position_buckets = builder.count_or("relative_attention_num_buckets", 32, 1 << 16, 4);
  attention.position_max_distance =
      builder.count_or("relative_attention_max_distance", 128, kMaxContext, attention.position_buckets / 2 + 1);
  shape.inner = attention.heads * attention.head_dim;
  RouterSpec& router = shape.router;
  router.experts = builder.count({"num_experts"}, kMaxExperts);
  router.experts_per_token = 1;
  router.has_logit_bias = builder.flag_or("router_bias", false);
  router.capacity = Capacity::kPerSequence;
  router.capacity_value = builder.count_or("expert_capacity", 64, kMaxContext);
  return shape;
}

Side read_side(PlanBuilder& builder, bool decoder) {
  Side side{.name = decoder ? "decoder" : "encoder", .decoder = decoder};
  const int encoder_layers = builder.count({"num_layers"}, kMaxLayers);
  side.layers = decoder ? builder.count_or("num_decoder_layers", encoder_layers, kMaxLayers) : encoder_layers;
  const int sparse =
      builder.count_or(decoder ? "num_sparse_decoder_layers" : "num_sparse_encoder_layers", 3, kMaxLayers, 0);
  side.step = sparse > 0 ? side.layers / sparse : side.layers;
  return side;
}

AttentionSpec attention(PlanBuilder& builder, const Shape& shape, const Side& side, const std::string& prefix,
                        bool cross) {
  AttentionSpec spec = shape.attention;
  const std::string why = fmt::format("num_heads = {}, d_kv = {}", spec.heads, spec.head_dim);
  spec.q = builder.matrix(prefix + "q.weight", shape.inner, shape.hidden, why);
  spec.k = builder.matrix(prefix + "k.weight", shape.inner, shape.hidden, why);
  spec.v = builder.matrix(prefix + "v.weight", shape.inner, shape.hidden, why);
  spec.o = builder.matrix(prefix + "o.weight", shape.hidden, shape.inner, why);
  spec.causal = side.decoder && !cross;
  spec.cross = cross;
  if (!cross)
    spec.position_bias =
        builder.matrix(side.name + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                       spec.position_buckets, spec.heads,
                       fmt::format("relative_attention_num_buckets = {}, num_heads = {}", spec.position_buckets, spec.heads));
  return spec;
}

FfnWeights ffn(PlanBuilder& builder, const Shape& shape, const std::string& prefix) {
  const std::string why = fmt::format("d_ff = {}", shape.width);
  return {.up = builder.matrix(prefix + "wi.weight", shape.width, shape.hidden, why),
          .down = builder.matrix(prefix + "wo.weight", shape.hidden, shape.width, why)};
}

SublayerOp feed_forward(PlanBuilder& builder, const Shape& shape, const std::string& prefix, bool sparse) {
  const FfnShape block{.kind = FfnKind::kMlp, .activation = shape.activation, .width = shape.width};
  if (!sparse) return FfnSpec{block, ffn(builder, shape, prefix)};
  MoeSpec moe{{.router = shape.router}, block};
  const int experts = shape.router.experts;
  moe.router_weight = builder.matrix(prefix + "router.classifier.weight", experts, shape.hidden,
                                     fmt::format("num_experts = {}", experts));
  moe.router_bias = builder.vector_if(shape.router.has_logit_bias, prefix + "router.classifier.bias", experts);
  for (int e = 0; e < experts && !builder.failed(); ++e)
    moe.experts.push_back(ffn(builder, shape, fmt::format("{}experts.expert_{}.", prefix, e)));
  return moe;
}

void add_layers(PlanBuilder& builder, const Shape& shape, const Side& side, ModelPlan& plan) {
  for (int i = 0; i < side.layers && !builder.failed(); ++i) {
    const std::string block = fmt::format("{}.block.{}.layer.", side.name, i);
    LayerPlan& layer = plan.layers.emplace_back();
    int n = 0;
    const auto add = [&](SublayerOp op) {
      layer.sublayers.push_back(
          {.norm = rms_norm(builder, fmt::format("{}{}.layer_norm", block, n), shape.hidden, shape.eps),
           .op = std::move(op)});
      ++n;
    };
    add(attention(builder, shape, side, block + "0.SelfAttention.", false));
    if (side.decoder) add(attention(builder, shape, side, block + "1.EncDecAttention.", true));
    const bool sparse = side.step > 0 && (i % side.step == 1 || side.step == 1);
    add(feed_forward(builder, shape, fmt::format("{}{}.mlp.", block, n), sparse));
  }
}

}  // namespace

ModelPlan plan_switch_transformers(PlanBuilder& builder) {
  ModelPlan plan;
  plan.hidden = builder.count({"d_model"}, kMaxHidden);
  plan.vocab = builder.count({"vocab_size"}, kMaxVocab);
  plan.context = kMaxContext;  // relative positions: no end
  read_seq2seq_ids(builder, plan, {.padding = 0, .eos = 1, .decoder_start = 0});
  seq2seq_embedding(builder, plan, {"shared", "encoder.embed_tokens", "decoder.embed_tokens"});
  if (plan.tied) plan.logit_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(plan.hidden)));

  const Shape shape = read_shape(builder, plan);
  const Side encoder = read_side(builder, false), decoder = read_side(builder, true);
  check_expert_count(builder, encoder.layers + decoder.layers, shape.router.experts);
  plan.encoder_layers = encoder.layers;
  add_layers(builder, shape, encoder, plan);
  add_layers(builder, shape, decoder, plan);
  plan.encoder_norm = rms_norm(builder, "encoder.final_layer_norm", plan.hidden, shape.eps);
  plan.final_norm = rms_norm(builder, "decoder.final_layer_norm", plan.hidden, shape.eps);
  number_rows(plan);
  return plan;
}

}  // namespace switchyard
