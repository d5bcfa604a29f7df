// Elements stored in blocks (Stored). Included by kernels_body.h, inside its namespace.
//
// Each gives: kUnit, the elements handled at a time, a multiple of kLanes; offset(i), the byte of its row at which
// element i's block begins; unit(), what those from i on share; load(), their n-th vector. Values are made as by the
// decoders of engine/model, operation by operation, so that either gives the same bits. Layouts: the package `gguf`
// (quants.py); OCP Microscaling Formats 1.0 (MXFP4); OCP 8-bit Floating Point 1.0 (E4M3).

struct ScaledBytes {
  const unsigned char* q;
  float d;  // multiplies every value
};

struct Q8_0 {
  static constexpr int kUnit = 32;
  using Unit = ScaledBytes;
  static int64_t offset(int64_t i) { return i / 32 * 34; }
  static Unit unit(const Matrix&, const StoredRow& row, int64_t i) {
    const unsigned char* block = row.data + offset(i);
    return {block + 2, V::half(block)};
  }
  static F load(const Unit& u, int n) { return V::mul(V::load_i8(u.q + n * kLanes), V::set(u.d)); }
};

// 256 elements in eight groups of 32, of which two share 32 bytes; six bits of scale and minimum each.
struct Q4_K {
  static constexpr int kUnit = 256;
  struct Unit {
    const unsigned char* q;
    float scale[8], low[8];
  };
  static int64_t offset(int64_t i) { return i / 256 * 144; }
  static Unit unit(const Matrix&, const StoredRow& row, int64_t i) {
    const unsigned char *block = row.data + offset(i), *s = block + 4;
    const float d = V::half(block), least = -V::half(block + 2);
    Unit u{block + 16, {}, {}};
    for (int g = 0; g < 4; ++g) {
      u.scale[g] = d * float(s[g] & 63);
      u.low[g] = least * float(s[g + 4] & 63);
      u.scale[g + 4] = d * float((s[g + 8] & 15) | s[g] >> 6 << 4);
      u.low[g + 4] = least * float(s[g + 8] >> 4 | s[g + 4] >> 6 << 4);
    }
    return u;
  }
  static F load(const Unit& u, int n) {
    const int g = n * kLanes / 32;
    const F q = V::nibbles(u.q + 32 * (g / 2) + n * kLanes % 32, g % 2 == 1);
    return V::add(V::mul(q, V::set(u.scale[g])), V::set(u.low[g]));
  }
};

// Half of 2^(exponent - 127), for the doubled values of E2M1.
inline float half_of_e8m0(uint32_t exponent) {
  const uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// The low nibbles of sixteen bytes, then the high ones.
struct Mxfp4 {
  static constexpr int kUnit = 32;
  using Unit = ScaledBytes;
  static int64_t offset(int64_t i) { return i / 32 * 17; }
  static Unit unit(const Matrix&, const StoredRow& row, int64_t i) {
    const unsigned char* block = row.data + offset(i);
    return {block + 1, half_of_e8m0(block[0])};
  }
  static F load(const Unit& u, int n) {
    return V::mul(V::fp4(u.q + n * kLanes % 16, n * kLanes >= 16), V::set(u.d));
  }
};

struct Mxfp4Apart {
  static constexpr int kUnit = 32;
  using Unit = ScaledBytes;
  static int64_t offset(int64_t i) { return i / 2; }
  static Unit unit(const Matrix&, const StoredRow& row, int64_t i) {
    const unsigned char exponent = row.scales[i / 32];
    return {row.data + offset(i), exponent == 255 ? __builtin_nanf("") : half_of_e8m0(exponent)};
  }
  static F load(const Unit& u, int n) { return V::mul(V::fp4_pairs(u.q + n * kLanes / 2), V::set(u.d)); }
};

struct Fp8 {
  static constexpr int kUnit = 16;
  using Unit = ScaledBytes;
  static int64_t offset(int64_t i) { return i; }
  static Unit unit(const Matrix& w, const StoredRow& row, int64_t i) {
    float scale;
    __builtin_memcpy(&scale, row.scales + (i >> w.scale_shift) * int64_t(sizeof(float)), sizeof(scale));
    return {row.data + i, scale};
  }
  static F load(const Unit& u, int n) { return V::mul(V::load_e4m3(u.q + n * kLanes), V::set(u.d)); }
};
