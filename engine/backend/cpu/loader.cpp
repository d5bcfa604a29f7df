// See loader.h.
#include "engine/backend/cpu/loader.h"

#include <bit>
#include <cstring>
#include <string>

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

std::optional<Stored> stored_in_blocks(const TensorRef& ref) {
  if (!ref.quantised || ref.block_rows > 0 || ref.col_stride != 1 || ref.cols == 0) return std::nullopt;
  const QuantLayout& layout = *ref.quantised;
  const int64_t apart = ref.row_stride > 0 ? ref.row_stride : ref.cols;
  const auto whole = [&](Stored type) -> std::optional<Stored> {
    const int64_t elements = stored_block(type).elements;
    const bool aligned = ref.cols % elements == 0 && apart % elements == 0 && ref.element_offset % elements == 0;
    return aligned ? std::optional(type) : std::nullopt;
  };
  const bool rows = layout.cols > 0 && apart % layout.cols == 0 && ref.element_offset % layout.cols == 0 && ref.cols == layout.cols;
  switch (layout.kind) {
    case QuantKind::kGgml:
      if (layout.ggml == GgmlType::kQ8_0) return whole(Stored::kQ8_0);
      if (layout.ggml == GgmlType::kQ4_K) return whole(Stored::kQ4_K);
      if (layout.ggml == GgmlType::kMXFP4) return whole(Stored::kMxfp4);
      return std::nullopt;
    case QuantKind::kMxfp4:
      return rows ? whole(Stored::kMxfp4Apart) : std::nullopt;
    case QuantKind::kFp8: {  // one scale for many columns, whose number is a power of two or all of them
      const bool shift = layout.group >= layout.cols || (layout.group >= 16 && std::has_single_bit(uint64_t(layout.group)));
      const int64_t first = layout.cols > 0 ? ref.element_offset / layout.cols : 0;
      const bool in_step = apart == layout.cols && layout.unit > 0 && first % layout.block_rows == 0 &&
                           first % layout.unit + ref.rows <= layout.unit;
      return rows && shift && in_step ? whole(Stored::kFp8) : std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

uint64_t held_bytes(const TensorRef& ref) {
  if (const auto type = stored_in_blocks(ref)) {
    const StoredBlock block = stored_block(*type);
    return uint64_t(ref.elements() / block.elements * block.bytes);
  }
  return ref.in_place() ? uint64_t(ref.elements()) * uint64_t(bits(ref.dtype)) / 8 : decoded_bytes(ref);
}

unsigned char* Loader::reserve(size_t bytes) {
  copies_.push_back(std::make_unique_for_overwrite<unsigned char[]>(bytes));
  return copies_.back().get();
}

Result<void> Loader::matrix(const TensorRef& ref, Matrix& out) {
  if (const auto type = stored_in_blocks(ref)) return blocks(ref, *type, out);
  return plain_matrix(ref, out);
}

// The mapped bytes, and of FP8 the scales as floats.
Result<void> Loader::blocks(const TensorRef& ref, Stored type, Matrix& out) {
  const QuantLayout& layout = *ref.quantised;
  const StoredBlock block = stored_block(type);
  const int64_t apart = ref.row_stride > 0 ? ref.row_stride : ref.cols;
  out = {nullptr, type, ref.rows, ref.cols};
  out.apart = apart / block.elements * block.bytes;
  SY_TRY(const auto main, weights_.stored(ref));
  const int64_t begin = ref.element_offset / block.elements * block.bytes;
  const int64_t end = begin + (ref.rows - 1) * out.apart + ref.cols / block.elements * block.bytes;
  if (ref.rows > 0 && end > int64_t(main.size()))
    return fail(ErrorCode::kInternal, "the tensor has " + std::to_string(main.size()) + " bytes, " + std::to_string(end) + " are needed.", ref.name);
  out.data = reinterpret_cast<const unsigned char*>(main.data()) + begin;
  const int64_t first = layout.cols > 0 ? ref.element_offset / layout.cols : 0;
  if (type == Stored::kMxfp4Apart) {
    SY_TRY(const auto exponents, weights_.stored(layout.scales));
    const int64_t wide = layout.cols / block.elements, step = apart / layout.cols;
    if ((first + (ref.rows - 1) * step + 1) * wide > int64_t(exponents.size()))
      return fail(ErrorCode::kInternal, "there are too few exponents.", ref.name);
    out.scales = reinterpret_cast<const unsigned char*>(exponents.data()) + first * wide;
    out.scales_apart = step * wide;
  }
  if (type == Stored::kFp8) {
    SY_TRY(const std::vector<float> scales, weights_.scales(layout));
    const int64_t wide = (layout.cols + layout.group - 1) / layout.group;
    const int64_t high = (layout.unit + layout.block_rows - 1) / layout.block_rows;
    const int64_t from = (first / layout.unit * high + first % layout.unit / layout.block_rows) * wide;
    const int64_t count = (ref.rows + layout.block_rows - 1) / layout.block_rows * wide;
    if (from + count > int64_t(scales.size())) return fail(ErrorCode::kInternal, "there are too few scales.", ref.name);
    unsigned char* data = reserve(size_t(count) * sizeof(float));
    std::memcpy(data, scales.data() + from, size_t(count) * sizeof(float));
    out.scales = data;
    out.scales_apart = wide * int64_t(sizeof(float));
    out.scale_rows = layout.block_rows;
    out.scale_shift = layout.group >= layout.cols ? 62 : std::countr_zero(uint64_t(layout.group));
  }
  return {};
}

Result<void> Loader::plain_matrix(const TensorRef& ref, Matrix& out) {
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
  unsigned char* data = reserve(values.size() * size_t(stored_block(out.type).bytes));
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
  const int64_t bytes = stored_block(matrix.type).bytes, cols = matrix.cols;
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
