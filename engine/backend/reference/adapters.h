// Linear layers with the adapters of the recipe in force (engine/routing/adapters.h). Engine thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "engine/backend/reference/op.h"

namespace switchyard::reference {

// Where a product stands.
struct Here {
  const Step* step = nullptr;       // null: no adapters
  int place = 0;                    // engine/model/linears.h
  std::span<const int64_t> tokens;  // of the step, whose inputs the rows are; empty: in order
};

// y = c W x + the adapters' part + bias: [rows, out] of x [rows, in].
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Here& here);

}  // namespace switchyard::reference
