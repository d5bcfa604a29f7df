// The block formats of GGUF files. Each is checked against the `gguf` package on random blocks.
// Called by the decoders of quantised tensors; pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace switchyard {

// Those that can be decoded, by ggml's numbers.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
  kMXFP4 = 39,
};

struct GgmlBlock {
  GgmlType type;
  std::string_view name;  // "Q4_K"
  int elements;           // of a block
  int bytes;              // of a block
};

std::optional<GgmlBlock> ggml_block(uint32_t type);  // nullopt: not supported, or no type
const GgmlBlock& ggml_block(GgmlType type);
std::string supported_ggml_types();  // "F32, F16, ..."

// `blocks` blocks at `data` (unaligned) as floats.
void decode_ggml(GgmlType type, const std::byte* data, int64_t blocks, float* out);

}  // namespace switchyard
