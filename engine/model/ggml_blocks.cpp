// The block formats of GGUF files; layouts and order of operations as in the `gguf` package (quants.py).
#include "engine/model/ggml_blocks.h"

#include <array>
#include <bit>
#include <cstring>

#include "engine/model/dtype.h"

namespace switchyard {
namespace {

using Byte = unsigned char;

constexpr std::array<GgmlBlock, 15> kBlocks{{
    {GgmlType::kF32, "F32", 1, 4},
    {GgmlType::kF16, "F16", 1, 2},
    {GgmlType::kQ4_0, "Q4_0", 32, 18},
    {GgmlType::kQ4_1, "Q4_1", 32, 20},
    {GgmlType::kQ5_0, "Q5_0", 32, 22},
    {GgmlType::kQ5_1, "Q5_1", 32, 24},
    {GgmlType::kQ8_0, "Q8_0", 32, 34},
    {GgmlType::kQ2_K, "Q2_K", 256, 84},
    {GgmlType::kQ3_K, "Q3_K", 256, 110},
    {GgmlType::kQ4_K, "Q4_K", 256, 144},
    {GgmlType::kQ5_K, "Q5_K", 256, 176},
    {GgmlType::kQ6_K, "Q6_K", 256, 210},
    {GgmlType::kIQ4_NL, "IQ4_NL", 32, 18},
    {GgmlType::kBF16, "BF16", 1, 2},
    {GgmlType::kMXFP4, "MXFP4", 32, 17},
}};

template <class T>
T load(const Byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

float half_at(const Byte* at) {
  return float_of_f16(load<uint16_t>(at));
}

float bit_of(uint32_t word, int bit) {
  return static_cast<float>(word >> bit & 1);
}

// Blocks of 32 whose byte i holds element i in its low nibble and element 16 + i in its high one.
void q4_0(const Byte* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
    out[16 + i] = d * static_cast<float>((b[2 + i] >> 4) - 8);
  }
}

void q4_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(b[4 + i] & 15) + m;
    out[16 + i] = d * static_cast<float>(b[4 + i] >> 4) + m;
  }
}

void q5_0(const Byte* b, float* out) {
  const float d = half_at(b);
  const auto high = load<uint32_t>(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * (static_cast<float>(b[6 + i] & 15) + 16 * bit_of(high, i) - 16);
    out[16 + i] = d * (static_cast<float>(b[6 + i] >> 4) + 16 * bit_of(high, 16 + i) - 16);
  }
}

void q5_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  const auto high = load<uint32_t>(b + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * (static_cast<float>(b[8 + i] & 15) + 16 * bit_of(high, i)) + m;
    out[16 + i] = d * (static_cast<float>(b[8 + i] >> 4) + 16 * bit_of(high, 16 + i)) + m;
  }
}

void q8_0(const Byte* b, float* out) {
  const float d = half_at(b);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(b[2 + i])) * d;
}

void iq4_nl(const Byte* b, float* out) {
  constexpr std::array<float, 16> kValues{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  const float d = half_at(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * kValues[b[2 + i] & 15];
    out[16 + i] = d * kValues[b[2 + i] >> 4];
  }
}

void mxfp4(const Byte* b, float* out) {
  constexpr std::array<float, 16> kDoubled{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const uint32_t e = b[0];  // half of 2^(e - 127): the table holds doubled values
  const float d = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * kDoubled[b[1 + i] & 15];
    out[16 + i] = d * kDoubled[b[1 + i] >> 4];
  }
}

// Super-blocks of 256.
void q2_k(const Byte* b, float* out) {
  const float d = half_at(b + 80), dmin = half_at(b + 82);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(b[g] & 15), low = dmin * static_cast<float>(b[g] >> 4);
    const Byte* q = b + 16 + (g / 8) * 32 + (g % 2) * 16;
    const int shift = 2 * (g % 8 / 2);
    for (int i = 0; i < 16; ++i) out[16 * g + i] = scale * static_cast<float>(q[i] >> shift & 3) - low;
  }
}

void q3_k(const Byte* b, float* out) {
  const Byte *mask = b, *quants = b + 32, *packed = b + 96;
  const float d = half_at(b + 108);
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
    const int high = packed[8 + g % 4] >> (2 * (g / 4)) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    const Byte *q = quants + (g / 8) * 32 + (g % 2) * 16, *m = mask + (g % 2) * 16;
    for (int i = 0; i < 16; ++i) {
      const int value = (q[i] >> (2 * (g % 8 / 2)) & 3) - ((m[i] >> (g / 2) & 1) ? 0 : 4);
      out[16 * g + i] = scale * static_cast<float>(value);
    }
  }
}

// Scale and minimum of the eight groups of Q4_K and Q5_K, six bits each.
struct GroupScale {
  int scale, low;
};
GroupScale group_scale(const Byte* s, int g) {
  if (g < 4) return {s[g] & 63, s[g + 4] & 63};
  return {(s[g + 4] & 15) | (s[g - 4] >> 6) << 4, s[g + 4] >> 4 | (s[g] >> 6) << 4};
}

void q4_k(const Byte* b, float* out) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int g = 0; g < 8; ++g) {
    const auto [s, m] = group_scale(b + 4, g);
    const float scale = d * static_cast<float>(s), low = dmin * static_cast<float>(m);
    const Byte* q = b + 16 + 32 * (g / 2);
    for (int i = 0; i < 32; ++i) out[32 * g + i] = scale * static_cast<float>(q[i] >> (4 * (g % 2)) & 15) - low;
  }
}

void q5_k(const Byte* b, float* out) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int g = 0; g < 8; ++g) {
    const auto [s, m] = group_scale(b + 4, g);
    const float scale = d * static_cast<float>(s), low = dmin * static_cast<float>(m);
    const Byte *high = b + 16, *q = b + 48 + 32 * (g / 2);
    for (int i = 0; i < 32; ++i) {
      const int value = (q[i] >> (4 * (g % 2)) & 15) | (high[i] >> g & 1) << 4;
      out[32 * g + i] = scale * static_cast<float>(value) - low;
    }
  }
}

void q6_k(const Byte* b, float* out) {
  const Byte *low = b, *high = b + 128, *scales = b + 192;
  const float d = half_at(b + 208);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(scales[g]));
    const int half = g / 8, row = g % 8 / 2, column = g % 2 * 16;  // rows of 32 of a half
    const Byte *l = low + 64 * half + 32 * (row % 2) + column, *h = high + 32 * half + column;
    for (int i = 0; i < 16; ++i) {
      const int value = (l[i] >> (4 * (row / 2)) & 15) | (h[i] >> (2 * row) & 3) << 4;
      out[16 * g + i] = scale * static_cast<float>(value - 32);
    }
  }
}

template <void (*decode)(const Byte*, float*)>
void decode_all(const GgmlBlock& block, const Byte* data, int64_t blocks, float* out) {
  for (int64_t i = 0; i < blocks; ++i) decode(data + i * block.bytes, out + i * block.elements);
}

}  // namespace

std::optional<GgmlBlock> ggml_block(uint32_t type) {
  for (const GgmlBlock& block : kBlocks)
    if (static_cast<uint32_t>(block.type) == type) return block;
  return std::nullopt;
}

const GgmlBlock& ggml_block(GgmlType type) {
  for (const GgmlBlock& block : kBlocks)
    if (block.type == type) return block;
  return kBlocks[0];
}

std::string supported_ggml_types() {
  std::string list;
  for (const GgmlBlock& block : kBlocks) list += (list.empty() ? "" : ", ") + std::string(block.name);
  return list;
}

void decode_ggml(GgmlType type, const std::byte* bytes, int64_t blocks, float* out) {
  const auto* data = reinterpret_cast<const Byte*>(bytes);
  const GgmlBlock& block = ggml_block(type);
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(out, data, static_cast<size_t>(blocks) * sizeof(float));
      return;
    case GgmlType::kF16:
      for (int64_t i = 0; i < blocks; ++i) out[i] = half_at(data + 2 * i);
      return;
    case GgmlType::kBF16:
      for (int64_t i = 0; i < blocks; ++i) out[i] = float_of_bf16(load<uint16_t>(data + 2 * i));
      return;
    case GgmlType::kQ4_0:
      return decode_all<q4_0>(block, data, blocks, out);
    case GgmlType::kQ4_1:
      return decode_all<q4_1>(block, data, blocks, out);
    case GgmlType::kQ5_0:
      return decode_all<q5_0>(block, data, blocks, out);
    case GgmlType::kQ5_1:
      return decode_all<q5_1>(block, data, blocks, out);
    case GgmlType::kQ8_0:
      return decode_all<q8_0>(block, data, blocks, out);
    case GgmlType::kQ2_K:
      return decode_all<q2_k>(block, data, blocks, out);
    case GgmlType::kQ3_K:
      return decode_all<q3_k>(block, data, blocks, out);
    case GgmlType::kQ4_K:
      return decode_all<q4_k>(block, data, blocks, out);
    case GgmlType::kQ5_K:
      return decode_all<q5_k>(block, data, blocks, out);
    case GgmlType::kQ6_K:
      return decode_all<q6_k>(block, data, blocks, out);
    case GgmlType::kIQ4_NL:
      return decode_all<iq4_nl>(block, data, blocks, out);
    case GgmlType::kMXFP4:
      return decode_all<mxfp4>(block, data, blocks, out);
  }
}

}  // namespace switchyard
