// See recurrent.h.
#include "engine/backend/reference/recurrent.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

namespace switchyard::reference {

at::Tensor causal_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              at::Tensor& state) {
  const int64_t tokens = x.size(0), kernel = weight.size(1);
  if (!state.defined()) state = at::zeros({kernel - 1, x.size(1)}, x.options());
  const at::Tensor inputs = at::cat({state, x});
  at::Tensor out = inputs.narrow(0, 0, tokens) * weight.select(1, 0);
  for (int64_t tap = 1; tap < kernel; ++tap) out = out + inputs.narrow(0, tap, tokens) * weight.select(1, tap);
  state = inputs.narrow(0, tokens, kernel - 1).clone();
  return bias.defined() ? out + bias : out;
}

}  // namespace switchyard::reference
