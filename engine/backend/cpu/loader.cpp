// See loader.h.
#include "engine/backend/cpu/loader.h"

#include <cstring>

#include "engine/backend/cpu/isa.h"
#include "engine/model/quantised.h"

namespace switchyard::cpu {

std::optional<Stored> stored(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Stored::kF32;
    case DType::kBF16:
      return Stored::kBF16;
    case DType::kF16:
      return Stored::kF16;
    default:
      return std::nullopt;
  }
}

unsigned char* Loader::reserve(size_t bytes) {
  copies_.push_back(std::make_unique_for_overwrite<unsigned char[]>(bytes));
  return copies_.back().get();
}

Result<void> Loader::matrix(const TensorRef& ref, Matrix& out) {
  if (!ref) return {};
  if (!ref.in_place()) return copy(ref, out);
  SY_TRY(const TensorView view, weights_.view(ref));
  const auto type = stored(view.dtype);
  if (!type)
    return fail(ErrorCode::kInternal,
                "the cpu backend does not read " + std::string(switchyard::name(view.dtype)) + ".", ref.name);
  out = {reinterpret_cast<const unsigned char*>(view.data), *type, view.rows, view.cols};
  return {};
}

Result<void> Loader::copy(const TensorRef& ref, Matrix& out) {
  const Key key{ref.name, ref.rows, ref.cols, ref.element_offset, ref.row_stride, ref.col_stride};
  if (const auto found = copied_.find(key); found != copied_.end()) {
    out = found->second;
    return {};
  }
  std::vector<float> values(size_t(ref.elements()));
  SY_CHECK(weights_.read(ref, values.data()));
  // By the kind of storage, not by the values, so that estimate_memory() knows it before loading. int4, FP8 and GGUF
  // blocks are products of a stored number and a scale, which bf16 would round away from what the file says.
  out = {nullptr, stored(exact_dtype(ref)).value_or(Stored::kF32), ref.rows, ref.cols};
  unsigned char* data = reserve(values.size() * size_t(stored_bytes(out.type)));
  if (out.type == Stored::kF32) {
    std::memcpy(data, values.data(), values.size() * sizeof(float));
  } else {
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = out.type == Stored::kBF16 ? exact_bf16(values[i]) : exact_f16(values[i]);
      std::memcpy(data + i * sizeof(half), &half, sizeof(half));
    }
  }
  out.data = data;
  copied_[key] = out;
  return {};
}

Result<void> Loader::vector(const TensorRef& ref, std::vector<float>& out) {
  if (!ref) return {};
  out.resize(size_t(ref.elements()));
  return weights_.read(ref, out.data());
}

Result<void> Loader::norm(const NormSpec& spec, int64_t size, Norm& out) {
  if (spec.kind == NormKind::kNone) return {};
  out.kind = spec.kind == NormKind::kLayerNorm ? Norm::Kind::kLayer : Norm::Kind::kRms;
  out.eps = spec.eps;
  SY_CHECK(vector(spec.weight, out.weight));
  if (!spec.weight) out.weight.assign(size_t(size), spec.kind == NormKind::kRmsOnePlus ? 0.0f : 1.0f);
  if (spec.kind == NormKind::kRmsOnePlus)
    for (float& w : out.weight) w += 1.0f;
  SY_CHECK(vector(spec.bias, out.bias));
  if (out.kind == Norm::Kind::kLayer) out.bias.resize(size_t(size), 0.0f);
  return {};
}

Matrix Loader::transposed_blocks(const Matrix& matrix, int heads, int64_t rows, int64_t apart) {
  const int64_t bytes = stored_bytes(matrix.type), cols = matrix.cols;
  unsigned char* data = reserve(size_t(heads * rows * cols * bytes));
  for (int head = 0; head < heads; ++head) {
    const unsigned char* from = matrix.data + head * apart * cols * bytes;
    unsigned char* to = data + head * rows * cols * bytes;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        std::memcpy(to + (c * rows + r) * bytes, from + (r * cols + c) * bytes, size_t(bytes));
  }
  return {data, matrix.type, heads * cols, rows};
}

}  // namespace switchyard::cpu
