// See adapters.h.
#include "engine/backend/reference/adapters.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <vector>

#include "engine/backend/reference/math.h"
#include "engine/routing/adapter_rows.h"
#include "engine/routing/adapters.h"

namespace switchyard::reference {
namespace {

at::Tensor matrix_of(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return at::from_blob(const_cast<float*>(values.data()), {rows, cols});
}

}  // namespace

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Here& here) {
  const AdapterSet* set = here.step ? here.step->recipe->adapters_at(here.place) : nullptr;
  if (!set) return project(x, weight, bias);
  const AdaptedLinear& linear = set->linears.at(here.place);
  const at::Tensor in = x.contiguous();
  const int64_t rows = in.size(0);
  const at::Tensor low = in.matmul(matrix_of(linear.a, linear.rank, linear.in).t()).contiguous();
  at::Tensor coefficients = at::empty({rows, linear.rank}), base = at::empty({rows, 1});
  AdapterScratch scratch;
  std::vector<float> weights(size_t(linear.choices()));
  const int frame_row = row_of(here.step->adapter_rows, here.place);
  for (int64_t row = 0; row < rows; ++row) {
    const auto token = uint64_t(here.tokens.empty() ? row : here.tokens[size_t(row)]);
    const AdapterInput input{{in.const_data_ptr<float>() + row * linear.in, size_t(linear.in)},
                             {low.const_data_ptr<float>() + row * linear.rank, size_t(linear.rank)},
                             serves(set->rule, here.step->first_index + token, here.step->prompt)};
    base.data_ptr<float>()[row] =
        route_adapters(set->rule, linear, input, scratch, weights,
                       {coefficients.data_ptr<float>() + row * linear.rank, size_t(linear.rank)});
    if (here.step->adapter_log) here.step->adapter_log->take(here.place, weights);
    if (frame_row >= 0) record_adapters(here.step->frames[size_t(token)], frame_row, weights, scratch.scores);
  }
  const at::Tensor y =
      project(in, weight) * base + (low * coefficients).matmul(matrix_of(linear.b, linear.out, linear.rank).t());
  return bias.defined() ? y + bias : y;
}

}  // namespace switchyard::reference
