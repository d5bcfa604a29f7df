// The tensor core's product of a warp on the emulator: mma.m16n8k16 with bf16 inputs and fp32 sums, lane by lane as the
// PTX manual lays its operands out ("Matrix Fragments for mma.m16n8k16 with floating point type"): with a fragment in
// the wrong lane or register the numbers are wrong. Sums are cut off as the unit's are: the products of eight columns
// and the sum so far are brought to the exponent of the largest one, without a bit behind fp32's last ("Numerical
// behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330; newer units keep one or two bits more).
#pragma once

#include <bit>

#include "tests/cuda_on_cpu/block.h"

namespace cuda_on_cpu {

// The sum of `count` numbers, cut off.
inline float sum_cut_off(const double* terms, int count) {
  int top = 0;
  double plain = 0;
  for (int i = 0; i < count; ++i) {
    plain += terms[i];
    top = std::max(top, int(std::bit_cast<uint64_t>(terms[i]) >> 52 & 0x7FF));
  }
  if (top == 0x7FF || top < 64) return float(plain);  // infinite or not a number; zero, or far below any fp32 number
  const double unit = std::bit_cast<double>(uint64_t(top - 23) << 52),
               units = std::bit_cast<double>(uint64_t(2046 - top + 23) << 52);
  int64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += int64_t(terms[i] * units);
  const double value = double(sum) * unit;
  const float out = float(value);
  return std::abs(double(out)) > std::abs(value) ? std::bit_cast<float>(std::bit_cast<uint32_t>(out) - 1) : out;
}

inline void mma_m16n8k16_bf16(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
  struct Fragments {
    uint32_t a[4], b[2];
  } own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  Block& block = *Block::current();
  block.exchange(kAllLanes, reinterpret_cast<uint64_t>(&own), "mma.sync");
  const auto lane = [&](int number) -> const Fragments& {
    return *reinterpret_cast<const Fragments*>(block.given(number));
  };
  // Column k of a row of a, and of a column of b: which lane, which word, which half.
  const auto number = [](uint32_t word, int k) {
    return std::bit_cast<float>(k % 2 == 0 ? word << 16 : word & 0xFFFF0000u);
  };
  const auto in_a = [&](int row, int k) { return number(lane(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2], k); };
  const auto in_b = [&](int k, int column) { return number(lane(column * 4 + k % 8 / 2).b[k / 8], k); };
  float out[4];
  for (int i = 0; i < 4; ++i) {
    const int row = block.lane() / 4 + 8 * (i / 2), column = block.lane() % 4 * 2 + i % 2;
    double terms[9] = {c[i]};
    for (int first = 0; first < 16; first += 8) {
      for (int k = 0; k < 8; ++k) terms[1 + k] = double(in_a(row, first + k)) * double(in_b(first + k, column));
      terms[0] = sum_cut_off(terms, 9);
    }
    out[i] = float(terms[0]);
  }
  block.exchange(kAllLanes, 0, "mma.sync (read)");  // fragments stay until all lanes have read them
  for (int i = 0; i < 4; ++i) c[i] = out[i];
}

}  // namespace cuda_on_cpu
