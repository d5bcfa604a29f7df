// Element types of checkpoints, as safetensors names them (specs/families.md, section 4).
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace switchyard {

enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

int bits(DType dtype);
std::string_view name(DType dtype);  // "BF16"
std::optional<DType> parse_dtype(std::string_view name);

inline float float_of_bf16(uint16_t stored) {
  return std::bit_cast<float>(uint32_t{stored} << 16);
}
float float_of_f16(uint16_t stored);  // IEEE half: subnormals, infinities and NaN included
float float_of_e8m0(uint8_t stored);  // 2^(stored - 127); 255 is NaN

// Of a value that the type holds exactly.
inline uint16_t exact_bf16(float value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}
uint16_t exact_f16(float value);

}  // namespace switchyard
