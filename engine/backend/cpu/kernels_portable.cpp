// Portable kernels in the compiler's own vector types: any machine, no instruction beyond the baseline.
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kernels_isa.h"

#include <cmath>

namespace switchyard::cpu {
namespace {

typedef float Floats4 __attribute__((vector_size(16)));
typedef int32_t Ints4 __attribute__((vector_size(16)));
typedef uint32_t Words4 __attribute__((vector_size(16)));
typedef uint16_t Halves4 __attribute__((vector_size(8)));

template <class To, class From>
To reinterpret(const From& from) {
  To to;
  static_assert(sizeof(to) == sizeof(from));
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

// IEEE half to float, subnormals, infinities and NaN included.
float widen(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000u) << 16, magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00u) return reinterpret<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
  const float scaled = reinterpret<float>(magnitude << 13) * 0x1p112f;  // moves the exponent's bias
  return reinterpret<float>(sign | reinterpret<uint32_t>(scaled));
}

struct V {
  static constexpr int kLanes = 4;
  static constexpr int kTileTokens = 3;
  using F = Floats4;
  using Quad = Floats4;

  static F zero() { return F{}; }
  static F set(float x) { return F{x, x, x, x}; }
  static F load(const float* p) { return load_f32(reinterpret_cast<const unsigned char*>(p)); }
  static void store(float* p, F x) { __builtin_memcpy(p, &x, sizeof(x)); }
  static F load_f32(const unsigned char* p) {
    F x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
  }
  static Halves4 load_halves(const unsigned char* p) {
    Halves4 x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
  }
  static F load_bf16(const unsigned char* p) {
    return reinterpret<F>(__builtin_convertvector(load_halves(p), Words4) << 16);
  }
  static F load_f16(const unsigned char* p) {
    const Halves4 x = load_halves(p);
    return F{widen(x[0]), widen(x[1]), widen(x[2]), widen(x[3])};
  }
  static float half(const unsigned char* p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    return widen(bits);
  }
  static F load_i8(const unsigned char* p) {
    return F{float(int8_t(p[0])), float(int8_t(p[1])), float(int8_t(p[2])), float(int8_t(p[3]))};
  }
  static int nibble(unsigned char x, bool high) { return high ? x >> 4 : x & 15; }
  static F nibbles(const unsigned char* p, bool high) {
    return F{float(nibble(p[0], high)), float(nibble(p[1], high)), float(nibble(p[2], high)), float(nibble(p[3], high))};
  }
  static float doubled(int nibble) {
    constexpr float kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return kValues[nibble];
  }
  static F fp4(const unsigned char* p, bool high) {
    return F{doubled(nibble(p[0], high)), doubled(nibble(p[1], high)), doubled(nibble(p[2], high)),
             doubled(nibble(p[3], high))};
  }
  static F fp4_pairs(const unsigned char* p) {
    return F{doubled(p[0] & 15), doubled(p[0] >> 4), doubled(p[1] & 15), doubled(p[1] >> 4)};
  }
  static float e4m3(unsigned char x) {
    if ((x & 0x7f) == 0x7f) return __builtin_nanf("");
    const float value = reinterpret<float>(uint32_t(x & 0x7f) << 20) * 0x1p120f;  // moves the exponent's bias
    return x & 0x80 ? -value : value;
  }
  static F load_e4m3(const unsigned char* p) { return F{e4m3(p[0]), e4m3(p[1]), e4m3(p[2]), e4m3(p[3])}; }

  static F fma(F a, F b, F c) { return a * b + c; }
  static F add(F a, F b) { return a + b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F min(F a, F b) { return a < b ? a : b; }
  static F round(F x) {
    return F{std::nearbyint(x[0]), std::nearbyint(x[1]), std::nearbyint(x[2]), std::nearbyint(x[3])};
  }
  static F pow2(F n) { return reinterpret<F>((__builtin_convertvector(n, Ints4) + 127) << 23); }
  static F zero_below(F value, F x, float limit) { return x < set(limit) ? zero() : value; }

  static Quad sum4(F a, F b, F c, F d) {
    return Quad{(a[0] + a[1]) + (a[2] + a[3]), (b[0] + b[1]) + (b[2] + b[3]), (c[0] + c[1]) + (c[2] + c[3]),
                (d[0] + d[1]) + (d[2] + d[3])};
  }
  static Quad quad_fma(Quad a, float b, Quad c) { return a * set(b) + c; }
};

#include "engine/backend/cpu/kernels_body.h"

}  // namespace

const Kernels kPortableKernels = table(Isa::kPortable);

}  // namespace switchyard::cpu
