// The one-token product of a bf16 matrix written three ways, from memory: our AVX-512 kernel, the same over Google
// Highway, and VDPBF16PS on inputs cut into three exact pieces. Why the kernels are as they are: performance.md.
// By hand, on a machine with AVX512-BF16, where libhwy-dev is installed:
//   g++ -O3 -std=c++20 -ffp-contract=off -march=skylake-avx512 -mavx512bf16 -I. tests/bench/alternatives_bench.cpp \
//     engine/backend/cpu/kernels_avx512.cpp -lhwy -o /tmp/alternatives && /tmp/alternatives
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kernels_isa.h"

namespace {

constexpr int64_t kRows = 65536, kCols = 2048, kTile = 8;

float float_of(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

namespace hn = hwy::HWY_NAMESPACE;

void with_highway(const uint16_t* w, const float* x, float* out) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::bfloat16_t, decltype(d)> half;
  for (int64_t row = 0; row < kRows; row += kTile) {
    using F = hn::Vec<decltype(d)>;
    F sum[kTile];
    for (auto& s : sum) s = hn::Zero(d);
    const auto* at = reinterpret_cast<const hwy::bfloat16_t*>(w + row * kCols);
    for (int64_t i = 0; i < kCols; i += int64_t(hn::Lanes(d))) {
      const F in = hn::LoadU(d, x + i);
      for (int r = 0; r < kTile; ++r) {
        if (i % 32 == 0) hwy::Prefetch(at + r * kCols + i + 1024);
        sum[r] = hn::MulAdd(hn::PromoteTo(d, hn::LoadU(half, at + r * kCols + i)), in, sum[r]);
      }
    }
    for (int r = 0; r < kTile; ++r) out[row + r] = hn::GetLane(hn::SumOfLanes(d, sum[r]));
  }
}

struct Pieces {
  std::vector<uint16_t> of[3];
};
Pieces cut(const std::vector<float>& x) {
  Pieces pieces;
  for (float value : x)
    for (auto& piece : pieces.of) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      piece.push_back(uint16_t(bits >> 16));
      value -= float_of(uint16_t(bits >> 16));
    }
  return pieces;
}

void with_bf16(const uint16_t* w, const Pieces& x, float* out) {
  for (int64_t row = 0; row < kRows; row += kTile) {
    __m512 sum[kTile];
    for (auto& s : sum) s = _mm512_setzero_ps();
    for (int64_t i = 0; i < kCols; i += 32) {
      __m512i in[3];
      for (int piece = 0; piece < 3; ++piece) in[piece] = _mm512_loadu_si512(x.of[piece].data() + i);
      for (int r = 0; r < kTile; ++r) {
        const uint16_t* at = w + (row + r) * kCols + i;
        __builtin_prefetch(at + 1024, 0, 3);
        const __m512i weights = _mm512_loadu_si512(at);
        for (const __m512i& piece : in) sum[r] = _mm512_dpbf16_ps(sum[r], __m512bh(weights), __m512bh(piece));
      }
    }
    for (int r = 0; r < kTile; ++r) out[row + r] = _mm512_reduce_add_ps(sum[r]);
  }
}

template <class Run>
double gb_per_s(Run&& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return double(kRows * kCols * 2) / 1e9 / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main() {
  std::vector<uint16_t> w(size_t(kRows * kCols));
  for (size_t i = 0; i < w.size(); ++i) w[i] = uint16_t(0x3c00 + (i * 2654435761u >> 9) % 0x300 + (i % 3 == 0 ? 0x8000 : 0));
  std::vector<float> x(size_t{kCols}), ours(size_t{kRows}), theirs(size_t{kRows}), cut_up(size_t{kRows});
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(float(i));
  const Pieces pieces = cut(x);
  const float* in = x.data();
  float* out = ours.data();
  const switchyard::cpu::Matrix matrix{reinterpret_cast<const unsigned char*>(w.data()), switchyard::cpu::Stored::kBF16, kRows, kCols};
  std::vector<double> speeds[3];
  for (int round = 0; round < 15; ++round) {
    speeds[0].push_back(gb_per_s([&] { switchyard::cpu::kAvx512Kernels.dot_rows(matrix, 0, kRows, {1, &in, &out}); }));
    speeds[1].push_back(gb_per_s([&] { with_highway(w.data(), x.data(), theirs.data()); }));
    speeds[2].push_back(gb_per_s([&] { with_bf16(w.data(), pieces, cut_up.data()); }));
  }
  double apart = 0;
  for (size_t i = 0; i < ours.size(); ++i) apart = std::max({apart, double(std::abs(ours[i] - theirs[i])), double(std::abs(ours[i] - cut_up[i]))});
  const char* names[] = {"AVX-512", "Highway", "AVX512-BF16, three pieces"};
  for (int i = 0; i < 3; ++i) {
    std::sort(speeds[i].begin(), speeds[i].end());
    std::printf("%-26s median %.1f GB/s (quartiles %.1f-%.1f)\n", names[i], speeds[i][7], speeds[i][3], speeds[i][11]);
  }
  std::printf("largest difference of an output: %.2g\n", apart);
}
