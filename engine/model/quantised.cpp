// Decoding of tensors that are not stored element by element.
#include "engine/model/quantised.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

using Byte = unsigned char;

template <class T>
T load(const Byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

const Byte* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const Byte*>(bytes.data());
}

tl::unexpected<Error> not_rows(const QuantLayout& layout, int64_t first, int64_t count) {
  return fail(ErrorCode::kInternal,
              fmt::format("elements {} to {} are not whole rows of {} in {}.", first, first + count, layout.cols,
                          layout.label));
}

// The group of each column: stored, or column / group.
Result<std::vector<int32_t>> column_groups(const QuantLayout& layout, int64_t groups, const ReadBytes& bytes) {
  std::vector<int32_t> out(static_cast<size_t>(layout.cols));
  if (!layout.order) {
    for (int64_t c = 0; c < layout.cols; ++c) out[static_cast<size_t>(c)] = static_cast<int32_t>(c / layout.group);
    return out;
  }
  SY_TRY(const auto data, bytes(layout.order));
  for (int64_t c = 0; c < layout.cols; ++c) {
    const auto group = load<int32_t>(raw(data) + 4 * c);
    if (group < 0 || group >= groups)
      return fail(ErrorCode::kMalformed,
                  fmt::format("the group index of column {} is {}, the tensor has {} groups.", c, group, groups), {},
                  "The file is damaged: download it again.");
    out[static_cast<size_t>(c)] = group;
  }
  return out;
}

struct Rows {
  int64_t first = 0, count = 0;
};

// E4M3: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, 0x7F is NaN.
const std::array<float, 256>& fp8_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table{};
    for (int i = 0; i < 256; ++i) {
      const int exponent = i >> 3 & 15, mantissa = i & 7;
      float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                  : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
      if ((i & 0x7F) == 0x7F) value = std::nanf("");
      table[static_cast<size_t>(i)] = i & 0x80 ? -value : value;
    }
    return table;
  }();
  return values;
}

// Blocks start anew in each matrix of a packed tensor: block_rows counts from its first row, which `unit` gives.
Result<void> decode_fp8(const QuantLayout& layout, std::span<const std::byte> main, const ReadBytes& bytes, Rows rows,
                        float* out) {
  SY_TRY(const std::vector<float> scales, stored_scales(layout.scales, bytes));
  const auto& values = fp8_values();
  const int64_t per_matrix = layout.unit, cols = layout.cols;
  const int64_t wide = (cols + layout.group - 1) / layout.group;
  const int64_t high = (per_matrix + layout.block_rows - 1) / layout.block_rows;
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    const float* scale = scales.data() + (r / per_matrix * high + r % per_matrix / layout.block_rows) * wide;
    const Byte* at = raw(main) + r * cols;
    for (int64_t block = 0; block < wide; ++block) {
      const int64_t end = std::min((block + 1) * layout.group, cols);
      for (int64_t c = block * layout.group; c < end; ++c) *out++ = values[at[c]] * scale[block];
    }
  }
  return {};
}

Result<void> decode_mxfp4(const QuantLayout& layout, std::span<const std::byte> main, const ReadBytes& bytes, Rows rows,
                          float* out) {
  constexpr std::array<float, 16> kE2M1{0,    0.5f,  1,  1.5f,  2,  3,  4,  6,
                                        -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  SY_TRY(const auto exponents, bytes(layout.scales));
  const int64_t blocks = layout.cols / 32;
  for (int64_t b = rows.first * blocks; b < (rows.first + rows.count) * blocks; ++b) {
    const float scale = float_of_e8m0(raw(exponents)[b]);
    const Byte* at = raw(main) + 16 * b;
    for (int i = 0; i < 16; ++i) {
      *out++ = kE2M1[at[i] & 15] * scale;
      *out++ = kE2M1[at[i] >> 4] * scale;
    }
  }
  return {};
}

constexpr int64_t kTile = 64;  // rows decoded together: their words of one column lie side by side

// Scales and zero points of rows [first, first + count) of a tensor that stores them [groups, rows].
struct Tile {
  std::vector<float> scale, zero;  // [groups, kTile]
};
Result<void> fill_tile(const QuantLayout& layout, const std::vector<float>& scales, const Byte* zeros, int64_t first,
                       int64_t count, const std::array<int, 8>& nibble_of, Tile& tile) {
  const auto groups = static_cast<int64_t>(scales.size()) / layout.rows;
  tile.scale.resize(static_cast<size_t>(groups * kTile));
  tile.zero.resize(static_cast<size_t>(groups * kTile));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first + i;
      int zero = 8;
      if (zeros) {
        const auto word = load<uint32_t>(zeros + 4 * (g * (layout.rows / 8) + row / 8));
        zero = static_cast<int>(word >> (4 * nibble_of[static_cast<size_t>(row % 8)]) & 15) + layout.zero_offset;
        if (layout.zero_wraps) zero &= 15;
      }
      tile.scale[static_cast<size_t>(g * kTile + i)] = scales[static_cast<size_t>(g * layout.rows + row)];
      tile.zero[static_cast<size_t>(g * kTile + i)] = static_cast<float>(zero);
    }
  return {};
}

constexpr std::array<int, 8> kInOrder{0, 1, 2, 3, 4, 5, 6, 7};
// AWQ packs rows 0 2 4 6 1 3 5 7 of eight into the nibbles of a word, lowest first.
constexpr std::array<int, 8> kAwqNibble{0, 4, 1, 5, 2, 6, 3, 7};

Result<void> decode_columns_packed(const QuantLayout& layout, std::span<const std::byte> main, const ReadBytes& bytes,
                                   Rows rows, float* out) {
  const bool awq = layout.kind == QuantKind::kAwq;
  const std::array<int, 8>& nibble_of = awq ? kAwqNibble : kInOrder;
  SY_TRY(const std::vector<float> scales, stored_scales(layout.scales, bytes));
  SY_TRY(const std::vector<int32_t> group_of,
         column_groups(layout, static_cast<int64_t>(scales.size()) / layout.rows, bytes));
  const Byte* zeros = nullptr;
  if (layout.zeros) {
    SY_TRY(const auto data, bytes(layout.zeros));
    zeros = raw(data);
  }
  Tile tile;
  for (int64_t first = rows.first; first < rows.first + rows.count; first += kTile) {
    const int64_t count = std::min(kTile, rows.first + rows.count - first);
    SY_CHECK(fill_tile(layout, scales, zeros, first, count, nibble_of, tile));
    float* tile_out = out + (first - rows.first) * layout.cols;
    for (int64_t c = 0; c < layout.cols; ++c) {
      const float* scale = tile.scale.data() + group_of[static_cast<size_t>(c)] * kTile;
      const float* zero = tile.zero.data() + group_of[static_cast<size_t>(c)] * kTile;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = first + i;
        const int64_t word = awq ? c * (layout.rows / 8) + row / 8 : c / 8 * layout.rows + row;
        const int nibble = awq ? nibble_of[static_cast<size_t>(row % 8)] : static_cast<int>(c % 8);
        const auto q = static_cast<float>(load<uint32_t>(raw(main) + 4 * word) >> (4 * nibble) & 15);
        tile_out[i * layout.cols + c] = (q - zero[i]) * scale[i];
      }
    }
  }
  return {};
}

Result<void> decode_packed_int4(const QuantLayout& layout, std::span<const std::byte> main, const ReadBytes& bytes,
                                Rows rows, float* out) {
  SY_TRY(const std::vector<float> scales, stored_scales(layout.scales, bytes));
  const auto groups = static_cast<int64_t>(scales.size()) / layout.rows;
  SY_TRY(const std::vector<int32_t> group_of, column_groups(layout, groups, bytes));
  const Byte* zeros = nullptr;
  if (layout.zeros) {
    SY_TRY(const auto data, bytes(layout.zeros));
    zeros = raw(data);
  }
  const int64_t words = (layout.cols + 7) / 8;
  std::vector<float> zero(static_cast<size_t>(groups), 8.0f);
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    if (zeros)
      for (int64_t g = 0; g < groups; ++g)
        zero[static_cast<size_t>(g)] =
            static_cast<float>(load<uint32_t>(zeros + 4 * (r / 8 * groups + g)) >> (4 * (r % 8)) & 15);
    const Byte* at = raw(main) + 4 * r * words;
    for (int64_t c = 0; c < layout.cols; ++c) {
      const auto group = static_cast<size_t>(group_of[static_cast<size_t>(c)]);
      const int q = at[c / 2] >> (4 * (c % 2)) & 15;  // little-endian words: nibble c of the row
      *out++ = (static_cast<float>(q) - zero[group]) * scales[static_cast<size_t>(r * groups) + group];
    }
  }
  return {};
}

// Elements of a tensor in GGUF blocks; first and count fall on block borders where rows do.
void decode_blocks(GgmlType type, std::span<const std::byte> main, int64_t first, int64_t count, float* out) {
  const GgmlBlock& block = ggml_block(type);
  decode_ggml(type, main.data() + first / block.elements * block.bytes, count / block.elements, out);
}

// Stored: within each head of `per` rows, row 2i is row i and row 2i + 1 is row per/2 + i.
void decode_head_rows(const QuantLayout& layout, std::span<const std::byte> main, Rows rows, float* out) {
  const int64_t per = layout.rows / layout.heads, half = per / 2;
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r, out += layout.cols) {
    const int64_t head = r / per, at = r % per;
    const int64_t stored = head * per + (at < half ? 2 * at : 2 * (at - half) + 1);
    decode_blocks(layout.ggml, main, stored * layout.cols, layout.cols, out);
  }
}

Result<void> decode_interleaved(const QuantLayout& layout, std::span<const std::byte> main, const ReadBytes& bytes,
                                int64_t first, int64_t count, float* out) {
  SY_TRY(const auto second, bytes(layout.second));
  const int64_t unit = layout.unit;
  if (first % unit != 0 || count % unit != 0) return not_rows(layout, first, count);
  for (int64_t u = first / unit; u < (first + count) / unit; ++u, out += unit)
    decode_blocks(u % 2 == 0 ? layout.ggml : layout.second_ggml, u % 2 == 0 ? main : second, u / 2 * unit, unit, out);
  return {};
}

// Rows of a head: `nope` of k_b, stored transposed as [cols, nope], then `value` of v_b.
Result<void> decode_latent_pair(const QuantLayout& layout, std::span<const std::byte> main, const ReadBytes& bytes,
                                Rows rows, float* out) {
  SY_TRY(const auto values, bytes(layout.second));
  const int64_t per = layout.nope + layout.value, cols = layout.cols;
  std::vector<float> keys(static_cast<size_t>(cols * layout.nope));
  int64_t decoded = -1;  // the head in `keys`
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r, out += cols) {
    const int64_t head = r / per, at = r % per;
    if (at >= layout.nope) {
      decode_blocks(layout.second_ggml, values, (head * layout.value + at - layout.nope) * cols, cols, out);
      continue;
    }
    if (decoded != head)
      decode_blocks(layout.ggml, main, head * cols * layout.nope, cols * layout.nope, keys.data());
    decoded = head;
    for (int64_t c = 0; c < cols; ++c) out[c] = keys[static_cast<size_t>(c * layout.nope + at)];
  }
  return {};
}

DType plain_type(GgmlType type) {
  return type == GgmlType::kF16                                  ? DType::kF16
         : type == GgmlType::kBF16 || type == GgmlType::kMXFP4 ? DType::kBF16
                                                                 : DType::kF32;
}

}  // namespace

// e8m0: 2^(byte - 127).
Result<std::vector<float>> stored_scales(const StoredBytes& stored, const ReadBytes& bytes) {
  if (!stored) return std::vector<float>{};
  SY_TRY(const auto data, bytes(stored));
  const int64_t each = bits(stored.dtype) / 8, count = static_cast<int64_t>(data.size()) / each;
  std::vector<float> out(static_cast<size_t>(count));
  const Byte* at = raw(data);
  for (int64_t i = 0; i < count; ++i, at += each) {
    float& value = out[static_cast<size_t>(i)];
    switch (stored.dtype) {
      case DType::kF32:
        value = load<float>(at);
        break;
      case DType::kBF16:
        value = float_of_bf16(load<uint16_t>(at));
        break;
      case DType::kF16:
        value = float_of_f16(load<uint16_t>(at));
        break;
      case DType::kF8E8M0:
      case DType::kU8:
        value = float_of_e8m0(*at);
        break;
      default:
        return fail(ErrorCode::kInternal, fmt::format("scales stored as {}.", name(stored.dtype)));
    }
  }
  return out;
}

Result<void> decode_elements(const QuantLayout& layout, const StoredBytes& stored, const ReadBytes& bytes,
                             int64_t first, int64_t count, float* out) {
  SY_TRY(const auto main, bytes(stored));
  const int64_t stored_elements = layout.kind == QuantKind::kGgml
                                      ? static_cast<int64_t>(main.size()) / ggml_block(layout.ggml).bytes *
                                            ggml_block(layout.ggml).elements
                                      : layout.rows * layout.cols;
  if (first < 0 || count < 0 || first > stored_elements - count)
    return fail(ErrorCode::kInternal,
                fmt::format("has {} elements, asked for {} from {}.", stored_elements, count, first));
  if (layout.kind == QuantKind::kInterleaved) return decode_interleaved(layout, main, bytes, first, count, out);
  if (layout.kind == QuantKind::kGgml) {
    const GgmlBlock& block = ggml_block(layout.ggml);
    if (first % block.elements != 0 || count % block.elements != 0) return not_rows(layout, first, count);
    decode_blocks(layout.ggml, main, first, count, out);
    return {};
  }
  if (first % layout.cols != 0 || count % layout.cols != 0) return not_rows(layout, first, count);
  const Rows rows{first / layout.cols, count / layout.cols};
  switch (layout.kind) {
    case QuantKind::kFp8:
      return decode_fp8(layout, main, bytes, rows, out);
    case QuantKind::kMxfp4:
      return decode_mxfp4(layout, main, bytes, rows, out);
    case QuantKind::kGptq:
    case QuantKind::kAwq:
      return decode_columns_packed(layout, main, bytes, rows, out);
    case QuantKind::kPackedInt4:
      return decode_packed_int4(layout, main, bytes, rows, out);
    case QuantKind::kHeadRows:
      decode_head_rows(layout, main, rows, out);
      return {};
    case QuantKind::kLatentPair:
      return decode_latent_pair(layout, main, bytes, rows, out);
    case QuantKind::kGgml:
    case QuantKind::kInterleaved:
      break;
  }
  return {};
}

DType exact_dtype(const TensorRef& ref) {
  if (!ref.quantised) return ref.dtype;
  const QuantLayout& layout = *ref.quantised;
  switch (layout.kind) {
    case QuantKind::kMxfp4:
      return DType::kBF16;
    case QuantKind::kGgml:
    case QuantKind::kHeadRows:
      return plain_type(layout.ggml);
    case QuantKind::kInterleaved:
    case QuantKind::kLatentPair:
      return plain_type(layout.ggml) == plain_type(layout.second_ggml) ? plain_type(layout.ggml) : DType::kF32;
    default:
      return DType::kF32;
  }
}

uint64_t decoded_bytes(const TensorRef& ref) {
  return ref.in_place() ? 0 : static_cast<uint64_t>(ref.elements()) * static_cast<uint64_t>(bits(exact_dtype(ref))) / 8;
}

std::string storage_text(const TensorRef& ref) {
  return ref.quantised ? ref.quantised->label : std::string(name(ref.dtype));
}

std::vector<StorageShare> storage_of(const ModelPlan& plan) {
  std::map<std::string, int64_t> parameters;
  for_each_weight(plan, [&](const TensorRef& ref) { parameters[storage_text(ref)] += ref.elements(); });
  std::vector<StorageShare> shares;
  for (const auto& [storage, count] : parameters) shares.push_back({storage, count});
  std::stable_sort(shares.begin(), shares.end(),
                   [](const StorageShare& a, const StorageShare& b) { return a.parameters > b.parameters; });
  return shares;
}

}  // namespace switchyard
