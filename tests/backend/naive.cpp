// See naive.h.
#include "tests/backend/naive.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "engine/routing/decision.h"

namespace switchyard::testing {
namespace {

using Vector = std::vector<double>;

class Naive {
 public:
  Naive(const ModelPlan& plan, const WeightStore& weights, const NaiveLayer& layer)
      : plan_(plan), weights_(weights), layer_(layer), history_(plan.layers.size()) {}

  Vector next(TokenId token) {
    Vector x = row(plan_.embedding, token);
    int routed = 0;
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      const LayerPlan& layer = plan_.layers[i];
      add(x, attend(layer.get<AttentionSpec>(), norm(layer.sublayers[0].norm, x), history_[i]));
      const Vector in = norm(layer.sublayers[1].norm, x);
      const MoeSpec* experts = layer.find<MoeSpec>();
      if (experts && layer_) {
        x = layer_(block(*experts, routed++), x, in);
        continue;
      }
      add(x, experts ? moe(*experts, in) : ffn(layer.get<FfnSpec>(), layer.get<FfnSpec>().weights, in));
    }
    ++position_;
    x = norm(plan_.final_norm, x);
    if (plan_.normalised_head) {  // columns of the head over their norm: the same as the input over it
      const Vector head = all(plan_.lm_head);
      for (int64_t c = 0; c < plan_.lm_head.cols; ++c) {
        double square = 0;
        for (int64_t r = 0; r < plan_.lm_head.rows; ++r) square += std::pow(head[r * plan_.lm_head.cols + c], 2);
        x[c] /= std::sqrt(square) + 1e-7;
      }
    }
    return multiply(plan_.lm_head, plan_.lm_head_bias, x);
  }

 private:
  struct History {
    std::vector<Vector> keys, values;
  };  // [token] of [kv_heads * head_dim]

  Vector all(const TensorRef& ref) const {
    TensorRef whole = ref;  // up to the last element that the strides reach
    const int64_t row_stride = ref.row_stride > 0 ? ref.row_stride : ref.cols;
    whole.rows = 1;
    whole.cols = (ref.rows - 1) * row_stride + (ref.cols - 1) * ref.col_stride + 1;
    whole.row_stride = 0;
    whole.col_stride = 1;
    const auto view = weights_.view(whole);
    if (!view || view->dtype != DType::kF32) throw std::runtime_error("no fp32 tensor " + ref.name);
    std::vector<float> stored(size_t(whole.cols));
    std::memcpy(stored.data(), view->data, stored.size() * sizeof(float));
    Vector out;
    for (int64_t r = 0; r < ref.rows; ++r)
      for (int64_t c = 0; c < ref.cols; ++c) out.push_back(stored[size_t(r * row_stride + c * ref.col_stride)]);
    return out;
  }

  Vector row(const TensorRef& ref, int64_t index) const {
    const Vector matrix = all(ref);
    return {matrix.begin() + index * ref.cols, matrix.begin() + (index + 1) * ref.cols};
  }

  static void add(Vector& to, const Vector& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }

  Vector multiply(const TensorRef& weight, const TensorRef& bias, const Vector& x) const {
    const Vector matrix = all(weight);
    Vector out = bias ? all(bias) : Vector(size_t(weight.rows), 0.0);
    for (int64_t r = 0; r < weight.rows; ++r) {
      for (int64_t c = 0; c < weight.cols; ++c) out[r] += matrix[r * weight.cols + c] * x[c];
    }
    return out;
  }

  Vector norm(const NormSpec& spec, Vector x) const {
    const auto n = double(x.size());
    double mean = 0, square = 0;
    if (spec.kind == NormKind::kLayerNorm) {
      for (const double v : x) mean += v / n;
    }
    for (const double v : x) square += (v - mean) * (v - mean) / n;
    const Vector weight = spec.weight ? all(spec.weight) : Vector(x.size(), 1.0);
    const Vector bias = spec.bias ? all(spec.bias) : Vector(x.size(), 0.0);
    for (size_t i = 0; i < x.size(); ++i) {
      const double by = spec.kind == NormKind::kRmsOnePlus ? 1 + weight[i] : weight[i];
      x[i] = (x[i] - mean) / std::sqrt(square + double(spec.eps)) * by + bias[i];
    }
    return x;
  }

  void rotate(const RopeSpec& rope, double* head) const {
    const int half = rope.dims / 2;
    for (int i = 0; rope.kind != RopeKind::kNone && i < half; ++i) {
      double& a = rope.kind == RopeKind::kHalf ? head[i] : head[2 * i];
      double& b = rope.kind == RopeKind::kHalf ? head[i + half] : head[2 * i + 1];
      const double angle = position_ * double(rope.inv_freq[i]), f = rope.attention_factor;
      const double c = std::cos(angle) * f, s = std::sin(angle) * f, first = a * c - b * s;
      b = b * c + a * s;
      a = first;
    }
  }

  void norm_heads(const AttentionSpec& spec, const NormSpec& norm_spec, Vector& out) const {
    for (size_t head = 0; head < out.size(); head += spec.head_dim) {
      const Vector normed = norm(norm_spec, {out.begin() + head, out.begin() + head + spec.head_dim});
      std::copy(normed.begin(), normed.end(), out.begin() + head);
    }
  }

  // Projection, norm of the whole vector or of each head, clip, rope, norm; no norm and no rope for values.
  Vector project(const AttentionSpec& spec, const TensorRef& weight, const TensorRef& bias, const NormSpec* norm_spec,
                 const Vector& x) const {
    Vector out = multiply(weight, bias, x);
    if (norm_spec && spec.qk_norm == QkNorm::kFullVector) out = norm(*norm_spec, out);
    if (norm_spec && spec.qk_norm == QkNorm::kPerHead) norm_heads(spec, *norm_spec, out);
    if (spec.clip_qkv > 0) {
      for (double& v : out) v = std::clamp(v, -double(spec.clip_qkv), double(spec.clip_qkv));
    }
    for (size_t head = 0; norm_spec && head < out.size(); head += spec.head_dim) rotate(spec.rope, &out[head]);
    if (norm_spec && (spec.qk_norm == QkNorm::kPerHeadPostRope || spec.qk_norm == QkNorm::kL2PostRope))
      norm_heads(spec, *norm_spec, out);
    return out;
  }

  Vector attend(const AttentionSpec& spec, const Vector& x, History& history) const {
    Vector q = project(spec, spec.q, spec.q_bias, &spec.q_norm, x);
    if (spec.temperature_floor > 0) {
      const double steps = std::floor((position_ + 1) / double(spec.temperature_floor));
      for (double& v : q) v *= std::log(1 + steps) * double(spec.temperature_scale) + 1;
    }
    history.keys.push_back(project(spec, spec.k, spec.k_bias, &spec.k_norm, x));
    history.values.push_back(project(spec, spec.v, spec.v_bias, nullptr, x));
    const int d = spec.head_dim;
    int first = spec.sliding_window > 0 ? std::max(0, position_ - spec.sliding_window + 1) : 0;
    while (spec.chunk > 0 && first / spec.chunk != position_ / spec.chunk) ++first;
    const Vector sinks = spec.sinks ? all(spec.sinks) : Vector();
    Vector mixed(q.size(), 0.0);
    for (int head = 0; head < spec.heads; ++head) {
      const int kv = head / (spec.heads / spec.kv_heads);
      Vector score;
      double largest = -INFINITY, sum = 0;
      for (int j = first; j <= position_; ++j) {
        double dot = 0;
        for (int i = 0; i < d; ++i) dot += q[head * d + i] * history.keys[j][kv * d + i];
        score.push_back(dot * double(spec.scale));
        largest = std::max(largest, score.back());
      }
      if (spec.sinks) sum = std::exp(sinks[head] - largest);
      for (double& s : score) sum += s = std::exp(s - largest);
      for (int j = first; j <= position_; ++j) {
        for (int i = 0; i < d; ++i) mixed[head * d + i] += score[j - first] / sum * history.values[j][kv * d + i];
      }
    }
    if (spec.gate) {
      const Vector gate = multiply(spec.gate, {}, x);
      for (size_t i = 0; i < mixed.size(); ++i) mixed[i] *= sigmoid(gate[i]);
    }
    return multiply(spec.o, spec.o_bias, mixed);
  }

  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

  static double activate(Activation activation, double x) {
    switch (activation) {
      case Activation::kSilu:
        return x / (1 + std::exp(-x));
      case Activation::kGelu:
        return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
      case Activation::kGeluTanh:
        return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
      case Activation::kRelu:
        return std::max(0.0, x);
    }
    return x;
  }

  Vector ffn(const FfnShape& shape, const FfnWeights& weights, const Vector& x) const {
    return multiply(weights.down, weights.down_bias, units(shape, weights, x));
  }

  // What the down projection takes.
  Vector units(const FfnShape& shape, const FfnWeights& weights, const Vector& x) const {
    const Vector gate = weights.gate ? multiply(weights.gate, weights.gate_bias, x) : Vector();
    Vector mid = multiply(weights.up, weights.up_bias, x);
    for (size_t i = 0; i < mid.size(); ++i) {
      switch (shape.kind) {
        case FfnKind::kGlu:
          mid[i] *= activate(shape.activation, gate[i]);
          break;
        case FfnKind::kGluOss: {
          const double limit = shape.limit, g = std::min(gate[i], limit);
          mid[i] = (std::clamp(mid[i], -limit, limit) + 1) * g * sigmoid(double(shape.alpha) * g);
          break;
        }
        case FfnKind::kGluDouble: {
          const double b = gate[i + size_t(shape.width)];
          mid[i] *= gate[i] * b * sigmoid(b);
          break;
        }
        case FfnKind::kMlp:
          mid[i] = activate(shape.activation, mid[i]);
          break;
        case FfnKind::kRankOne:
          throw std::runtime_error("no rank-one experts here");
      }
    }
    return mid;
  }

  NaiveBlock block(const MoeSpec& spec, int row) const {
    return {row, spec, [this, &spec](const Vector& x) { return multiply(spec.router_weight, spec.router_bias, x); },
            [this, &spec](size_t expert, const Vector& x) { return units(spec.expert, spec.experts[expert], x); },
            [this, &spec](size_t expert, const Vector& units) {
              return multiply(spec.experts[expert].down, spec.experts[expert].down_bias, units);
            },
            [this, &spec](const Vector& x) { return rest(spec, x); }};
  }

  // The shared block and the bias of a routed layer.
  Vector rest(const MoeSpec& spec, const Vector& x) const {
    Vector out(x.size(), 0.0);
    if (spec.shared) {
      Vector y = ffn(*spec.shared, spec.shared->weights, x);
      const double open = spec.shared_gate ? sigmoid(multiply(spec.shared_gate, {}, x)[0]) : 1.0;
      for (double& v : y) v *= open;
      add(out, y);
    }
    if (spec.output_bias) add(out, all(spec.output_bias));
    return out;
  }

  std::vector<float> floats(const TensorRef& ref) const {
    if (!ref) return {};
    const Vector values = all(ref);
    return {values.begin(), values.end()};
  }

  Vector moe(const MoeSpec& spec, const Vector& x) const {
    const Vector exact = multiply(spec.router_weight, spec.router_bias, x);
    const std::vector<float> logits(exact.begin(), exact.end());
    const int slots = slots_needed(spec.router, nullptr);
    std::vector<ExpertId> ids(slots);
    std::vector<float> weights(slots), scratch(logits.size() * 4);
    std::vector<SlotKind> kinds(slots);
    const std::vector<float> router_bias = floats(spec.router_bias), select_bias = floats(spec.select_bias);
    const Decision decision = route(spec.router, nullptr, {.logits = logits, .router_bias = router_bias, .select_bias = select_bias},
                                    scratch, {ids, weights, kinds});
    Vector out(x.size(), 0.0);
    for (int slot = 0; slot < decision.k_used; ++slot) {
      const bool on_input = spec.router.apply == ApplyTo::kInput;
      Vector in = x;
      for (double& v : in) v *= on_input ? double(weights[slot]) : 1.0;
      Vector y = ids[slot] < spec.experts.size() ? ffn(spec.expert, spec.experts[ids[slot]], in) : in;
      for (double& v : y) v *= on_input ? 1.0 : double(weights[slot]);
      add(out, y);
    }
    add(out, rest(spec, x));
    return out;
  }

  const ModelPlan& plan_;
  const WeightStore& weights_;
  const NaiveLayer& layer_;
  std::vector<History> history_;
  int position_ = 0;
};

}  // namespace

std::vector<double> naive_logits(const ModelPlan& plan, const WeightStore& weights, std::span<const TokenId> tokens,
                                 const NaiveLayer& layer) {
  Naive model(plan, weights, layer);
  std::vector<double> out;
  for (const TokenId token : tokens) {
    const Vector row = model.next(token);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

}  // namespace switchyard::testing
