// Small random models of every kind the cpu backend executes, against a forward pass written here from
// the definitions in double precision over the whole sequence, without cache, chunks or threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"
#include "engine/routing/decision.h"

namespace switchyard {
namespace {

using Vec = std::vector<double>;

// Random tensors in memory, at odd addresses.
class MemoryWeights final : public WeightStore {
 public:
  explicit MemoryWeights(unsigned seed) : random_(seed) {}

  TensorRef add(const std::string& name, int64_t rows, int64_t cols, DType dtype, float mean = 0,
                float deviation = -1) {
    std::normal_distribution<float> normal(mean, deviation < 0 ? 1.0f / std::sqrt(float(cols)) : deviation);
    Stored& stored = tensors_[name];
    stored.dtype = dtype;
    stored.bytes.assign(1, std::byte{0});
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = normal(random_);
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      if (dtype == DType::kF32) {
        append(stored.bytes, &x, 4);
        stored.values.push_back(x);
      } else if (dtype == DType::kBF16) {
        const uint16_t half = uint16_t(bits >> 16);
        const uint32_t back = uint32_t(half) << 16;
        float value;
        std::memcpy(&value, &back, 4);
        append(stored.bytes, &half, 2);
        stored.values.push_back(value);
      } else {  // binary16 in steps of 2^-10, exact for the sizes used here
        const int steps = std::clamp(int(std::lround(x * 1024)), -1023, 1023);
        append(stored.bytes, &half_of_steps(steps), 2);
        stored.values.push_back(steps / 1024.0);
      }
    }
    return {.name = name, .rows = rows, .cols = cols, .dtype = dtype};
  }
  const Vec& values(const TensorRef& ref) const { return tensors_.at(ref.name).values; }

  Result<TensorView> view(const TensorRef& ref) const override {
    const Stored& stored = tensors_.at(ref.name);
    return TensorView{stored.bytes.data() + 1, stored.dtype, ref.rows, ref.cols};
  }
  Result<void> check_unchanged() const override { return {}; }
  uint64_t bytes() const override { return 0; }

 private:
  struct Stored {
    DType dtype = DType::kF32;
    std::vector<std::byte> bytes;
    Vec values;
  };
  static void append(std::vector<std::byte>& bytes, const void* data, size_t n) {
    const auto* p = static_cast<const std::byte*>(data);
    bytes.insert(bytes.end(), p, p + n);
  }
  // The binary16 of steps / 1024, |steps| < 1024, from its definition.
  static const uint16_t& half_of_steps(int steps) {
    static const std::vector<uint16_t> table = [] {
      std::vector<uint16_t> halves;
      for (int s = -1023; s <= 1023; ++s) {
        int exponent;
        const double fraction = std::frexp(std::abs(s) / 1024.0, &exponent);  // [0.5, 1)
        const int magnitude = s == 0 ? 0 : (exponent + 14) << 10 | (int(fraction * 2048) & 1023);
        halves.push_back(uint16_t(magnitude | (s < 0 ? 0x8000 : 0)));
      }
      return halves;
    }();
    return table[size_t(steps + 1023)];
  }

  std::map<std::string, Stored> tensors_;
  std::mt19937 random_;
};

// What varies between the models under test.
struct Variant {
  std::string name;
  DType dtype = DType::kBF16;
  int heads = 4, kv_heads = 2, head_dim = 12;
  NormKind norm = NormKind::kRms;
  QkNorm qk_norm = QkNorm::kNone;
  float clip = 0;
  RopeKind rope = RopeKind::kHalf;
  int rope_dims = 12;
  float attention_factor = 1;
  int window = 0;
  bool qkv_bias = false, o_bias = false, dense_first = false;
  Activation activation = Activation::kSilu;
  RouterSpec router = {.experts = 5, .experts_per_token = 2, .renorm = Renorm::kSum};
  bool edited = false;  // a recipe with muted, biased and scaled experts
};
std::ostream& operator<<(std::ostream& out, const Variant& variant) {
  return out << variant.name;
}

constexpr int kHidden = 40, kVocab = 50, kWidth = 24, kLayers = 3;

struct TestModel {
  explicit TestModel(const Variant& v) : variant(v), weights(std::make_shared<MemoryWeights>(11)) {
    plan.dtype = v.dtype;
    plan.hidden = kHidden;
    plan.vocab = kVocab;
    plan.context = 400;
    plan.embedding = weights->add("embedding", kVocab, kHidden, v.dtype, 0, 0.3f);
    plan.lm_head = weights->add("head", kVocab, kHidden, v.dtype);
    plan.final_norm = norm("final_norm", kHidden);
    for (int i = 0; i < kLayers; ++i) add_layer(i);
    number_rows(plan);
  }

  NormSpec norm(const std::string& name, int size) {
    return {
        .kind = variant.norm,
        .weight = weights->add(name, 1, size, variant.dtype, variant.norm == NormKind::kRmsOnePlus ? 0.0f : 0.6f, 0.1f),
        .eps = 1e-5f};
  }
  FfnWeights glu(const std::string& name) {
    return {weights->add(name + ".gate", kWidth, kHidden, variant.dtype),
            weights->add(name + ".up", kWidth, kHidden, variant.dtype),
            weights->add(name + ".down", kHidden, kWidth, variant.dtype)};
  }
  void add_layer(int i) {
    const Variant& v = variant;
    const std::string at = "layers." + std::to_string(i) + ".";
    const int q = v.heads * v.head_dim, kv = v.kv_heads * v.head_dim;
    LayerPlan layer;
    layer.sublayers = {{.norm = norm(at + "norm1", kHidden), .op = AttentionSpec{}},
                       {.norm = norm(at + "norm2", kHidden)}};
    AttentionSpec& a = layer.get<AttentionSpec>();
    a.heads = v.heads;
    a.kv_heads = v.kv_heads;
    a.head_dim = v.head_dim;
    a.scale = 1.5f / std::sqrt(float(v.head_dim));
    a.q = weights->add(at + "q", q, kHidden, v.dtype);
    a.k = weights->add(at + "k", kv, kHidden, v.dtype);
    a.v = weights->add(at + "v", kv, kHidden, v.dtype);
    a.o = weights->add(at + "o", kHidden, q, v.dtype);
    if (v.qkv_bias) {
      a.q_bias = weights->add(at + "q_bias", 1, q, v.dtype, 0, 0.3f);
      a.k_bias = weights->add(at + "k_bias", 1, kv, v.dtype, 0, 0.3f);
      a.v_bias = weights->add(at + "v_bias", 1, kv, v.dtype, 0, 0.3f);
    }
    if (v.o_bias) a.o_bias = weights->add(at + "o_bias", 1, kHidden, v.dtype, 0, 0.3f);
    a.qk_norm = v.qk_norm;
    if (v.qk_norm != QkNorm::kNone) {
      a.q_norm = norm(at + "q_norm", v.qk_norm == QkNorm::kPerHead ? v.head_dim : q);
      a.k_norm = norm(at + "k_norm", v.qk_norm == QkNorm::kPerHead ? v.head_dim : kv);
    }
    a.clip_qkv = v.clip;
    a.rope = {.kind = v.rope, .dims = v.rope_dims, .attention_factor = v.attention_factor};
    for (int d = 0; d < v.rope_dims / 2; ++d)
      a.rope.inv_freq.push_back(std::pow(100.0f, -2.0f * float(d) / float(v.rope_dims)) * float(i + 1));
    a.sliding_window = i == 1 ? 0 : v.window;  // one full layer between the windowed ones
    if (i == 0 && v.dense_first) {
      layer.sublayers[1].op = FfnSpec{{.activation = v.activation, .width = kWidth}, glu(at + "mlp")};
    } else {
      MoeSpec moe{{.router = v.router}, {.activation = v.activation, .width = kWidth}};
      moe.router_weight = weights->add(at + "router", v.router.experts, kHidden, v.dtype, 0, 0.4f);
      if (v.router.has_logit_bias)
        moe.router_bias = weights->add(at + "router_bias", 1, v.router.experts, v.dtype, 0, 0.5f);
      if (v.router.has_select_bias)
        moe.select_bias = weights->add(at + "select_bias", 1, v.router.experts, DType::kF32, 0, 0.2f);
      for (int e = 0; e < v.router.experts; ++e) moe.experts.push_back(glu(at + "expert" + std::to_string(e)));
      layer.sublayers[1].op = std::move(moe);
    }
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
};

// The definitions, token by token over the whole sequence.
class Naive {
 public:
  explicit Naive(const TestModel& model) : model_(model), recipe_(model.recipe()) {}

  // [tokens][vocab]; fills ids[layer row][token].
  std::vector<Vec> logits(std::span<const TokenId> tokens) {
    std::vector<Vec> hidden;
    for (const TokenId id : tokens) hidden.push_back(row(model_.plan.embedding, id));
    ids.assign(model_.plan.moe_layers.size(), {});
    int moe_row = 0;
    for (const LayerPlan& layer : model_.plan.layers) {
      attend(layer, hidden);
      const MoeSpec* moe = layer.find<MoeSpec>();
      for (Vec& h : hidden) {
        const Vec x = norm(layer.sublayers[1].norm, h);
        const Vec out =
            moe ? mixture(*moe, moe_row, x) : feed(layer.get<FfnSpec>().weights, model_.variant.activation, x, 1);
        for (size_t i = 0; i < h.size(); ++i) h[i] += out[i];
      }
      if (moe) ++moe_row;
    }
    std::vector<Vec> out;
    for (const Vec& h : hidden) out.push_back(times(model_.plan.lm_head, norm(model_.plan.final_norm, h)));
    return out;
  }
  std::vector<std::vector<std::vector<ExpertId>>> ids;  // [row][token], selection order

 private:
  Vec row(const TensorRef& ref, int64_t r) const {
    const Vec& all = model_.weights->values(ref);
    return {all.begin() + r * ref.cols, all.begin() + (r + 1) * ref.cols};
  }
  Vec times(const TensorRef& ref, const Vec& x) const {
    Vec out(ref.rows);
    const Vec& w = model_.weights->values(ref);
    for (int64_t r = 0; r < ref.rows; ++r)
      for (int64_t c = 0; c < ref.cols; ++c) out[r] += w[r * ref.cols + c] * x[c];
    return out;
  }
  void add_bias(const TensorRef& ref, Vec& x) const {
    if (!ref) return;
    for (size_t i = 0; i < x.size(); ++i) x[i] += model_.weights->values(ref)[i];
  }
  Vec norm(const NormSpec& spec, const Vec& x) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double factor = 1 / std::sqrt(squares / double(x.size()) + spec.eps);
    Vec out;
    for (size_t i = 0; i < x.size(); ++i)
      out.push_back(x[i] * factor *
                    (model_.weights->values(spec.weight)[i] + (spec.kind == NormKind::kRmsOnePlus ? 1 : 0)));
    return out;
  }
  void norm_projection(const AttentionSpec& a, const NormSpec& spec, Vec& x) const {
    if (a.qk_norm == QkNorm::kFullVector) x = norm(spec, x);
    if (a.qk_norm != QkNorm::kPerHead) return;
    for (size_t at = 0; at < x.size(); at += size_t(a.head_dim)) {
      const Vec head = norm(spec, Vec(x.begin() + long(at), x.begin() + long(at) + a.head_dim));
      std::copy(head.begin(), head.end(), x.begin() + long(at));
    }
  }
  void clip(const AttentionSpec& a, Vec& x) const {
    if (a.clip_qkv > 0)
      for (double& v : x) v = std::clamp<double>(v, -a.clip_qkv, a.clip_qkv);
  }
  void rotate(const AttentionSpec& a, int position, Vec& x) const {
    if (a.rope.kind == RopeKind::kNone) return;
    for (size_t at = 0; at < x.size(); at += size_t(a.head_dim))
      for (int i = 0; i < a.rope.dims / 2; ++i) {
        const bool half = a.rope.kind == RopeKind::kHalf;
        double& first = x[at + size_t(half ? i : 2 * i)];
        double& second = x[at + size_t(half ? i + a.rope.dims / 2 : 2 * i + 1)];
        const double angle = double(position) * a.rope.inv_freq[i], c = std::cos(angle) * a.rope.attention_factor,
                     s = std::sin(angle) * a.rope.attention_factor;
        const double f = first * c - second * s;
        second = second * c + first * s;
        first = f;
      }
  }
  void attend(const LayerPlan& layer, std::vector<Vec>& hidden) const {
    const AttentionSpec& a = layer.get<AttentionSpec>();
    std::vector<Vec> q, k, v;
    for (size_t t = 0; t < hidden.size(); ++t) {
      const Vec x = norm(layer.sublayers[0].norm, hidden[t]);
      q.push_back(times(a.q, x));
      k.push_back(times(a.k, x));
      v.push_back(times(a.v, x));
      add_bias(a.q_bias, q[t]);
      add_bias(a.k_bias, k[t]);
      add_bias(a.v_bias, v[t]);
      norm_projection(a, a.q_norm, q[t]);
      norm_projection(a, a.k_norm, k[t]);
      for (Vec* x : {&q[t], &k[t], &v[t]}) clip(a, *x);
      rotate(a, int(t), q[t]);
      rotate(a, int(t), k[t]);
    }
    for (size_t t = 0; t < hidden.size(); ++t) {
      Vec mixed(size_t(a.heads) * a.head_dim);
      const size_t first = a.sliding_window > 0 && int(t) >= a.sliding_window ? t + 1 - size_t(a.sliding_window) : 0;
      for (int head = 0; head < a.heads; ++head) {
        const int from = head * a.head_dim, kv_from = head / (a.heads / a.kv_heads) * a.head_dim;
        double total = 0;
        Vec sum(a.head_dim);
        for (size_t j = first; j <= t; ++j) {
          double score = 0;
          for (int d = 0; d < a.head_dim; ++d) score += q[t][size_t(from + d)] * k[j][size_t(kv_from + d)];
          const double e = std::exp(score * a.scale);
          total += e;
          for (int d = 0; d < a.head_dim; ++d) sum[d] += e * v[j][size_t(kv_from + d)];
        }
        for (int d = 0; d < a.head_dim; ++d) mixed[size_t(from + d)] = sum[d] / total;
      }
      Vec out = times(a.o, mixed);
      add_bias(a.o_bias, out);
      for (size_t i = 0; i < out.size(); ++i) hidden[t][i] += out[i];
    }
  }
  static double activate(Activation activation, double g) {
    switch (activation) {
      case Activation::kSilu:
        return g / (1 + std::exp(-g));
      case Activation::kRelu:
        return std::max(g, 0.0);
      case Activation::kGelu:
        return g * 0.5 * (1 + std::erf(g / std::sqrt(2.0)));
      case Activation::kGeluTanh:
        return g * 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
    }
    return 0;
  }
  Vec feed(const FfnWeights& w, Activation activation, Vec x, double input_scale) const {
    for (double& v : x) v *= input_scale;
    Vec gate = times(w.gate, x);
    const Vec up = times(w.up, x);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(activation, gate[i]) * up[i];
    return times(w.down, gate);
  }
  // The decision is route()'s, which its own room proves; what is done with it is checked here.
  Vec mixture(const MoeSpec& moe, int moe_row, const Vec& x) {
    Vec z = times(moe.router_weight, x);
    add_bias(moe.router_bias, z);
    const auto floats = [&](const TensorRef& ref) {
      if (!ref) return std::vector<float>();
      const Vec& values = model_.weights->values(ref);
      return std::vector<float>(values.begin(), values.end());
    };
    const size_t experts = size_t(moe.router.experts);
    const std::vector<float> logits(z.begin(), z.end());
    std::vector<float> scratch(4 * experts), weights(experts);
    std::vector<ExpertId> chosen(experts);
    std::vector<SlotKind> kinds(experts);
    const LayerRecipe* recipe = recipe_.layer(moe_row);
    const Decision decision = route(moe.router, recipe, logits, floats(moe.router_bias), floats(moe.select_bias),
                                    scratch, {chosen, weights, kinds});
    Vec out(x.size());
    for (int slot = 0; slot < decision.k_used; ++slot) {
      const bool to_input = moe.router.apply == ApplyTo::kInput;
      const double scale = recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[chosen[slot]] : 1.0;
      const Vec y = feed(moe.experts[chosen[slot]], moe.expert.activation, x, to_input ? weights[slot] : 1.0);
      for (size_t i = 0; i < out.size(); ++i) out[i] += y[i] * scale * (to_input ? 1.0 : weights[slot]);
    }
    chosen.resize(size_t(decision.k_used));
    std::sort(chosen.begin(), chosen.end());
    ids[size_t(moe_row)].push_back(chosen);
    return out;
  }

  const TestModel& model_;
  Recipe recipe_;
};

std::vector<Variant> variants() {
  RouterSpec biased{.experts = 6,
                    .experts_per_token = 3,
                    .score = ScoreFn::kSigmoid,
                    .has_select_bias = true,
                    .renorm = Renorm::kSum,
                    .scale = 2.5f};
  RouterSpec top_k_softmax{
      .experts = 5, .experts_per_token = 2, .score = ScoreFn::kSoftmaxTopK, .has_logit_bias = true};
  RouterSpec to_input{.experts = 5, .experts_per_token = 1, .score = ScoreFn::kSigmoidTopK, .apply = ApplyTo::kInput};
  return {
      {.name = "bf16"},
      {.name = "fp16", .dtype = DType::kF16},
      {.name = "fp32", .dtype = DType::kF32},
      {.name = "per_head_norm", .dtype = DType::kF32, .qk_norm = QkNorm::kPerHead},
      {.name = "full_vector_norm_and_clip", .qk_norm = QkNorm::kFullVector, .clip = 0.8f},
      {.name = "one_plus_norm", .norm = NormKind::kRmsOnePlus, .qk_norm = QkNorm::kPerHead},
      {.name = "fp32_weight_norm", .norm = NormKind::kRmsFp32Weight},
      {.name = "partial_half_rope", .rope_dims = 6, .attention_factor = 1.2f},
      {.name = "interleaved_rope", .rope = RopeKind::kInterleaved, .rope_dims = 8},
      {.name = "no_rope", .rope = RopeKind::kNone, .rope_dims = 0},
      {.name = "window", .window = 7},
      {.name = "wide_window", .window = 70},
      {.name = "biases", .qkv_bias = true, .o_bias = true},
      {.name = "one_kv_head", .heads = 5, .kv_heads = 1},
      {.name = "as_many_kv_heads", .heads = 3, .kv_heads = 3, .head_dim = 33, .rope_dims = 32},
      {.name = "seventy_heads_on_one", .heads = 70, .kv_heads = 1, .head_dim = 4, .rope_dims = 4},
      {.name = "dense_first", .dense_first = true},
      {.name = "gelu", .activation = Activation::kGelu},
      {.name = "gelu_tanh", .activation = Activation::kGeluTanh},
      {.name = "relu", .activation = Activation::kRelu},
      {.name = "sigmoid_with_selection_bias", .router = biased},
      {.name = "softmax_over_top_k_with_logit_bias", .router = top_k_softmax},
      {.name = "weights_on_the_input", .router = to_input},
      {.name = "edited", .edited = true},
  };
}

class CpuModel : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Kinds, CpuModel, testing::ValuesIn(variants()),
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
  Naive naive(model);
  const std::vector<Vec> expected = naive.logits(tokens);

  const char* before = std::getenv("SWITCHYARD_ISA");
  const std::string saved = before ? before : "";
  for (const cpu::Isa isa : cpu::host_isas()) {
    setenv("SWITCHYARD_ISA", std::string(cpu::token(isa)).c_str(), 1);
    const Output whole = run(model, 1, tokens, tokens.size());
    double worst = 0;
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (int i = 0; i < kVocab; ++i) worst = std::max(worst, std::abs(whole.logits[t * kVocab + i] - expected[t][i]));
      for (size_t row = 0; row < naive.ids.size(); ++row) {
        const auto used = whole.frames[t].used_ids(int(row));
        std::vector<ExpertId> ids(used.begin(), used.end());
        std::sort(ids.begin(), ids.end());
        ASSERT_EQ(ids, naive.ids[row][t]) << "row " << row << " token " << t;
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
