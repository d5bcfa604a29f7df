// Element types of checkpoints.
#include "engine/model/dtype.h"

#include <array>
#include <cmath>

namespace switchyard {
namespace {

struct Row {
  std::string_view name;
  int bits;
};
// In the order of the enumeration. Widths: specs/families.md, section 4.
constexpr std::array<Row, 22> kRows{{
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};
static_assert(kRows.size() == static_cast<size_t>(DType::kU64) + 1);

}  // namespace

int bits(DType dtype) {
  return kRows[static_cast<size_t>(dtype)].bits;
}

std::string_view name(DType dtype) {
  return kRows[static_cast<size_t>(dtype)].name;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (size_t i = 0; i < kRows.size(); ++i)
    if (kRows[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

float float_of_f16(uint16_t stored) {
  const uint32_t sign = uint32_t{stored & 0x8000u} << 16, magnitude = stored & 0x7FFFu;
  if (magnitude >= 0x7C00u) return std::bit_cast<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
  // A half's bits shifted into place are 2^-112 of its value; exact also for subnormals.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}

float float_of_e8m0(uint8_t stored) {
  return stored == 255 ? std::nanf("") : std::ldexp(1.0f, int{stored} - 127);
}

uint16_t exact_f16(float value) {
  const auto stored = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(stored >> 16 & 0x8000u);
  const uint32_t magnitude = stored & 0x7FFFFFFFu;
  if (magnitude >= 0x7F800000u) return static_cast<uint16_t>(sign | 0x7C00u | (magnitude >> 13 & 0x3FFu));
  // The inverse of float_of_f16: exact also for subnormals.
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p-112f;
  return static_cast<uint16_t>(sign | std::bit_cast<uint32_t>(scaled) >> 13);
}

}  // namespace switchyard
