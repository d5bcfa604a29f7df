// The part of kernels_body.h that is attention: scores, softmax, weighted values of one block of keys.
// Included by kernels_body.h inside the anonymous namespace of a kernels_<isa>.cpp; see there.

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

// Values in rows of their own. Keys that only some of the queries see are taken query by query, so that
// a value a query may not see never enters its sum, not even times zero.
struct ValueRows {
  const float* block;
  int dim;  // of the state

  template <int N>
  void add(const Queries& queries, int n, const float* p, const AttentionState& state) const {
    int common_first = 0, common_last = kKeyBlock;
    for (int i = 0; i < N; ++i) {
      if (queries.first[n + i] >= queries.last[n + i]) {
        common_last = 0;
        continue;
      }
      common_first = queries.first[n + i] > common_first ? queries.first[n + i] : common_first;
      common_last = queries.last[n + i] < common_last ? queries.last[n + i] : common_last;
    }
    if (common_last < common_first) common_last = common_first;
    const auto alone = [&](int first, int last) {
      for (int i = 0; i < N; ++i) {
        const int from = first > queries.first[n + i] ? first : queries.first[n + i];
        const int to = last < queries.last[n + i] ? last : queries.last[n + i];
        if (from < to) weigh_values<1>(p + i * kKeyBlock, block, dim, from, to, state.values + int64_t(n + i) * dim);
      }
    };
    alone(0, common_first);
    if (common_first < common_last)
      weigh_values<N>(p, block, dim, common_first, common_last, state.values + int64_t(n) * dim);
    alone(common_last, kKeyBlock);
  }
};

// values[n] += sum over the block's keys of p[n][key] * the key's first `rank` dimensions. Lanes are keys,
// as in the key store; hidden: a key with p = 0 counts nothing, whatever it holds.
template <int N, bool hidden>
void weigh_keys(const float* p, const float* keys, int head_dim, int rank, int dim, float* values) {
  constexpr float kSmallest = 1e-40f;  // below every exponential that is not zero
  for (int d = 0; d < rank; d += 4) {
    F sums[4][N];
#pragma GCC unroll 8
    for (int r = 0; r < 4; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[r][n] = V::zero();
    for (int key = 0; key < kKeyBlock; key += kLanes) {
      const float* group = keys + int64_t(key / kKeyGroup) * head_dim * kKeyGroup + key % kKeyGroup;
      F weight[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) weight[n] = V::load(p + n * kKeyBlock + key);
#pragma GCC unroll 8
      for (int r = 0; r < 4; ++r) {
        const F in = V::load(group + int64_t(d + r < rank ? d + r : rank - 1) * kKeyGroup);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
          sums[r][n] = V::fma(weight[n], hidden ? V::zero_below(in, weight[n], kSmallest) : in, sums[r][n]);
      }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      float* out = values + int64_t(n) * dim + d;
      Quad old;
      __builtin_memcpy(&old, out, sizeof(old));
      const Quad now = V::quad_fma(V::sum4(sums[0][n], sums[1][n], sums[2][n], sums[3][n]), 1.0f, old);
      __builtin_memcpy(out, &now, sizeof(now));
    }
  }
}

// Values that are the first dimensions of the keys.
struct LatentValues {
  const float* keys;
  int head_dim, rank;
  int dim;  // of the state

  template <int N>
  void add(const Queries& queries, int n, float* p, const AttentionState& state) const {
    bool hidden = false;
    for (int i = 0; i < N; ++i) {
      hidden = hidden || queries.first[n + i] > 0 || queries.last[n + i] < kKeyBlock;
      if (queries.first[n + i] < queries.last[n + i]) continue;
      for (int key = 0; key < kKeyBlock; ++key) p[i * kKeyBlock + key] = 0;
    }
    constexpr int kTogether = kLanes == 16 || N < 2 ? N : 2;  // 4 x 2 sums, 2 weights, 1 key of 16 registers
    for (int i = 0; i < N; i += kTogether) {
      float* values = state.values + int64_t(n + i) * dim;
      if (hidden)
        weigh_keys<kTogether, true>(p + i * kKeyBlock, keys, head_dim, rank, dim, values);
      else
        weigh_keys<kTogether, false>(p + i * kKeyBlock, keys, head_dim, rank, dim, values);
    }
  }
};

// Queries [n, n + N): scores, exponentials, values.
template <int N, class Values>
void attend_some(const Queries& queries, int n, const float* keys, int head_dim, const Values& values,
                 const AttentionState& state, float* scores) {
  score_block<N, N == 1 ? 4 : kLanes == 16 ? 2 : 1>(queries.q + n, keys, head_dim, scores);
  for (int i = 0; i < N; ++i)
    if (queries.first[n + i] < queries.last[n + i]) soften(queries, n + i, values.dim, state, scores + i * kKeyBlock);
  values.template add<N>(queries, n, scores, state);
}

template <class Values>
void attend_to(const Queries& queries, const float* keys, int head_dim, const Values& values,
               const AttentionState& state, float* scores) {
  int n = 0;
  for (; n + 4 <= queries.count; n += 4) attend_some<4>(queries, n, keys, head_dim, values, state, scores);
  for (; n + 2 <= queries.count; n += 2) attend_some<2>(queries, n, keys, head_dim, values, state, scores);
  for (; n < queries.count; ++n) attend_some<1>(queries, n, keys, head_dim, values, state, scores);
}

void attend(const Queries& queries, const float* keys, const float* values, int head_dim, AttentionState state,
            float* scores) {
  const int dim = (head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
  attend_to(queries, keys, head_dim, ValueRows{values, dim}, state, scores);
}

void attend_latent(const Queries& queries, const float* keys, int head_dim, int rank, AttentionState state,
                   float* scores) {
  const int dim = (rank + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
  attend_to(queries, keys, head_dim, LatentValues{keys, head_dim, rank, dim}, state, scores);
}
