// See layers.h.
#include "engine/backend/reference/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "engine/routing/decision.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kQueryChunk = 256;  // bounds the score matrix: heads * 256 * keys floats

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {}) {
  return at::linear(x, weight, optional(bias));
}

// cos and sin of the positions [past, past + tokens), each [tokens, dims / 2].
struct Rotation {
  at::Tensor cos, sin;
};

Rotation rotation(const RopeSpec& spec, const at::Tensor& inv_freq, int64_t past, int64_t tokens) {
  const at::Tensor angles = at::outer(at::arange(past, past + tokens, inv_freq.options()), inv_freq);
  return {angles.cos() * spec.attention_factor, angles.sin() * spec.attention_factor};
}

// x: [heads, tokens, head_dim]; the first spec.dims of a head turn, the rest passes through.
at::Tensor rotate(const RopeSpec& spec, const Rotation& by, const at::Tensor& x) {
  const int64_t head_dim = x.size(-1);
  const at::Tensor turned = x.narrow(-1, 0, spec.dims);
  const bool half = spec.kind == RopeKind::kHalf;
  const at::Tensor a = half ? turned.narrow(-1, 0, spec.dims / 2) : turned.slice(-1, 0, std::nullopt, 2);
  const at::Tensor b = half ? turned.narrow(-1, spec.dims / 2, spec.dims / 2) : turned.slice(-1, 1, std::nullopt, 2);
  const at::Tensor out_a = a * by.cos - b * by.sin;
  const at::Tensor out_b = b * by.cos + a * by.sin;
  const at::Tensor out = half ? at::cat({out_a, out_b}, -1) : at::stack({out_a, out_b}, -1).flatten(-2);
  return spec.dims == head_dim ? out : at::cat({out, x.narrow(-1, spec.dims, head_dim - spec.dims)}, -1);
}

// One projected input as heads: [tokens, heads * head_dim] -> [heads, tokens, head_dim].
at::Tensor split_heads(const AttentionSpec& spec, at::Tensor x, int heads, const NormSpec* norm_spec,
                       const NormTensors* weights) {
  if (norm_spec && spec.qk_norm == QkNorm::kFullVector) x = norm(*norm_spec, *weights, x);
  x = x.view({x.size(0), heads, spec.head_dim});
  if (norm_spec && spec.qk_norm == QkNorm::kPerHead) x = norm(*norm_spec, *weights, x);
  if (spec.clip_qkv > 0) x = x.clamp(-spec.clip_qkv, spec.clip_qkv);
  return x.transpose(0, 1);
}

// Queries [heads, tokens, head_dim] at positions from `first` against the keys they may see.
at::Tensor attend(const AttentionSpec& spec, const at::Tensor& q, const KvLayer& kv, int64_t first) {
  const int64_t tokens = q.size(1), group = spec.heads / spec.kv_heads;
  const int64_t end = first + tokens;
  const int64_t begin = spec.sliding_window > 0 ? std::max<int64_t>(0, first - spec.sliding_window + 1) : 0;
  const at::Tensor k = kv.k.narrow(1, begin, end - begin);
  const at::Tensor v = kv.v.narrow(1, begin, end - begin);

  at::Tensor scores = q.reshape({spec.kv_heads, group * tokens, spec.head_dim}).bmm(k.transpose(1, 2)) * spec.scale;
  if (tokens > 1) {
    const auto options = at::TensorOptions().dtype(at::kLong);
    const at::Tensor i = at::arange(first, end, options).unsqueeze(1), j = at::arange(begin, end, options);
    at::Tensor hidden = j > i;
    if (spec.sliding_window > 0) hidden = hidden.logical_or(j <= i - spec.sliding_window);
    scores = scores.view({spec.kv_heads, group, tokens, end - begin})
                 .masked_fill(hidden, -std::numeric_limits<float>::infinity())
                 .view({spec.kv_heads, group * tokens, end - begin});
  }
  const at::Tensor mixed = at::softmax(scores, -1).bmm(v);  // [kv_heads, group * tokens, head_dim]
  return mixed.view({spec.heads, tokens, spec.head_dim})
      .transpose(0, 1)
      .reshape({tokens, int64_t(spec.heads) * spec.head_dim});
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kGelu:
      return at::gelu(x, "none");
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

std::span<const float> floats(const at::Tensor& vector) {
  if (!vector.defined()) return {};
  return {vector.const_data_ptr<float>(), size_t(vector.numel())};
}

// The rows that one expert works on and the weight of each, in token order.
struct Share {
  std::vector<int64_t> rows;
  std::vector<float> weights;
};

std::vector<Share> route_rows(const MoeSpec& spec, const MoeTensors& weights, const at::Tensor& logits, int moe_layer,
                              const LayerRecipe* recipe, std::span<RoutingFrame> frames) {
  const int experts = spec.router.experts, slots = slots_needed(spec.router, recipe);
  std::vector<ExpertId> ids(slots);
  std::vector<float> applied(slots), scratch(size_t(experts) * 4);
  std::vector<SlotKind> kinds(slots);
  std::vector<Share> shares(experts);
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const std::span<const float> raw{logits.const_data_ptr<float>() + row * experts, size_t(experts)};
    const Decision decision = route(spec.router, recipe, raw, floats(weights.router_bias), floats(weights.select_bias),
                                    scratch, {ids, applied, kinds});
    if (!frames.empty()) frames[row].record(moe_layer, decision, ids, applied, kinds, raw);
    for (int slot = 0; slot < decision.k_used; ++slot) {
      if (kinds[slot] != SlotKind::kRouted && kinds[slot] != SlotKind::kForced) continue;
      shares[ids[slot]].rows.push_back(row);
      shares[ids[slot]].weights.push_back(applied[slot]);
    }
  }
  return shares;
}

}  // namespace

at::Tensor norm(const NormSpec& spec, const NormTensors& weights, const at::Tensor& x) {
  if (spec.kind == NormKind::kLayerNorm) {
    return at::layer_norm(x, {x.size(-1)}, optional(weights.weight), optional(weights.bias), spec.eps);
  }
  const at::Tensor normed = x * (x.square().mean(-1, true) + spec.eps).rsqrt();
  // kRms and kRmsFp32Weight differ only in where they round to the model's dtype: equal in fp32.
  return spec.kind == NormKind::kRmsOnePlus ? normed * (weights.weight + 1) : weights.weight * normed;
}

at::Tensor attention(const AttentionSpec& spec, const AttentionTensors& weights, const at::Tensor& x, KvLayer& kv,
                     int64_t past) {
  const int64_t tokens = x.size(0);
  at::Tensor q = split_heads(spec, project(x, weights.q, weights.q_bias), spec.heads, &spec.q_norm, &weights.q_norm);
  at::Tensor k = split_heads(spec, project(x, weights.k, weights.k_bias), spec.kv_heads, &spec.k_norm, &weights.k_norm);
  const at::Tensor v = split_heads(spec, project(x, weights.v, weights.v_bias), spec.kv_heads, nullptr, nullptr);
  if (spec.rope.kind != RopeKind::kNone) {
    const Rotation by = rotation(spec.rope, weights.inv_freq, past, tokens);
    q = rotate(spec.rope, by, q);
    k = rotate(spec.rope, by, k);
  }
  kv.k.narrow(1, past, tokens).copy_(k);
  kv.v.narrow(1, past, tokens).copy_(v);

  std::vector<at::Tensor> parts;
  for (int64_t from = 0; from < tokens; from += kQueryChunk) {
    parts.push_back(attend(spec, q.narrow(1, from, std::min(kQueryChunk, tokens - from)), kv, past + from));
  }
  return project(parts.size() == 1 ? parts[0] : at::cat(parts), weights.o, weights.o_bias);
}

at::Tensor glu(Activation activation, const GluTensors& weights, const at::Tensor& x) {
  return project(activate(activation, project(x, weights.gate)) * project(x, weights.up), weights.down);
}

at::Tensor moe(const MoeSpec& spec, const MoeTensors& weights, const at::Tensor& x, int moe_layer,
               const LayerRecipe* recipe, std::span<RoutingFrame> frames) {
  const at::Tensor logits = project(x, weights.router, weights.router_bias).contiguous();
  std::vector<Share> shares = route_rows(spec, weights, logits, moe_layer, recipe, frames);
  at::Tensor out = at::zeros_like(x);
  for (size_t e = 0; e < shares.size(); ++e) {
    Share& share = shares[e];
    const auto count = int64_t(share.rows.size());
    if (count == 0) continue;
    const at::Tensor rows = at::from_blob(share.rows.data(), {count}, at::TensorOptions().dtype(at::kLong));
    const at::Tensor applied = at::from_blob(share.weights.data(), {count, 1});
    const at::Tensor in = x.index_select(0, rows);
    at::Tensor y = spec.router.apply == ApplyTo::kInput ? glu(spec.activation, weights.experts[e], in * applied)
                                                        : glu(spec.activation, weights.experts[e], in) * applied;
    if (recipe && !recipe->expert_scale.empty()) y = y * recipe->expert_scale[e];
    out.index_add_(0, rows, y);
  }
  return out;
}

}  // namespace switchyard::reference
