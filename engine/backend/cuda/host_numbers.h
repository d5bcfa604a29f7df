// Matrices of the device as floats of the host, and back: what edits of weights are made from. Engine thread.
#pragma once

#include <span>
#include <vector>

#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/tables.h"
#include "engine/model/dtype.h"

namespace switchyard::cuda {

DType stored_dtype(Stored type);
// [rows, cols], exact.
Result<std::vector<float>> numbers_on_host(Stream& stream, const Matrix& matrix);
// The bytes of numbers that the type holds exactly.
std::vector<unsigned char> as_stored(std::span<const float> values, Stored type);

}  // namespace switchyard::cuda
