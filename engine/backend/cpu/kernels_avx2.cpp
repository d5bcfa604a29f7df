// AVX2, FMA and F16C kernels; compiled with those flags and entered only where the machine has them.
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kernels_isa.h"

#include <immintrin.h>

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/kernels_bytes.h"

struct V {
  static constexpr int kLanes = 8;
  static constexpr int kTileTokens = 3;  // 4 x 3 sums, 3 inputs, 1 weight of 16 registers
  using F = __m256;
  using Quad = __m128;

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static __m128i load_half(const unsigned char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static F load_f32(const unsigned char* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  static F load_bf16(const unsigned char* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_half(p)), 16));
  }
  static F load_f16(const unsigned char* p) { return _mm256_cvtph_ps(load_half(p)); }
  static float half(const unsigned char* p) { return half_at(p); }
  static __m128i bytes(const unsigned char* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
  static F from_i8(__m128i x) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)); }
  static F load_i8(const unsigned char* p) { return from_i8(bytes(p)); }
  static F nibbles(const unsigned char* p, bool high) { return from_i8(nibbles_of(bytes(p), high)); }
  static F fp4(const unsigned char* p, bool high) { return from_i8(doubled_fp4(nibbles_of(bytes(p), high))); }
  static F fp4_pairs(const unsigned char* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    const __m128i x = _mm_cvtsi32_si128(four);
    return from_i8(doubled_fp4_pairs(x));
  }
  static F load_e4m3(const unsigned char* p) {
    const __m128i x = bytes(p), size = size_of_e4m3(x);
    const __m128i sign = _mm_slli_epi16(_mm_cvtepu8_epi16(sign_of_e4m3(x)), 8);
    const __m128i half = _mm_or_si128(sign, _mm_slli_epi16(_mm_cvtepu8_epi16(size), 7));
    const __m256i unknown = _mm256_cvtepi8_epi32(_mm_cmpeq_epi8(size, _mm_set1_epi8(0x7f)));
    const F value = _mm256_mul_ps(_mm256_cvtph_ps(half), set(256));
    return _mm256_blendv_ps(value, set(__builtin_nanf("")), _mm256_castsi256_ps(unknown));
  }

  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F pow2(F n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }
  static F zero_below(F value, F x, float limit) {
    return _mm256_andnot_ps(_mm256_cmp_ps(x, set(limit), _CMP_LT_OQ), value);
  }

  static Quad sum4(F a, F b, F c, F d) {
    const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  }
  static Quad quad_fma(Quad a, float b, Quad c) { return _mm_fmadd_ps(a, _mm_set1_ps(b), c); }
};

#include "engine/backend/cpu/kernels_body.h"

}  // namespace

const Kernels kAvx2Kernels = table(Isa::kAvx2);

}  // namespace switchyard::cpu
