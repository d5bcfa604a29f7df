// The kernels, written once over a vector type V; each kernels_<isa>.cpp defines its V in an anonymous
// namespace, includes this file there and exports one table. Only for those files.
//
// V gives: kLanes, F (a vector of floats), Quad (4 floats), zero, set, load, store, fma, add, mul, div,
// max, min, round, pow2 (of integral values), zero_below, sum4 (4 vectors to their 4 sums), quad_fma,
// load_f32 / load_bf16 / load_f16, and kTileTokens, the tokens of a matrix tile.

constexpr int kLanes = V::kLanes;
constexpr int kLineBytes = 64;
using F = V::F;
using Quad = V::Quad;

// ---- stored element types ------------------------------------------------------------------------

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

// R weight rows times C tokens, one running sum per lane of each product, all in registers. Row r
// begins at w + r * row_bytes; there are `valid` of them.
template <class E, int R, int C>
void tile(const unsigned char* w, int64_t row_bytes, int64_t cols, const TokenRows& tokens, int token, int64_t row,
          int valid) {
  const unsigned char* rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) rows[r] = w + (r < valid ? r : valid - 1) * row_bytes;
  const float* x[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) x[c] = tokens.x[token + c];

  F sums[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sums[r][c] = V::zero();

  const auto step = [&](const auto& weights, const auto& inputs) {
    F in[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) in[c] = inputs(x[c]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F weight = weights(rows[r]);
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
    // One token is bound by memory: while these rows are read, the same columns of the next ones are
    // on their way to the second-level cache (a prefetch beyond the matrix does no harm).
    constexpr int kLineSteps = kLineBytes / (kLanes * E::kBytes);
    const int64_t ahead = R * row_bytes;
    while (i + kLineSteps * kLanes <= cols) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(rows[r] + ahead + i * E::kBytes, 0, 2);
#pragma GCC unroll 8
      for (int n = 0; n < kLineSteps; ++n) whole_step();
    }
  }
  while (i + kLanes <= cols) whole_step();
  if (i < cols) {
    step([&](const unsigned char* p) { return load_some<E>(p + i * E::kBytes, cols - i); },
         [&](const float* p) { return load_some(p + i, cols - i); });
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

// Rows [0, rows) at `w`, whose outputs begin at `row`, for tokens [token, token + C).
template <class E, int C>
void rows_times(const unsigned char* w, int64_t cols, int64_t rows, const TokenRows& tokens, int token, int64_t row) {
  constexpr int R = C == 1 ? 8 : 4;
  const int64_t row_bytes = cols * E::kBytes;
  for (int64_t r = 0; r < rows; r += R)
    tile<E, R, C>(w + r * row_bytes, row_bytes, cols, tokens, token, row + r, rows - r < R ? int(rows - r) : R);
}

// As above for a number of tokens known at run time, at most kTileTokens.
template <class E, int C = V::kTileTokens>
void rows_times_some(int count, const unsigned char* w, int64_t cols, int64_t rows, const TokenRows& tokens, int token,
                     int64_t row) {
  if constexpr (C > 1) {
    if (count < C) return rows_times_some<E, C - 1>(count, w, cols, rows, tokens, token, row);
  }
  rows_times<E, C>(w, cols, rows, tokens, token, row);
}

template <class E>
void expand(const unsigned char* data, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(out + i, E::load(data + i * E::kBytes));
  if (i < n) store_some(out + i, load_some<E>(data + i * E::kBytes, n - i), n - i);
}

// Widening the stored type costs nothing beside the products of a full tile, so weights are never
// copied: with many tokens, some rows at a time stay in the second-level cache while all tokens pass.
template <class E>
void dot_rows(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens) {
  constexpr int64_t kCached = 128 * 1024;
  const int64_t row_bytes = w.cols * E::kBytes;
  const int64_t fitting = kCached / (row_bytes + 1) / 8 * 8;
  const int64_t chunk = tokens.count <= V::kTileTokens ? end - begin : fitting < 8 ? 8 : fitting;
  const int blocks = (tokens.count + V::kTileTokens - 1) / V::kTileTokens;
  for (int64_t row = begin; row < end; row += chunk) {
    const int64_t rows = end - row < chunk ? end - row : chunk;
    for (int block = 0; block < blocks; ++block) {
      const int first = int(int64_t(tokens.count) * block / blocks);
      const int last = int(int64_t(tokens.count) * (block + 1) / blocks);
      rows_times_some<E>(last - first, w.data + row * row_bytes, w.cols, rows, tokens, first, row);
    }
  }
}

void dot_rows_of_any(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens) {
  switch (w.type) {
    case Stored::kF32:
      return dot_rows<Float32>(w, begin, end, tokens);
    case Stored::kBF16:
      return dot_rows<BFloat16>(w, begin, end, tokens);
    case Stored::kF16:
      return dot_rows<Float16>(w, begin, end, tokens);
  }
}

void load_of_any(const unsigned char* data, Stored type, float* out, int64_t n) {
  switch (type) {
    case Stored::kF32:
      return expand<Float32>(data, out, n);
    case Stored::kBF16:
      return expand<BFloat16>(data, out, n);
    case Stored::kF16:
      return expand<Float16>(data, out, n);
  }
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
  if constexpr (unit == Unit::kRelu) return V::max(x, V::zero());
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

// ---- attention -----------------------------------------------------------------------------------

constexpr int kVectorsPerGroup = kKeyGroup / kLanes;

// q.k of N queries and G key groups; lanes are keys, so nothing is summed across lanes.
template <int N, int G>
void score(const float* const* q, const float* keys, int head_dim, float* scores) {
  constexpr int kVectors = G * kVectorsPerGroup;
  F sums[N][kVectors];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[n][v] = V::zero();
  for (int d = 0; d < head_dim; ++d) {
    F key[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const int group = v / kVectorsPerGroup, part = v % kVectorsPerGroup;
      key[v] = V::load(keys + (int64_t(group) * head_dim + d) * kKeyGroup + part * kLanes);
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const F value = V::set(q[n][d]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[n][v] = V::fma(value, key[v], sums[n][v]);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) V::store(scores + n * kKeyBlock + v * kLanes, sums[n][v]);
}

template <int N, int G>
void score_block(const float* const* q, const float* keys, int head_dim, float* scores) {
  for (int group = 0; group < kKeyBlock / kKeyGroup; group += G)
    score<N, G>(q, keys + int64_t(group) * head_dim * kKeyGroup, head_dim, scores + group * kKeyGroup);
}

// values[n] += sum over keys [first, last) of p[n][key] * value[key], in the order of the keys.
template <int N>
void weigh_values(const float* p, const float* block, int value_dim, int first, int last, float* values) {
  constexpr int kWide = kLanes == 16 ? 4 : 2;
  const auto columns = [&]<int W>(int d) {
    F sums[N][W];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < W; ++v) sums[n][v] = V::load(values + int64_t(n) * value_dim + d + v * kLanes);
    for (int key = first; key < last; ++key) {
      F in[W];
#pragma GCC unroll 8
      for (int v = 0; v < W; ++v) in[v] = V::load(block + int64_t(key) * value_dim + d + v * kLanes);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const F weight = V::set(p[n * kKeyBlock + key]);
#pragma GCC unroll 8
        for (int v = 0; v < W; ++v) sums[n][v] = V::fma(weight, in[v], sums[n][v]);
      }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < W; ++v) V::store(values + int64_t(n) * value_dim + d + v * kLanes, sums[n][v]);
  };
  int d = 0;
  for (; d + kWide * kLanes <= value_dim; d += kWide * kLanes) columns.template operator()<kWide>(d);
  for (; d < value_dim; d += kLanes) columns.template operator()<1>(d);
}

// Scores of one query to exponentials; rescales what the state holds.
void soften(const Queries& queries, int n, int value_dim, const AttentionState& state, float* p) {
  const int first = queries.first[n], last = queries.last[n];
  for (int key = 0; key < first; ++key) p[key] = -__builtin_inff();
  for (int key = last; key < kKeyBlock; ++key) p[key] = -__builtin_inff();
  F most = V::set(-__builtin_inff());
  for (int key = 0; key < kKeyBlock; key += kLanes) {
    const F scaled = V::mul(V::load(p + key), V::set(queries.scale));
    V::store(p + key, scaled);
    most = V::max(most, scaled);
  }
  alignas(64) float lanes[kLanes];
  V::store(lanes, most);
  float largest = state.largest[n];
  for (const float lane : lanes) largest = lane > largest ? lane : largest;

  const F before = exp(V::set(state.largest[n] - largest));
  F total = V::zero();
  for (int key = 0; key < kKeyBlock; key += kLanes) {
    const F e = exp(V::add(V::load(p + key), V::set(-largest)));
    V::store(p + key, e);
    total = V::add(total, e);
  }
  V::store(lanes, before);
  state.sum[n] = state.sum[n] * lanes[0] + sum(total);
  state.largest[n] = largest;
  float* values = state.values + int64_t(n) * value_dim;
  for (int d = 0; d < value_dim; d += kLanes) V::store(values + d, V::mul(V::load(values + d), before));
}

// Queries [n, n + N): scores, exponentials, values. Keys that only some of the queries see are taken
// query by query, so that a value a query may not see never enters its sum, not even times zero.
template <int N>
void attend_some(const Queries& queries, int n, const float* keys, const float* block, int head_dim,
                 const AttentionState& state, float* scores) {
  const int value_dim = (head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
  score_block<N, N == 1 ? 4 : kLanes == 16 ? 2 : 1>(queries.q + n, keys, head_dim, scores);
  int common_first = 0, common_last = kKeyBlock;
  for (int i = 0; i < N; ++i) {
    if (queries.first[n + i] >= queries.last[n + i]) {
      common_last = 0;
      continue;
    }
    soften(queries, n + i, value_dim, state, scores + i * kKeyBlock);
    common_first = queries.first[n + i] > common_first ? queries.first[n + i] : common_first;
    common_last = queries.last[n + i] < common_last ? queries.last[n + i] : common_last;
  }
  if (common_last < common_first) common_last = common_first;
  const auto alone = [&](int first, int last) {
    for (int i = 0; i < N; ++i) {
      const int from = first > queries.first[n + i] ? first : queries.first[n + i];
      const int to = last < queries.last[n + i] ? last : queries.last[n + i];
      if (from < to)
        weigh_values<1>(scores + i * kKeyBlock, block, value_dim, from, to, state.values + int64_t(n + i) * value_dim);
    }
  };
  alone(0, common_first);
  if (common_first < common_last)
    weigh_values<N>(scores, block, value_dim, common_first, common_last, state.values + int64_t(n) * value_dim);
  alone(common_last, kKeyBlock);
}

void attend(const Queries& queries, const float* keys, const float* values, int head_dim, AttentionState state,
            float* scores) {
  int n = 0;
  for (; n + 4 <= queries.count; n += 4) attend_some<4>(queries, n, keys, values, head_dim, state, scores);
  for (; n + 2 <= queries.count; n += 2) attend_some<2>(queries, n, keys, values, head_dim, state, scores);
  for (; n < queries.count; ++n) attend_some<1>(queries, n, keys, values, head_dim, state, scores);
}

constexpr Kernels table(Isa isa) {
  return {isa, dot_rows_of_any, glu_of_any, rms_norm, attend, load_of_any};
}
