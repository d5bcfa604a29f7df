// Grouped-query attention. See attention.h.
#include "engine/backend/cpu/attention.h"

#include "engine/backend/cpu/adapters.h"
#include "engine/model/linears.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace switchyard::cpu {
namespace {

// Norms every stretch of `width` values of x, which has n.
void norm_parts(const Step& step, const Norm& norm, float* x, int64_t n, int64_t width) {
  for (int64_t at = 0; at < n; at += width) step.normalise(norm, x + at, x + at, width);
}

// llama4: 1 + scale * log1p(floor((position + 1) / floor)).
float temperature(const Attention& spec, int position) {
  return 1 + spec.temperature_scale * std::log1p(std::floor(float(position + 1) / spec.temperature_floor));
}

}  // namespace

void GroupedAttention::run(const Step& step, const Attention& spec, const float* const* in, const Sum& sum) {
  const KeyShape& keys = spec.keys;
  shape_rows(step.count, keys.query_cols() + 2 * keys.key_cols(), qkv_, q_);
  shape_rows(step.count, keys.query_cols(), mixed_, mixed_out_);
  k_.resize(step.count);
  v_.resize(step.count);
  for (int token = 0; token < step.count; ++token) {
    k_[token] = q_[token] + keys.query_cols();
    v_[token] = k_[token] + keys.key_cols();
  }
  const bool gated = spec.gate.rows > 0;
  if (gated) shape_rows(step.count, keys.query_cols(), gate_, gate_out_);
  const std::array projections{Product{&spec.q, {step.count, in, q_.data(), nullptr}},
                               Product{&spec.k, {step.count, in, k_.data(), nullptr}},
                               Product{&spec.v, {step.count, in, v_.data(), nullptr}},
                               Product{&spec.gate, {step.count, in, gate_out_.data(), nullptr}}};
  step.multiply(std::span(projections).first(gated ? 4 : 3));
  step.adapters->complete(step, spec.place + kPlaceQ, in, q_.data());
  step.adapters->complete(step, spec.place + kPlaceK, in, k_.data());
  step.adapters->complete(step, spec.place + kPlaceV, in, v_.data());
  if (gated) step.adapters->complete(step, spec.place + kPlaceGate, in, gate_out_.data());
  step.for_tokens((keys.query_cols() + 2 * keys.key_cols()) * int64_t(sizeof(float)),
                  [&](int token, int) { finish_heads(step, spec, token); });
  attend_.run(step, keys, q_.data(), mixed_out_.data());
  if (gated)
    for (int token = 0; token < step.count; ++token)
      step.kernels.sigmoid_gate(gate_[token], mixed_[token], keys.query_cols());
  step.add_bias(spec.o_bias, sum);
  step.adapters->multiply(step, spec.o, spec.place + kPlaceO, mixed_out_.data(), sum);
}

// Bias, norm, clip, rope, late norm, temperature of one token, in this order (families.md 1.2, 1.4, 1.15,
// 1.18), then into the cache.
void GroupedAttention::finish_heads(const Step& step, const Attention& spec, int token) const {
  const KeyShape& keys = spec.keys;
  const bool late = spec.qk_norm == QkNorm::kPerHeadPostRope || spec.qk_norm == QkNorm::kL2PostRope;
  const bool whole = spec.qk_norm == QkNorm::kFullVector;
  const auto add = [](float* x, const std::vector<float>& bias) {
    for (size_t i = 0; i < bias.size(); ++i) x[i] += bias[i];
  };
  const auto clip = [&](float* x, int64_t n) {
    if (spec.clip > 0)
      for (int64_t i = 0; i < n; ++i) x[i] = std::clamp(x[i], -spec.clip, spec.clip);
  };
  const auto turn = [&](float* x, int64_t n, const std::vector<float>& bias, const Norm& norm, int heads) {
    add(x, bias);
    const int64_t width = whole ? n : keys.head_dim;
    if (!late) norm_parts(step, norm, x, n, width);
    clip(x, n);
    step.rotations.rotate(spec.rope, token, x, heads, keys.head_dim);
    if (late) norm_parts(step, norm, x, n, width);
  };
  float *q = q_[token], *k = k_[token], *v = v_[token];
  const int position = step.position + token;
  turn(q, keys.query_cols(), spec.q_bias, spec.q_norm, keys.heads);
  turn(k, keys.key_cols(), spec.k_bias, spec.k_norm, keys.kv_heads);
  add(v, spec.v_bias);
  clip(v, keys.key_cols());
  if (spec.temperature_floor > 0) {
    const float factor = temperature(spec, position);
    for (int64_t i = 0; i < keys.query_cols(); ++i) q[i] *= factor;
  }
  step.chunk->cache->write(step.part(keys), position, k, v);
}

}  // namespace switchyard::cpu
