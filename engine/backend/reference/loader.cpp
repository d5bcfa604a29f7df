// See loader.h.
#include "engine/backend/reference/loader.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>

#include <optional>

#include "engine/backend/reference/math.h"

namespace switchyard::reference {

at::Tensor Loader::matrix(const TensorRef& ref) const {
  if (!ref) return {};
  if (task_ && task_->cancelled()) throw LoadError{{ErrorCode::kCancelled, "Loading was stopped."}};
  at::Tensor out = at::empty({ref.rows, ref.cols}, at::TensorOptions().dtype(at::kFloat));
  if (auto read = weights_.read(ref, out.data_ptr<float>()); !read) throw LoadError{read.error()};
  return out;
}

at::Tensor Loader::vector(const TensorRef& ref) const {
  return ref ? matrix(ref).reshape({-1}) : at::Tensor();
}

Norm Loader::norm(const NormSpec& spec) const {
  return {spec, vector(spec.weight), vector(spec.bias)};
}

at::Tensor Norm::operator()(const at::Tensor& x) const {
  if (spec.kind == NormKind::kNone) return x;
  if (spec.kind == NormKind::kLayerNorm)
    return at::layer_norm(x, {x.size(-1)}, optional(weight), optional(bias), spec.eps);
  const at::Tensor normed = x * (x.square().mean(-1, true) + spec.eps).rsqrt();
  if (!weight.defined()) return normed;
  // kRms and kRmsFp32Weight differ only in where they round to the model's dtype: equal in fp32.
  return spec.kind == NormKind::kRmsOnePlus ? normed * (weight + 1) : weight * normed;
}

}  // namespace switchyard::reference
