// See math.h. Rope: specs/families.md 1.0.
#include "engine/backend/reference/math.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "engine/model/rope.h"

namespace switchyard::reference {

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight, optional(bias));
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

Rotation rotation(const RopeSpec& spec, int64_t past, int64_t tokens, int64_t length) {
  RopeFrequencies in_force = rope_frequencies(spec, length);
  const at::Tensor inv_freq = at::from_blob(in_force.inv_freq.data(), {int64_t(in_force.inv_freq.size())});
  const at::Tensor angles = at::outer(at::arange(past, past + tokens, inv_freq.options()), inv_freq);
  return {angles.cos() * in_force.attention_factor, angles.sin() * in_force.attention_factor};
}

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

at::Tensor sinusoids(const at::Tensor& ids, int64_t past, int padding_id, int64_t hidden) {
  const int64_t half = hidden / 2;
  const at::Tensor counts = ids.ne(padding_id).to(at::kLong);
  const at::Tensor position = (counts.cumsum(0) + past) * counts + padding_id;
  const at::Tensor steps = at::arange(half, at::TensorOptions().dtype(at::kFloat));
  const at::Tensor angles = at::outer(position.to(at::kFloat), (steps * -(std::log(10000.0) / double(half - 1))).exp());
  at::Tensor out = at::cat({angles.sin(), angles.cos()}, 1) * counts.unsqueeze(1);
  return hidden % 2 ? at::cat({out, at::zeros({ids.size(0), 1})}, 1) : out;
}

void reserve(at::Tensor& cache, int64_t heads, int64_t dim, int64_t past, int64_t needed) {
  const int64_t room = cache.defined() ? cache.size(1) : 0;
  if (needed <= room) return;
  at::Tensor grown = at::empty({heads, std::max<int64_t>({needed, 2 * room, 64}), dim});
  if (past > 0) grown.narrow(1, 0, past).copy_(cache.narrow(1, 0, past));
  cache = grown;
}

}  // namespace switchyard::reference
