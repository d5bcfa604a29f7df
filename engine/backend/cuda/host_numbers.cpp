// See host_numbers.h.
#include "engine/backend/cuda/host_numbers.h"

#include <cstring>

namespace switchyard::cuda {

DType stored_dtype(Stored type) {
  return type == Stored::kBF16 ? DType::kBF16 : type == Stored::kF16 ? DType::kF16 : DType::kF32;
}

Result<std::vector<float>> numbers_on_host(Stream& stream, const Matrix& matrix) {
  std::vector<float> out(size_t(matrix.rows) * size_t(matrix.cols));
  std::vector<unsigned char> bytes(out.size() * size_t(stored_bytes(matrix.type)));
  SY_CHECK(copy(stream, bytes.data(), matrix.data, bytes.size(), "weights"));
  SY_CHECK(wait(stream, "weights"));
  if (matrix.type == Stored::kF32) {
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    out[i] = matrix.type == Stored::kBF16 ? float_of_bf16(half) : float_of_f16(half);
  }
  return out;
}

std::vector<unsigned char> as_stored(std::span<const float> values, Stored type) {
  std::vector<unsigned char> out(values.size() * size_t(stored_bytes(type)));
  if (type == Stored::kF32) {
    std::memcpy(out.data(), values.data(), out.size());
    return out;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = type == Stored::kBF16 ? exact_bf16(values[i]) : exact_f16(values[i]);
    std::memcpy(out.data() + 2 * i, &half, 2);
  }
  return out;
}

}  // namespace switchyard::cuda
