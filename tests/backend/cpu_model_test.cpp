// Small random models of every kind the cpu backend executes, against the definitions in double precision
// (cpu_naive.h), at every instruction set; and the same bits for a prompt in one piece and in several.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"
#include "tests/backend/cpu_naive.h"

namespace switchyard {
namespace {

using testing::MemoryWeights;
using testing::NaiveModel;
using testing::Vec;

constexpr int kHidden = 40, kVocab = 50, kWidth = 24, kLayers = 3;

struct TestModel;

// What varies between the models under test: the shape, then anything else of the plan.
struct Variant {
  std::string name;
  DType dtype = DType::kBF16;
  int heads = 4, kv_heads = 2, head_dim = 12;
  NormKind norm = NormKind::kRms;
  RopeKind rope = RopeKind::kHalf;
  int rope_dims = 12;
  RouterSpec router = {.experts = 5, .experts_per_token = 2, .renorm = Renorm::kSum};
  bool edited = false;  // a recipe with muted, biased and scaled experts
  std::function<void(TestModel&)> change;
};
std::ostream& operator<<(std::ostream& out, const Variant& variant) {
  return out << variant.name;
}

struct TestModel {
  explicit TestModel(const Variant& v) : variant(v), weights(std::make_shared<MemoryWeights>(11)) {
    plan.dtype = v.dtype;
    plan.hidden = kHidden;
    plan.vocab = kVocab;
    plan.context = 400;
    plan.embedding = weights->add("embedding", kVocab, kHidden, v.dtype, 0, 0.3f);
    plan.lm_head = tensor(kVocab, kHidden);
    plan.final_norm = norm(kHidden);
    for (int i = 0; i < kLayers; ++i) add_layer(i);
    if (v.change) v.change(*this);
    number_rows(plan);
  }

  TensorRef tensor(int64_t rows, int64_t cols) {
    return weights->add("tensor " + std::to_string(++tensors), rows, cols, variant.dtype);
  }
  TensorRef vector(int64_t size, float mean, float deviation) {
    return weights->add("tensor " + std::to_string(++tensors), 1, size, variant.dtype, mean, deviation);
  }
  NormSpec norm(int size) {
    return {.kind = variant.norm,
            .weight = vector(size, variant.norm == NormKind::kRmsOnePlus ? 0.0f : 0.6f, 0.1f),
            .eps = 1e-5f};
  }
  FfnWeights glu(int width) {
    return {.gate = tensor(width, kHidden), .up = tensor(width, kHidden), .down = tensor(kHidden, width)};
  }
  RopeSpec rope(RopeKind kind, int dims, int layer) const {
    RopeSpec rope{.kind = kind, .dims = dims};
    for (int d = 0; d < dims / 2; ++d)
      rope.inv_freq.push_back(std::pow(100.0f, -2.0f * float(d) / float(dims)) * float(layer + 1));
    return rope;
  }

  void add_layer(int i) {
    const Variant& v = variant;
    const int q = v.heads * v.head_dim, kv = v.kv_heads * v.head_dim;
    LayerPlan layer;
    layer.sublayers = {{.norm = norm(kHidden), .op = AttentionSpec{}}, {.norm = norm(kHidden)}};
    AttentionSpec& a = layer.get<AttentionSpec>();
    a.heads = v.heads;
    a.kv_heads = v.kv_heads;
    a.head_dim = v.head_dim;
    a.scale = 1.5f / std::sqrt(float(v.head_dim));
    a.q = tensor(q, kHidden);
    a.k = tensor(kv, kHidden);
    a.v = tensor(kv, kHidden);
    a.o = tensor(kHidden, q);
    a.rope = rope(v.rope, v.rope_dims, i);
    MoeSpec moe{{.router = v.router}, {.width = kWidth}};
    moe.router_weight = weights->add("router " + std::to_string(i), v.router.experts, kHidden, v.dtype, 0, 0.4f);
    if (v.router.has_logit_bias) moe.router_bias = vector(v.router.experts, 0, 0.5f);
    if (v.router.has_select_bias)
      moe.select_bias = weights->add("select bias " + std::to_string(i), 1, v.router.experts, DType::kF32, 0, 0.2f);
    for (int e = 0; e < v.router.experts; ++e) moe.experts.push_back(glu(kWidth));
    layer.sublayers[1].op = std::move(moe);
    plan.layers.push_back(std::move(layer));
  }

  Recipe recipe() const {
    Recipe out;
    if (!variant.edited) return out;
    const size_t experts = size_t(variant.router.experts);
    out.layers.resize(plan.moe_layers.size());
    out.layers[0].muted.assign(experts, 0);
    out.layers[0].muted[1] = 1;
    out.layers[0].expert_scale.assign(experts, 1.0f);
    out.layers[0].expert_scale[2] = 0.25f;
    out.layers[1].k = 3;
    out.layers[1].logit_bias.assign(experts, 0.0f);
    out.layers[1].logit_bias[4] = 2.0f;
    return out;
  }

  Variant variant;
  std::shared_ptr<MemoryWeights> weights;
  ModelPlan plan;
  int tensors = 0;
};

using Change = std::function<void(TestModel&)>;

Change each_layer(std::function<void(TestModel&, LayerPlan&)> change) {
  return [=](TestModel& model) {
    for (LayerPlan& layer : model.plan.layers) change(model, layer);
  };
}
Change each_attention(std::function<void(TestModel&, AttentionSpec&)> change) {
  return each_layer([=](TestModel& model, LayerPlan& layer) { change(model, layer.get<AttentionSpec>()); });
}
Change each_moe(std::function<void(TestModel&, MoeSpec&)> change) {
  return each_layer([=](TestModel& model, LayerPlan& layer) { change(model, layer.get<MoeSpec>()); });
}

Change qk_norm(QkNorm kind, float clip = 0) {
  return each_attention([=](TestModel& m, AttentionSpec& a) {
    const bool whole = kind == QkNorm::kFullVector;
    a.qk_norm = kind;
    a.q_norm = m.norm(whole ? a.heads * a.head_dim : a.head_dim);
    a.k_norm = m.norm(whole ? a.kv_heads * a.head_dim : a.head_dim);
    a.clip_qkv = clip;
  });
}
Change window(int size) {
  return [=](TestModel& m) {  // one full layer between the windowed ones
    m.plan.layers[0].get<AttentionSpec>().sliding_window = size;
    m.plan.layers[2].get<AttentionSpec>().sliding_window = size;
  };
}
Change activation(Activation kind) {
  return each_moe([=](TestModel&, MoeSpec& moe) { moe.expert.activation = kind; });
}
void add_biases(TestModel& m, FfnWeights& w, int width) {
  w.gate_bias = w.gate ? m.vector(width, 0, 0.3f) : TensorRef{};
  w.up_bias = m.vector(width, 0, 0.3f);
  w.down_bias = m.vector(kHidden, 0, 0.3f);
}
FfnSpec shared_block(TestModel& m, int width) {
  return {{.activation = Activation::kGelu, .width = width}, m.glu(width)};
}

// The attention of every layer over latents of 20 dimensions.
Change latent(int query_rank, bool biases) {
  return each_layer([=](TestModel& m, LayerPlan& layer) {
    LatentAttentionSpec a{.heads = 5,
                          .nope_dim = 9,
                          .rope_dim = 6,
                          .value_dim = 11,
                          .kv_rank = 20,
                          .scale = 0.4f,
                          .rope = m.rope(RopeKind::kInterleaved, 6, 1)};
    if (query_rank > 0) {
      a.q_a = m.tensor(query_rank, kHidden);
      a.q_a_norm = m.norm(query_rank);
      if (biases) a.q_a_bias = m.vector(query_rank, 0, 0.3f);
    }
    a.q = m.tensor(a.heads * (a.nope_dim + a.rope_dim), query_rank > 0 ? query_rank : kHidden);
    a.kv_a = m.tensor(a.kv_rank + a.rope_dim, kHidden);
    a.kv_a_norm = m.norm(a.kv_rank);
    a.kv_b = m.tensor(a.heads * (a.nope_dim + a.value_dim), a.kv_rank);
    a.o = m.tensor(kHidden, a.heads * a.value_dim);
    if (biases) {
      a.kv_a_bias = m.vector(a.kv_rank + a.rope_dim, 0, 0.3f);
      a.o_bias = m.vector(kHidden, 0, 0.3f);
      a.q_scale = 1.3f;
      a.latent_scale = 0.8f;
    }
    layer.sublayers[0].op = std::move(a);
  });
}

// Experts as transposed, interleaved columns of one tensor: [E, hidden, 2 width], [E, width, hidden].
void pack_transposed(TestModel& m, MoeSpec& moe) {
  const int64_t experts = int64_t(moe.experts.size());
  const TensorRef gate_up = m.tensor(experts * kHidden, 2 * kWidth), down = m.tensor(experts * kWidth, kHidden);
  for (int64_t e = 0; e < experts; ++e) {
    const auto part = [&](const TensorRef& whole, int64_t rows, int64_t cols, int64_t offset, int64_t row_stride) {
      TensorRef ref = whole;
      ref.rows = rows;
      ref.cols = cols;
      ref.element_offset = e * cols * whole.cols + offset;
      ref.row_stride = row_stride;
      ref.col_stride = whole.cols;
      return ref;
    };
    moe.experts[size_t(e)] = {.gate = part(gate_up, kWidth, kHidden, 0, 2),
                              .up = part(gate_up, kWidth, kHidden, 1, 2),
                              .down = part(down, kHidden, kWidth, 0, 1)};
  }
}

std::vector<Variant> norm_and_rope_variants() {
  return {
      {.name = "bf16"},
      {.name = "fp16", .dtype = DType::kF16},
      {.name = "fp32", .dtype = DType::kF32},
      {.name = "one_plus_norm", .norm = NormKind::kRmsOnePlus, .change = qk_norm(QkNorm::kPerHead)},
      {.name = "fp32_weight_norm", .norm = NormKind::kRmsFp32Weight},
      {.name = "layer_norm", .norm = NormKind::kLayerNorm},
      {.name = "layer_norm_with_bias",
       .norm = NormKind::kLayerNorm,
       .change =
           [](TestModel& m) {
             m.plan.final_norm.bias = m.vector(kHidden, 0, 0.3f);
             for (LayerPlan& layer : m.plan.layers)
               for (Sublayer& sublayer : layer.sublayers) sublayer.norm.bias = m.vector(kHidden, 0, 0.3f);
           }},
      {.name = "partial_half_rope", .rope_dims = 6, .change = each_attention([](TestModel&, AttentionSpec& a) {
                                                      a.rope.attention_factor = 1.2f;
                                                    })},
      {.name = "interleaved_rope", .rope = RopeKind::kInterleaved, .rope_dims = 8},
      {.name = "no_rope", .rope = RopeKind::kNone, .rope_dims = 0},
  };
}

std::vector<Variant> attention_variants() {
  return {
      {.name = "per_head_norm", .dtype = DType::kF32, .change = qk_norm(QkNorm::kPerHead)},
      {.name = "full_vector_norm_and_clip", .change = qk_norm(QkNorm::kFullVector, 0.8f)},
      {.name = "per_head_norm_after_rope_and_clip", .change = qk_norm(QkNorm::kPerHeadPostRope, 0.8f)},
      {.name = "l2_norm_after_rope",
       .rope = RopeKind::kInterleaved,
       .change = each_attention([](TestModel&, AttentionSpec& a) {
         a.qk_norm = QkNorm::kL2PostRope;
         a.q_norm.eps = a.k_norm.eps = 1e-3f;
       })},
      {.name = "window", .change = window(7)},
      {.name = "wide_window", .change = window(70)},
      {.name = "chunks", .change = each_attention([](TestModel&, AttentionSpec& a) { a.chunk = 13; })},
      {.name = "chunks_and_window", .change = each_attention([](TestModel&, AttentionSpec& a) {
                                      a.chunk = 66;
                                      a.sliding_window = 20;
                                    })},
      {.name = "sinks",
       .change =
           [](TestModel& m) {
             window(9)(m);
             each_attention([](TestModel& model, AttentionSpec& a) { a.sinks = model.vector(a.heads, 0.5f, 1.5f); })(m);
           }},
      {.name = "no_rope_with_temperature",
       .rope = RopeKind::kNone,
       .rope_dims = 0,
       .change = each_attention([](TestModel&, AttentionSpec& a) {
         a.temperature_floor = 10;
         a.temperature_scale = 0.3f;
       })},
      {.name = "output_gate", .change = each_attention([](TestModel& m, AttentionSpec& a) {
                                a.gate = m.tensor(a.heads * a.head_dim, kHidden);
                                a.qk_norm = QkNorm::kPerHead;
                                a.q_norm = m.norm(a.head_dim);
                                a.k_norm = m.norm(a.head_dim);
                              })},
      {.name = "biases", .change = each_attention([](TestModel& m, AttentionSpec& a) {
                           a.q_bias = m.vector(a.q.rows, 0, 0.3f);
                           a.k_bias = m.vector(a.k.rows, 0, 0.3f);
                           a.v_bias = m.vector(a.v.rows, 0, 0.3f);
                           a.o_bias = m.vector(kHidden, 0, 0.3f);
                         })},
      {.name = "one_fused_projection", .change = each_attention([](TestModel& m, AttentionSpec& a) {
                                         TensorRef part = m.tensor(a.q.rows + a.k.rows + a.v.rows, kHidden);
                                         int64_t row = 0;
                                         for (TensorRef* ref : {&a.q, &a.k, &a.v}) {
                                           part.rows = ref->rows;
                                           part.element_offset = row * kHidden;
                                           row += ref->rows;
                                           *ref = part;
                                         }
                                       })},
      {.name = "one_kv_head", .heads = 5, .kv_heads = 1},
      {.name = "as_many_kv_heads", .heads = 3, .kv_heads = 3, .head_dim = 33, .rope_dims = 32},
      {.name = "seventy_heads_on_one", .heads = 70, .kv_heads = 1, .head_dim = 4, .rope_dims = 4},
      {.name = "latent_attention", .change = latent(0, false)},
      {.name = "latent_attention_with_low_rank_queries", .dtype = DType::kF32, .change = latent(14, false)},
      {.name = "latent_attention_with_everything", .norm = NormKind::kLayerNorm, .change = latent(14, true)},
  };
}

std::vector<Variant> ffn_variants() {
  const RouterSpec biased{.experts = 6,
                          .experts_per_token = 3,
                          .score = ScoreFn::kSigmoid,
                          .has_select_bias = true,
                          .renorm = Renorm::kSum,
                          .scale = 2.5f};
  const RouterSpec top_k_softmax{
      .experts = 5, .experts_per_token = 2, .score = ScoreFn::kSoftmaxTopK, .has_logit_bias = true};
  const RouterSpec to_input{
      .experts = 5, .experts_per_token = 1, .score = ScoreFn::kSigmoidTopK, .apply = ApplyTo::kInput};
  const auto oss = [](TestModel& m, MoeSpec& moe) {
    moe.expert.kind = FfnKind::kGluOss;
    moe.expert.limit = 0.7f;
    moe.expert.alpha = 1.7f;
    for (FfnWeights& expert : moe.experts) add_biases(m, expert, kWidth);
  };
  const auto plain = [](TestModel& m, MoeSpec& moe) {
    moe.expert.kind = FfnKind::kMlp;
    moe.expert.activation = Activation::kRelu;
    for (FfnWeights& expert : moe.experts) {
      expert.gate = {};
      add_biases(m, expert, kWidth);
    }
  };
  return {
      {.name = "dense_first",
       .change = [](TestModel& m) { m.plan.layers[0].sublayers[1].op = shared_block(m, kWidth); }},
      {.name = "gelu", .change = activation(Activation::kGelu)},
      {.name = "gelu_tanh", .change = activation(Activation::kGeluTanh)},
      {.name = "relu", .change = activation(Activation::kRelu)},
      {.name = "sigmoid_with_selection_bias", .router = biased},
      {.name = "softmax_over_top_k_with_logit_bias", .router = top_k_softmax},
      {.name = "weights_on_the_input", .router = to_input},
      {.name = "edited", .edited = true},
      {.name = "shared_expert",
       .change = each_moe([](TestModel& m, MoeSpec& moe) { moe.shared = shared_block(m, 37); })},
      {.name = "shared_expert_with_gate", .edited = true, .change = each_moe([](TestModel& m, MoeSpec& moe) {
                                                            moe.shared = shared_block(m, 9);
                                                            moe.shared_gate = m.tensor(1, kHidden);
                                                          })},
      {.name = "weights_on_the_input_and_a_shared_expert",
       .router = to_input,
       .change = each_moe([](TestModel& m, MoeSpec& moe) { moe.shared = shared_block(m, kWidth); })},
      {.name = "gpt_oss_blocks", .router = top_k_softmax, .change = each_moe(oss)},
      {.name = "gpt_oss_blocks_with_weights_on_the_input", .router = to_input, .change = each_moe(oss)},
      {.name = "biases_in_experts", .change = each_moe([](TestModel& m, MoeSpec& moe) {
                                      for (FfnWeights& expert : moe.experts) add_biases(m, expert, kWidth);
                                      moe.output_bias = m.vector(kHidden, 0, 0.3f);
                                    })},
      {.name = "blocks_without_a_gate", .router = to_input, .change = each_moe(plain)},
      {.name = "identity_experts", .edited = true, .change = each_moe([](TestModel&, MoeSpec& moe) {
                                                     moe.identity_experts = 2;
                                                     moe.experts.resize(moe.experts.size() - 2);
                                                   })},
      {.name = "transposed_experts", .change = each_moe(pack_transposed)},
      {.name = "transposed_experts_fp16", .dtype = DType::kF16, .change = each_moe(pack_transposed)},
  };
}

std::vector<Variant> model_variants() {
  const auto each_sublayer = [](std::function<void(TestModel&, Sublayer&)> change) {
    return each_layer([=](TestModel& m, LayerPlan& layer) {
      for (Sublayer& sublayer : layer.sublayers) change(m, sublayer);
    });
  };
  return {
      {.name = "scaled_residual", .change = each_layer([](TestModel& m, LayerPlan& layer) {
                                    layer.sublayers[0].scale = 0.22f;
                                    layer.sublayers[1].scale = 0.4f;
                                    layer.get<AttentionSpec>().o_bias = m.vector(kHidden, 0, 0.3f);
                                    layer.get<MoeSpec>().output_bias = m.vector(kHidden, 0, 0.3f);
                                    layer.get<MoeSpec>().shared = shared_block(m, 10);
                                  })},
      {.name = "norms_after_the_blocks", .change = each_sublayer([](TestModel& m, Sublayer& sublayer) {
                                           sublayer.post_norm = m.norm(kHidden);
                                           sublayer.norm = {};
                                         })},
      {.name = "norms_before_and_after",
       .norm = NormKind::kLayerNorm,
       .change = each_sublayer([](TestModel& m, Sublayer& sublayer) {
         sublayer.post_norm = m.norm(kHidden);
         sublayer.scale = 0.5f;
       })},
      {.name = "no_norm", .change = each_sublayer([](TestModel&, Sublayer& sublayer) { sublayer.norm = {}; })},
      {.name = "residual_of_the_normed_input", .change = each_sublayer([](TestModel&, Sublayer& sublayer) {
                                                 sublayer.base_is_normed = true;
                                                 sublayer.base_scale = 1.1f;
                                                 sublayer.scale = 0.7f;
                                               })},
      {.name = "weighted_residual", .change = each_sublayer([](TestModel& m, Sublayer& sublayer) {
                                      sublayer.base_weight = m.vector(kHidden, 0.9f, 0.2f);
                                    })},
      // longcat's layer: attention, experts (deferred), dense, attention, dense.
      {.name = "deferred_experts_and_two_attentions",
       .change = each_layer([](TestModel& m, LayerPlan& layer) {
         AttentionSpec second = layer.get<AttentionSpec>();
         second.q = m.tensor(second.q.rows, kHidden);
         second.k = m.tensor(second.k.rows, kHidden);
         layer.sublayers[1].deferred = true;
         layer.sublayers[1].scale = 0.6f;
         layer.sublayers.push_back({.norm = m.norm(kHidden), .op = shared_block(m, kWidth)});
         layer.sublayers.push_back({.norm = m.norm(kHidden), .op = std::move(second)});
         layer.sublayers.push_back({.norm = m.norm(kHidden), .op = shared_block(m, 30)});
       })},
      {.name = "scaled_embedding_and_logits",
       .change =
           [](TestModel& m) {
             m.plan.embedding_scale = 3.5f;
             m.plan.logit_scale = 1 / 6.0f;
           }},
      {.name = "head_with_bias", .change = [](TestModel& m) { m.plan.lm_head_bias = m.vector(kVocab, 0, 0.5f); }},
      {.name = "normalised_head", .change = [](TestModel& m) { m.plan.normalised_head = true; }},
      {.name = "tied_head_of_a_transposed_embedding",
       .change =
           [](TestModel& m) {
             m.plan.embedding = m.weights->add("turned", kHidden, kVocab, DType::kF32, 0, 0.3f);
             m.plan.embedding.rows = kVocab;
             m.plan.embedding.cols = kHidden;
             m.plan.embedding.row_stride = 1;
             m.plan.embedding.col_stride = kVocab;
             m.plan.lm_head = m.plan.embedding;
             m.plan.tied = true;
           }},
  };
}

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (auto* some : {norm_and_rope_variants, attention_variants, ffn_variants, model_variants})
    for (Variant& variant : some()) all.push_back(std::move(variant));
  return all;
}

class CpuModel : public ::testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Kinds, CpuModel, ::testing::ValuesIn(variants()),
                         [](const auto& info) { return info.param.name; });

struct Output {
  std::vector<float> logits;
  std::vector<RoutingFrame> frames;
};
Output run(const TestModel& model, int threads, std::span<const TokenId> tokens, size_t piece) {
  auto backend = make_cpu_backend(model.plan, model.weights, {.threads = threads}, nullptr);
  if (!backend) throw std::runtime_error(backend.error().message());
  const auto cache = (*backend)->new_cache(int(tokens.size()));
  const Recipe recipe = model.recipe();
  const int experts = model.plan.max_experts();
  Output out{std::vector<float>(tokens.size() * kVocab),
             std::vector<RoutingFrame>(tokens.size(), RoutingFrame(int(model.plan.moe_layers.size()), experts, experts,
                                                                   CaptureLevel::kLogits))};
  for (size_t first = 0; first < tokens.size(); first += piece) {
    const size_t count = std::min(piece, tokens.size() - first);
    const auto done = (*backend)->forward({.tokens = tokens.subspan(first, count),
                                           .cache = cache.get(),
                                           .recipe = &recipe,
                                           .rows = LogitRows::kAll,
                                           .logits = std::span(out.logits).subspan(first * kVocab, count * kVocab),
                                           .frames = std::span(out.frames).subspan(first, count)});
    if (!done) throw std::runtime_error(done.error().message());
  }
  return out;
}

TEST_P(CpuModel, EqualsTheDefinitionsInDoublePrecision) {
  const TestModel model(GetParam());
  std::vector<TokenId> tokens;
  for (int i = 0; i < 140; ++i) tokens.push_back((i * i * 3 + i * 7) % kVocab);
  const Recipe recipe = model.recipe();
  NaiveModel naive(model.plan, *model.weights, recipe);
  const std::vector<Vec> expected = naive.logits(tokens);

  const char* before = std::getenv("SWITCHYARD_ISA");
  const std::string saved = before ? before : "";
  for (const cpu::Isa isa : cpu::host_isas()) {
    setenv("SWITCHYARD_ISA", std::string(cpu::token(isa)).c_str(), 1);
    const Output whole = run(model, 1, tokens, tokens.size());
    double worst = 0;
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (int i = 0; i < kVocab; ++i) worst = std::max(worst, std::abs(whole.logits[t * kVocab + i] - expected[t][i]));
      for (size_t row = 0; row < naive.ids().size(); ++row) {
        const auto used = whole.frames[t].used_ids(int(row));
        std::vector<ExpertId> ids(used.begin(), used.end());
        std::sort(ids.begin(), ids.end());
        ASSERT_EQ(ids, naive.ids()[row][t]) << "row " << row << " token " << t;
      }
    }
    EXPECT_LT(worst, 5e-5) << name(isa);
    for (const size_t piece : {size_t(1), size_t(13)}) {
      const Output pieces = run(model, 3, tokens, piece);
      EXPECT_EQ(0, std::memcmp(whole.logits.data(), pieces.logits.data(), whole.logits.size() * sizeof(float)))
          << name(isa) << " in pieces of " << piece;
    }
  }
  if (before)
    setenv("SWITCHYARD_ISA", saved.c_str(), 1);
  else
    unsetenv("SWITCHYARD_ISA");
}

}  // namespace
}  // namespace switchyard
