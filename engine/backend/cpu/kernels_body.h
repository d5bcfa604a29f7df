// The kernels, written once over a vector type V; each kernels_<isa>.cpp defines its V in an anonymous
// namespace, includes this file there and exports one table. Only for those files.
//
// V gives: kLanes, F (a vector of floats), Quad (4 floats), zero, set, load, store, fma, add, mul, div,
// max, min, round, pow2 (of integral values), zero_below, sum4 (4 vectors to their 4 sums), quad_fma,
// load_f32 / load_bf16 / load_f16 / load_i8 / load_e4m3, nibbles (the low or high ones of as many bytes), fp4 and
// fp4_pairs (doubled values of E2M1), half (one float), and kTileTokens, the tokens of a matrix tile.

constexpr int kLanes = V::kLanes;
constexpr int kLineBytes = 64;
using F = V::F;
using Quad = V::Quad;

// ---- stored element types ------------------------------------------------------------------------

// A row of a matrix where it stands.
struct StoredRow {
  const unsigned char* data;
  const unsigned char* scales;
};
inline StoredRow stored_row(const Matrix& w, int64_t row) {
  return {w.data + row * row_bytes(w), w.scales ? w.scales + row / w.scale_rows * w.scales_apart : nullptr};
}

struct Float32 {
  static constexpr int kBytes = 4;
  static F load(const unsigned char* p) { return V::load_f32(p); }
};
struct BFloat16 {
  static constexpr int kBytes = 2;
  static F load(const unsigned char* p) { return V::load_bf16(p); }
};
struct Float16 {
  static constexpr int kBytes = 2;
  static F load(const unsigned char* p) { return V::load_f16(p); }
};

#include "engine/backend/cpu/kernels_blocks.h"

template <class E>
concept Blocks = requires { E::kUnit; };

// The first n < kLanes elements, zeros after them; reads nothing beyond.
template <class E>
F load_some(const unsigned char* p, int64_t n) {
  alignas(64) unsigned char padded[kLanes * E::kBytes] = {};
  __builtin_memcpy(padded, p, size_t(n) * E::kBytes);
  return E::load(padded);
}

inline F load_some(const float* p, int64_t n) {
  return load_some<Float32>(reinterpret_cast<const unsigned char*>(p), n);
}

inline void store_some(float* p, F value, int64_t n) {
  alignas(64) float padded[kLanes];
  V::store(padded, value);
  __builtin_memcpy(p, padded, size_t(n) * sizeof(float));
}

inline float sum(F v) {
  return V::sum4(v, v, v, v)[0];
}

// ---- matrix times tokens -------------------------------------------------------------------------

// Adds four neighbouring outputs of one token; `valid` of them are real.
inline void put(const TokenRows& tokens, int token, int64_t row, int valid, Quad dots) {
  float* out = tokens.out[token] + row;
  Quad old{};
  if (valid == 4) {
    if (tokens.weight) {
      __builtin_memcpy(&old, out, sizeof(old));
      dots = V::quad_fma(dots, tokens.weight[token], old);
    }
    __builtin_memcpy(out, &dots, sizeof(dots));
    return;
  }
  if (tokens.weight) {
    for (int i = 0; i < valid; ++i) old[i] = out[i];
    dots = V::quad_fma(dots, tokens.weight[token], old);
  }
  for (int i = 0; i < valid; ++i) out[i] = dots[i];
}

// R weight rows from `row` on times C tokens, one running sum per lane of each product, all in registers; `valid` of
// the rows are real.
template <class E, int R, int C>
void tile(const Matrix& w, const TokenRows& tokens, int token, int64_t row, int valid) {
  const int64_t cols = w.cols, apart = row_bytes(w);
  StoredRow stored[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) stored[r] = stored_row(w, row + (r < valid ? r : valid - 1));
  const float* x[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) x[c] = tokens.x[token + c];

  F sums[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sums[r][c] = V::zero();

  if constexpr (Blocks<E>) {
    constexpr int64_t kAhead = 1024;  // bytes, see below
    for (int64_t i = 0; i < cols; i += E::kUnit) {
      const int64_t ahead = E::offset(i) + kAhead;
      const int64_t next = ahead + (ahead >= apart ? (R - 1) * apart : 0);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        if constexpr (C == 1) __builtin_prefetch(stored[r].data + next, 0, 3);
        const auto unit = E::unit(w, stored[r], i);
#pragma GCC unroll 4
        for (int n = 0; n < E::kUnit / kLanes; ++n) {
          const F weight = E::load(unit, n);
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) sums[r][c] = V::fma(weight, V::load(x[c] + i + n * kLanes), sums[r][c]);
        }
      }
    }
  } else {
  const auto step = [&](const auto& weights, const auto& inputs) {
    F in[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) in[c] = inputs(x[c]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F weight = weights(stored[r].data);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[r][c] = V::fma(weight, in[c], sums[r][c]);
    }
  };
  int64_t i = 0;
  const auto whole_step = [&] {
    step([&](const unsigned char* p) { return E::load(p + i * E::kBytes); },
         [&](const float* p) { return V::load(p + i); });
    i += kLanes;
  };
  if constexpr (C == 1) {
    // One token is bound by memory, which is waited for less when the processor is told in time what comes: the same
    // rows some lines ahead, then the next ones (reading beyond the matrix does no harm).
    constexpr int kLineSteps = kLineBytes / (kLanes * E::kBytes);
    constexpr int64_t kAhead = 2048;  // bytes
    while (i + kLineSteps * kLanes <= cols) {
      const int64_t ahead = i * E::kBytes + kAhead;
      const int64_t next = ahead + (ahead >= apart ? (R - 1) * apart : 0);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(stored[r].data + next, 0, 3);
#pragma GCC unroll 8
      for (int n = 0; n < kLineSteps; ++n) whole_step();
    }
  }
  while (i + kLanes <= cols) whole_step();
  if (i < cols) {
    step([&](const unsigned char* p) { return load_some<E>(p + i * E::kBytes, cols - i); },
         [&](const float* p) { return load_some(p + i, cols - i); });
  }
  }
#pragma GCC unroll 8
  for (int q = 0; q < R; q += 4) {
    if (q >= valid) break;
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const int real = valid - q < 4 ? valid - q : 4;
      put(tokens, token + c, row + q, real, V::sum4(sums[q][c], sums[q + 1][c], sums[q + 2][c], sums[q + 3][c]));
    }
  }
}

// Rows [row, end) for tokens [token, token + C).
template <class E, int C>
void rows_times(const Matrix& w, int64_t row, int64_t end, const TokenRows& tokens, int token) {
  constexpr int R = C == 1 ? 8 : 4;
  for (; row < end; row += R) tile<E, R, C>(w, tokens, token, row, end - row < R ? int(end - row) : R);
}

// As above for a number of tokens known at run time, at most kTileTokens.
template <class E, int C = V::kTileTokens>
void rows_times_some(int count, const Matrix& w, int64_t row, int64_t end, const TokenRows& tokens, int token) {
  if constexpr (C > 1) {
    if (count < C) return rows_times_some<E, C - 1>(count, w, row, end, tokens, token);
  }
  rows_times<E, C>(w, row, end, tokens, token);
}

template <class E>
void expand(const Matrix& w, int64_t row, float* out) {
  const StoredRow stored = stored_row(w, row);
  const int64_t n = w.cols;
  if constexpr (Blocks<E>) {
    for (int64_t i = 0; i < n; i += E::kUnit) {
      const auto unit = E::unit(w, stored, i);
      for (int step = 0; step < E::kUnit / kLanes; ++step) V::store(out + i + step * kLanes, E::load(unit, step));
    }
  } else {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) V::store(out + i, E::load(stored.data + i * E::kBytes));
    if (i < n) store_some(out + i, load_some<E>(stored.data + i * E::kBytes, n - i), n - i);
  }
}

// Widening the stored type costs nothing beside the products of a full tile, so weights are never
// copied: with many tokens, some rows at a time stay in the second-level cache while all tokens pass.
template <class E>
void dot_rows(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens) {
  constexpr int64_t kCached = 128 * 1024;
  const int64_t fitting = kCached / (row_bytes(w) + 1) / 8 * 8;
  const int64_t chunk = tokens.count <= V::kTileTokens ? end - begin : fitting < 8 ? 8 : fitting;
  const int blocks = (tokens.count + V::kTileTokens - 1) / V::kTileTokens;
  for (int64_t row = begin; row < end; row += chunk) {
    const int64_t chunk_end = end - row < chunk ? end : row + chunk;
    for (int block = 0; block < blocks; ++block) {
      const int first = int(int64_t(tokens.count) * block / blocks);
      const int last = int(int64_t(tokens.count) * (block + 1) / blocks);
      rows_times_some<E>(last - first, w, row, chunk_end, tokens, first);
    }
  }
}

// visit(E{}) for the element type.
template <class Visit>
auto with_type(Stored type, Visit&& visit) {
  switch (type) {
    case Stored::kF32:
      return visit(Float32{});
    case Stored::kBF16:
      return visit(BFloat16{});
    case Stored::kF16:
      return visit(Float16{});
    case Stored::kQ8_0:
      return visit(Q8_0{});
    case Stored::kQ4_K:
      return visit(Q4_K{});
    case Stored::kMxfp4:
      return visit(Mxfp4{});
    case Stored::kMxfp4Apart:
      return visit(Mxfp4Apart{});
    case Stored::kFp8:
      return visit(Fp8{});
  }
}

void dot_rows_of_any(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens) {
  with_type(w.type, [&]<class E>(E) { dot_rows<E>(w, begin, end, tokens); });
}

void load_row_of_any(const Matrix& w, int64_t row, float* out) {
  with_type(w.type, [&]<class E>(E) { expand<E>(w, row, out); });
}

// ---- elementwise ---------------------------------------------------------------------------------

// e^x to about 1 ulp (Cephes expf: reduction by ln 2 in two parts, polynomial of degree 6); 0 below
// the smallest normal number, e^88 above 88.
inline F exp(F x) {
  constexpr float kLowest = -87.33654f;
  const F clamped = V::min(V::max(x, V::set(kLowest)), V::set(88.0f));
  const F n = V::round(V::mul(clamped, V::set(1.44269504f)));
  F r = V::fma(n, V::set(-0.693359375f), clamped);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  F p = V::set(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = V::fma(p, r, V::set(c));
  p = V::add(V::fma(p, V::mul(r, r), r), V::set(1.0f));
  return V::zero_below(V::mul(p, V::pow2(n)), x, kLowest);
}

template <Unit unit>
F activate(F x) {
  if constexpr (unit == Unit::kRelu) return V::max(V::zero(), x);  // in this order NaN stays NaN
  if constexpr (unit == Unit::kSilu) return V::div(x, V::add(V::set(1.0f), exp(V::mul(x, V::set(-1.0f)))));
  if constexpr (unit == Unit::kGeluTanh) {  // x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the same function
    const F inner = V::fma(V::mul(V::mul(x, x), x), V::set(0.044715f), x);
    return V::div(x, V::add(V::set(1.0f), exp(V::mul(inner, V::set(-1.5957691216f)))));
  }
  if constexpr (unit == Unit::kGelu) {
    alignas(64) float lanes[kLanes];
    V::store(lanes, x);
    for (float& lane : lanes) lane = 0.5f * lane * (1.0f + __builtin_erff(lane * 0.70710678118f));
    return V::load(lanes);
  }
}

template <Unit unit>
void glu(const float* gate, const float* up, float scale, float* out, int64_t n) {
  const F factor = V::set(scale);
  const auto one = [&](F g, F u) { return V::mul(activate<unit>(V::mul(g, factor)), V::mul(u, factor)); };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(out + i, one(V::load(gate + i), V::load(up + i)));
  if (i < n) store_some(out + i, one(load_some(gate + i, n - i), load_some(up + i, n - i)), n - i);
}

void glu_of_any(Unit unit, const float* gate, const float* up, float scale, float* out, int64_t n) {
  switch (unit) {
    case Unit::kSilu:
      return glu<Unit::kSilu>(gate, up, scale, out, n);
    case Unit::kGelu:
      return glu<Unit::kGelu>(gate, up, scale, out, n);
    case Unit::kGeluTanh:
      return glu<Unit::kGeluTanh>(gate, up, scale, out, n);
    case Unit::kRelu:
      return glu<Unit::kRelu>(gate, up, scale, out, n);
  }
}

void glu_oss(const float* gate, const float* up, float limit, float alpha, float* out, int64_t n) {
  const F most = V::set(limit), least = V::set(-limit), one = V::set(1.0f), slope = V::set(-alpha);
  const auto both = [&](F g, F u) {
    g = V::min(most, g);  // in this order NaN stays NaN
    const F swish = V::div(g, V::add(one, exp(V::mul(g, slope))));
    return V::mul(V::add(V::max(least, V::min(most, u)), one), swish);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(out + i, both(V::load(gate + i), V::load(up + i)));
  if (i < n) store_some(out + i, both(load_some(gate + i, n - i), load_some(up + i, n - i)), n - i);
}

template <Unit unit>
void activate(const float* x, float scale, float* out, int64_t n) {
  const F factor = V::set(scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(out + i, activate<unit>(V::mul(V::load(x + i), factor)));
  if (i < n) store_some(out + i, activate<unit>(V::mul(load_some(x + i, n - i), factor)), n - i);
}

void activate_of_any(Unit unit, const float* x, float scale, float* out, int64_t n) {
  switch (unit) {
    case Unit::kSilu:
      return activate<Unit::kSilu>(x, scale, out, n);
    case Unit::kGelu:
      return activate<Unit::kGelu>(x, scale, out, n);
    case Unit::kGeluTanh:
      return activate<Unit::kGeluTanh>(x, scale, out, n);
    case Unit::kRelu:
      return activate<Unit::kRelu>(x, scale, out, n);
  }
}

void sigmoid_gate(const float* gates, float* values, int64_t n) {
  const auto one = [](F g, F x) { return V::div(x, V::add(V::set(1.0f), exp(V::mul(g, V::set(-1.0f))))); };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(values + i, one(V::load(gates + i), V::load(values + i)));
  if (i < n) store_some(values + i, one(load_some(gates + i, n - i), load_some(values + i, n - i)), n - i);
}

void rms_norm(const float* x, const float* weight, float eps, float* out, int64_t n) {
  F squares = V::zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) squares = V::fma(V::load(x + i), V::load(x + i), squares);
  if (i < n) {
    const F rest = load_some(x + i, n - i);
    squares = V::fma(rest, rest, squares);
  }
  const F factor = V::set(1.0f / __builtin_sqrtf(sum(squares) / float(n) + eps));
  for (i = 0; i + kLanes <= n; i += kLanes)
    V::store(out + i, V::mul(V::mul(V::load(x + i), factor), V::load(weight + i)));
  if (i < n) store_some(out + i, V::mul(V::mul(load_some(x + i, n - i), factor), load_some(weight + i, n - i)), n - i);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* out, int64_t n) {
  F total = V::zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total = V::add(total, V::load(x + i));
  if (i < n) total = V::add(total, load_some(x + i, n - i));
  const float mean = sum(total) / float(n);
  const F less = V::set(-mean);

  F squares = V::zero();
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const F centred = V::add(V::load(x + i), less);
    squares = V::fma(centred, centred, squares);
  }
  float variance = sum(squares);
  for (; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);

  const F factor = V::set(1.0f / __builtin_sqrtf(variance / float(n) + eps));
  const auto one = [&](F v, F w, F b) { return V::fma(V::mul(V::add(v, less), factor), w, b); };
  for (i = 0; i + kLanes <= n; i += kLanes)
    V::store(out + i, one(V::load(x + i), V::load(weight + i), V::load(bias + i)));
  if (i < n)
    store_some(out + i, one(load_some(x + i, n - i), load_some(weight + i, n - i), load_some(bias + i, n - i)), n - i);
}

#include "engine/backend/cpu/kernels_attention.h"

int64_t packed_floats(Stored, int, int64_t) { return 0; }
void pack(const float* const*, int, int64_t, float*) {}

constexpr Kernels table(Isa isa) {
  return {isa,      dot_rows_of_any, glu_of_any, glu_oss,       activate_of_any, sigmoid_gate,
          rms_norm, layer_norm,      attend,     attend_latent, load_row_of_any, packed_floats, pack};
}
