// See cpu_naive.h.
#include "tests/backend/cpu_naive.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "engine/routing/decision.h"

namespace switchyard::testing {
namespace {

void append(std::vector<std::byte>& bytes, const void* data, size_t n) {
  const auto* p = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), p, p + n);
}

// The binary16 of steps / 1024, |steps| < 1024, from its definition.
uint16_t half_of_steps(int steps) {
  if (steps == 0) return 0;
  int exponent;
  const double fraction = std::frexp(std::abs(steps) / 1024.0, &exponent);  // [0.5, 1)
  const int magnitude = (exponent + 14) << 10 | (int(fraction * 2048) & 1023);
  return uint16_t(magnitude | (steps < 0 ? 0x8000 : 0));
}

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kGelu:
      return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return x * 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

void add(Vec& to, const Vec& from, double factor = 1) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += factor * from[i];
}

double dot(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Softmax over `scores`, and a sink's logit where there is one, times the values.
Vec mix(const Vec& scores, const double* sink, const std::vector<const double*>& values, int dim) {
  double most = sink ? *sink : -INFINITY;
  for (const double score : scores) most = std::max(most, score);
  double total = sink ? std::exp(*sink - most) : 0;
  Vec out(size_t(dim), 0.0);
  for (size_t j = 0; j < scores.size(); ++j) {
    const double e = std::exp(scores[j] - most);
    total += e;
    for (int d = 0; d < dim; ++d) out[size_t(d)] += e * values[j][d];
  }
  for (double& x : out) x /= total;
  return out;
}

}  // namespace

TensorRef MemoryWeights::add(const std::string& name, int64_t rows, int64_t cols, DType dtype, float mean,
                             float deviation) {
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
      const uint16_t half = half_of_steps(steps);
      append(stored.bytes, &half, 2);
      stored.values.push_back(steps / 1024.0);
    }
  }
  return {.name = name, .rows = rows, .cols = cols, .dtype = dtype};
}

Vec MemoryWeights::values(const TensorRef& ref) const {
  const Vec& all = tensors_.at(ref.name).values;
  const int64_t row_stride = ref.row_stride > 0 ? ref.row_stride : ref.cols;
  Vec out;
  for (int64_t r = 0; r < ref.rows; ++r)
    for (int64_t c = 0; c < ref.cols; ++c)
      out.push_back(all[size_t(ref.element_offset + r * row_stride + c * ref.col_stride)]);
  return out;
}

Result<TensorView> MemoryWeights::view(const TensorRef& ref) const {
  const Stored& stored = tensors_.at(ref.name);
  const int64_t size = stored.dtype == DType::kF32 ? 4 : 2;
  return TensorView{stored.bytes.data() + 1 + ref.element_offset * size, stored.dtype, ref.rows, ref.cols};
}

std::vector<Vec> NaiveModel::logits(std::span<const TokenId> tokens) {
  const Vec table = weights_.values(plan_.embedding);
  Sequence hidden;
  for (const TokenId id : tokens) {
    hidden.emplace_back(table.begin() + id * plan_.hidden, table.begin() + (id + 1) * plan_.hidden);
    for (double& x : hidden.back()) x *= plan_.embedding_scale;
  }
  ids_.assign(plan_.rows.size(), {});
  int row = 0;
  for (const LayerPlan& layer : plan_.layers) {
    Sequence later(tokens.size(), Vec(size_t(plan_.hidden), 0.0));
    for (const Sublayer& sublayer : layer.sublayers)
      run_sublayer(sublayer, sublayer.routed() ? row++ : -1, hidden, later);
    for (size_t t = 0; t < tokens.size(); ++t) add(hidden[t], later[t]);
  }
  Vec columns(size_t(plan_.hidden), 1.0);
  if (plan_.normalised_head) {
    const Vec head = weights_.values(plan_.lm_head);
    for (size_t c = 0; c < columns.size(); ++c) {
      double squares = 0;
      for (size_t at = c; at < head.size(); at += columns.size()) squares += head[at] * head[at];
      columns[c] = std::sqrt(squares) + 1e-7;
    }
  }
  std::vector<Vec> out;
  for (const Vec& h : hidden) {
    Vec x = norm(plan_.final_norm, h);
    for (size_t i = 0; i < x.size(); ++i) x[i] /= columns[i];
    out.push_back(times(plan_.lm_head, plan_.lm_head_bias, x));
    for (double& logit : out.back()) logit *= plan_.logit_scale;
  }
  return out;
}

Vec NaiveModel::times(const TensorRef& weight, const TensorRef& bias, const Vec& x) const {
  const Vec w = weights_.values(weight);
  Vec out = bias ? weights_.values(bias) : Vec(size_t(weight.rows), 0.0);
  for (int64_t r = 0; r < weight.rows; ++r)
    out[size_t(r)] += dot(&w[size_t(r * weight.cols)], x.data(), int(weight.cols));
  return out;
}

Vec NaiveModel::norm(const NormSpec& spec, const Vec& x) const {
  if (spec.kind == NormKind::kNone) return x;
  double mean = 0, squares = 0;
  if (spec.kind == NormKind::kLayerNorm)
    for (const double v : x) mean += v / double(x.size());
  for (const double v : x) squares += (v - mean) * (v - mean);
  const double factor = 1 / std::sqrt(squares / double(x.size()) + spec.eps);
  const Vec weight = spec.weight ? weights_.values(spec.weight) : Vec(x.size(), 1.0);
  const Vec bias = spec.bias ? weights_.values(spec.bias) : Vec(x.size(), 0.0);
  Vec out;
  for (size_t i = 0; i < x.size(); ++i)
    out.push_back((x[i] - mean) * factor * (weight[i] + (spec.kind == NormKind::kRmsOnePlus ? 1 : 0)) + bias[i]);
  return out;
}

void NaiveModel::norm_parts(const NormSpec& spec, size_t width, Vec& x) const {
  for (size_t at = 0; at < x.size(); at += width) {
    const Vec part = norm(spec, Vec(x.begin() + long(at), x.begin() + long(at + width)));
    std::copy(part.begin(), part.end(), x.begin() + long(at));
  }
}

void NaiveModel::rotate(const RopeSpec& rope, size_t position, double* head) const {
  const int pairs = rope.dims / 2;
  for (int i = 0; rope.kind != RopeKind::kNone && i < pairs; ++i) {
    const bool half = rope.kind == RopeKind::kHalf;
    double& first = head[half ? i : 2 * i];
    double& second = head[half ? i + pairs : 2 * i + 1];
    const double angle = double(position) * rope.inv_freq[size_t(i)], c = std::cos(angle) * rope.attention_factor,
                 s = std::sin(angle) * rope.attention_factor;
    const double turned = first * c - second * s;
    second = second * c + first * s;
    first = turned;
  }
}

void NaiveModel::run_sublayer(const Sublayer& sublayer, int row, Sequence& hidden, Sequence& later) {
  Sequence in;
  for (const Vec& h : hidden) in.push_back(norm(sublayer.norm, h));
  const Sequence made = run_op(sublayer, row, in);
  const Vec base = sublayer.base_weight ? weights_.values(sublayer.base_weight) : Vec(size_t(plan_.hidden), 1.0);
  for (size_t t = 0; t < hidden.size(); ++t) {
    const Vec y = norm(sublayer.post_norm, made[t]);
    if (sublayer.deferred) {
      add(later[t], y, sublayer.scale);
      continue;
    }
    for (size_t i = 0; i < y.size(); ++i)
      hidden[t][i] =
          sublayer.base_scale * base[i] * (sublayer.base_is_normed ? in[t][i] : hidden[t][i]) + sublayer.scale * y[i];
  }
}

NaiveModel::Sequence NaiveModel::run_op(const Sublayer& sublayer, int row, const Sequence& in) {
  if (const auto* attention = std::get_if<AttentionSpec>(&sublayer.op)) return attend(*attention, in);
  if (const auto* latent = std::get_if<LatentAttentionSpec>(&sublayer.op)) return attend(*latent, in);
  Sequence out;
  for (const Vec& x : in) {
    const auto* moe = std::get_if<MoeSpec>(&sublayer.op);
    out.push_back(moe ? mixture(*moe, row, x)
                      : feed(std::get<FfnSpec>(sublayer.op), std::get<FfnSpec>(sublayer.op).weights, x));
  }
  return out;
}

// A projection with its bias; for queries and keys norm, clip, rope, late norm; for values the clip alone.
Vec NaiveModel::heads(const AttentionSpec& spec, const TensorRef& weight, const TensorRef& bias,
                      const NormSpec* norm_spec, size_t position, const Vec& x) const {
  Vec out = times(weight, bias, x);
  if (norm_spec && spec.qk_norm == QkNorm::kFullVector) norm_parts(*norm_spec, out.size(), out);
  if (norm_spec && spec.qk_norm == QkNorm::kPerHead) norm_parts(*norm_spec, size_t(spec.head_dim), out);
  if (spec.clip_qkv > 0)
    for (double& v : out) v = std::clamp<double>(v, -spec.clip_qkv, spec.clip_qkv);
  if (!norm_spec) return out;
  for (size_t at = 0; at < out.size(); at += size_t(spec.head_dim)) rotate(spec.rope, position, &out[at]);
  if (spec.qk_norm == QkNorm::kPerHeadPostRope) norm_parts(*norm_spec, size_t(spec.head_dim), out);
  if (spec.qk_norm == QkNorm::kL2PostRope)
    norm_parts({.kind = NormKind::kRms, .eps = norm_spec->eps}, size_t(spec.head_dim), out);
  return out;
}

NaiveModel::Sequence NaiveModel::attend(const AttentionSpec& spec, const Sequence& in) const {
  const int dim = spec.head_dim;
  Sequence k, v, out;
  const Vec sinks = spec.sinks ? weights_.values(spec.sinks) : Vec();
  for (size_t t = 0; t < in.size(); ++t) {
    Vec q = heads(spec, spec.q, spec.q_bias, &spec.q_norm, t, in[t]);
    k.push_back(heads(spec, spec.k, spec.k_bias, &spec.k_norm, t, in[t]));
    v.push_back(heads(spec, spec.v, spec.v_bias, nullptr, t, in[t]));
    if (spec.temperature_floor > 0)
      for (double& x : q)
        x *= 1 + spec.temperature_scale * std::log1p(std::floor(double(t + 1) / spec.temperature_floor));
    const auto visible = [&](size_t j) {
      const int i = int(t), key = int(j);
      return (spec.sliding_window == 0 || key > i - spec.sliding_window) &&
             (spec.chunk == 0 || key / spec.chunk == i / spec.chunk);
    };
    Vec mixed;
    for (int head = 0; head < spec.heads; ++head) {
      const int from = head / (spec.heads / spec.kv_heads) * dim;
      Vec scores;
      std::vector<const double*> values;
      for (size_t j = 0; j <= t; ++j) {
        if (!visible(j)) continue;
        scores.push_back(dot(&q[size_t(head * dim)], &k[j][size_t(from)], dim) * spec.scale);
        values.push_back(&v[j][size_t(from)]);
      }
      const Vec one = mix(scores, sinks.empty() ? nullptr : &sinks[size_t(head)], values, dim);
      mixed.insert(mixed.end(), one.begin(), one.end());
    }
    if (spec.gate) {
      const Vec gates = times(spec.gate, {}, in[t]);
      for (size_t i = 0; i < mixed.size(); ++i) mixed[i] *= sigmoid(gates[i]);
    }
    out.push_back(times(spec.o, spec.o_bias, mixed));
  }
  return out;
}

// Keys and values expanded from the latents, as families.md 1.5 says it.
NaiveModel::Sequence NaiveModel::attend(const LatentAttentionSpec& spec, const Sequence& in) const {
  const int nope = spec.nope_dim, rope = spec.rope_dim, dim = nope + rope, value = spec.value_dim;
  std::vector<Sequence> k, v;  // [token][head]
  Sequence out;
  for (size_t t = 0; t < in.size(); ++t) {
    Vec q = spec.q_a ? times(spec.q, {}, norm(spec.q_a_norm, times(spec.q_a, spec.q_a_bias, in[t])))
                     : times(spec.q, {}, in[t]);
    for (double& x : q) x *= spec.q_scale;
    const Vec low = times(spec.kv_a, spec.kv_a_bias, in[t]);
    Vec latent = norm(spec.kv_a_norm, Vec(low.begin(), low.begin() + spec.kv_rank));
    for (double& x : latent) x *= spec.latent_scale;
    Vec turned(low.begin() + spec.kv_rank, low.end());
    rotate(spec.rope, t, turned.data());
    const Vec expanded = times(spec.kv_b, {}, latent);
    k.emplace_back();
    v.emplace_back();
    for (int head = 0; head < spec.heads; ++head) {
      const auto at = expanded.begin() + head * (nope + value);
      k[t].emplace_back(at, at + nope);
      k[t].back().insert(k[t].back().end(), turned.begin(), turned.end());
      v[t].emplace_back(at + nope, at + nope + value);
    }
    Vec mixed;
    for (int head = 0; head < spec.heads; ++head) {
      rotate(spec.rope, t, &q[size_t(head * dim + nope)]);
      Vec scores;
      std::vector<const double*> values;
      for (size_t j = 0; j <= t; ++j) {
        scores.push_back(dot(&q[size_t(head * dim)], k[j][size_t(head)].data(), dim) * spec.scale);
        values.push_back(v[j][size_t(head)].data());
      }
      const Vec one = mix(scores, nullptr, values, value);
      mixed.insert(mixed.end(), one.begin(), one.end());
    }
    out.push_back(times(spec.o, spec.o_bias, mixed));
  }
  return out;
}

Vec NaiveModel::feed(const FfnShape& shape, const FfnWeights& weights, const Vec& x) const {
  Vec up = times(weights.up, weights.up_bias, x);
  const Vec gate = weights.gate ? times(weights.gate, weights.gate_bias, x) : Vec(up.size(), 0.0);
  for (size_t i = 0; i < up.size(); ++i) {
    const double g = std::min<double>(gate[i], shape.limit), u = std::clamp<double>(up[i], -shape.limit, shape.limit);
    if (shape.kind == FfnKind::kMlp) up[i] = activate(shape.activation, up[i]);
    if (shape.kind == FfnKind::kGlu) up[i] *= activate(shape.activation, gate[i]);
    if (shape.kind == FfnKind::kGluOss) up[i] = (u + 1) * g * sigmoid(shape.alpha * g);
  }
  return times(weights.down, weights.down_bias, up);
}

// The decision is route()'s, which its own room proves; what is done with it is checked here.
Vec NaiveModel::mixture(const MoeSpec& moe, int row, const Vec& x) {
  const Vec z = times(moe.router_weight, moe.router_bias, x);
  const auto floats = [&](const TensorRef& ref) {
    if (!ref) return std::vector<float>();
    const Vec values = weights_.values(ref);
    return std::vector<float>(values.begin(), values.end());
  };
  const size_t experts = size_t(moe.router.experts);
  const std::vector<float> logits(z.begin(), z.end());
  std::vector<float> scratch(4 * experts), weights(experts);
  std::vector<ExpertId> chosen(experts);
  std::vector<SlotKind> kinds(experts);
  const LayerRecipe* recipe = recipe_.layer(row);
  const std::vector<float> router_bias = floats(moe.router_bias), select_bias = floats(moe.select_bias);
  const Decision decision =
      route(moe.router, recipe, {.logits = logits, .router_bias = router_bias, .select_bias = select_bias}, scratch,
            {chosen, weights, kinds});
  Vec out = moe.output_bias ? weights_.values(moe.output_bias) : Vec(x.size(), 0.0);
  for (int slot = 0; slot < decision.k_used; ++slot) {
    const ExpertId id = chosen[size_t(slot)];
    const bool to_input = moe.router.apply == ApplyTo::kInput;
    const double scale = recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[id] : 1.0;
    Vec in = x;
    for (double& v : in) v *= to_input ? weights[size_t(slot)] : 1.0;
    const Vec y = id < moe.experts.size() ? feed(moe.expert, moe.experts[id], in) : in;
    add(out, y, scale * (to_input ? 1.0 : weights[size_t(slot)]));
  }
  if (moe.shared) {
    const double gate = moe.shared_gate ? sigmoid(times(moe.shared_gate, {}, x)[0]) : 1.0;
    add(out, feed(*moe.shared, moe.shared->weights, x), gate);
  }
  chosen.resize(size_t(decision.k_used));
  std::sort(chosen.begin(), chosen.end());
  ids_[size_t(row)].push_back(chosen);
  return out;
}

}  // namespace switchyard::testing
