// AVX-512 (F, BW, DQ, VL) kernels; compiled with those flags and entered only where the machine has them.
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kernels_isa.h"

#include <immintrin.h>

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/kernels_bytes.h"

struct V {
  static constexpr int kLanes = 16;
  static constexpr int kTileTokens = 6;  // 4 x 6 sums, 6 inputs, 1 weight of 32 registers
  using F = __m512;
  using Quad = __m128;

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F load_f32(const unsigned char* p) { return _mm512_loadu_ps(p); }
  static F load_bf16(const unsigned char* p) {
    const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16));
  }
  static F load_f16(const unsigned char* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static float half(const unsigned char* p) { return half_at(p); }
  static __m128i bytes(const unsigned char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static F from_i8(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }
  static F load_i8(const unsigned char* p) { return from_i8(bytes(p)); }
  static F nibbles(const unsigned char* p, bool high) { return from_i8(nibbles_of(bytes(p), high)); }
  static F fp4(const unsigned char* p, bool high) { return from_i8(doubled_fp4(nibbles_of(bytes(p), high))); }
  static F fp4_pairs(const unsigned char* p) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return from_i8(doubled_fp4_pairs(x));
  }
  static F load_e4m3(const unsigned char* p) {
    const __m128i x = bytes(p), size = size_of_e4m3(x);
    const __m256i sign = _mm256_slli_epi16(_mm256_cvtepu8_epi16(sign_of_e4m3(x)), 8);
    const __m256i half = _mm256_or_si256(sign, _mm256_slli_epi16(_mm256_cvtepu8_epi16(size), 7));
    const __mmask16 unknown = _mm_cmpeq_epi8_mask(size, _mm_set1_epi8(0x7f));
    return _mm512_mask_mov_ps(_mm512_mul_ps(_mm512_cvtph_ps(half), set(256)), unknown, set(__builtin_nanf("")));
  }

  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F pow2(F n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
  }
  static F zero_below(F value, F x, float limit) {
    return _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask(x, set(limit), _CMP_LT_OQ), zero());
  }

  static __m256 halves(F x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }
  static Quad quarters(__m256 x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
  static Quad sum4(F a, F b, F c, F d) {
    const __m256 ab = _mm256_hadd_ps(halves(a), halves(b)), cd = _mm256_hadd_ps(halves(c), halves(d));
    return quarters(_mm256_hadd_ps(ab, cd));
  }
  static Quad quad_fma(Quad a, float b, Quad c) { return _mm_fmadd_ps(a, _mm_set1_ps(b), c); }
};

#include "engine/backend/cpu/kernels_body.h"

}  // namespace

const Kernels kAvx512Kernels = table(Isa::kAvx512);

}  // namespace switchyard::cpu
