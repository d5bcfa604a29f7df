// Kernel 3 of engine.md section 5: attention of a query over the keys of the cache, split over the keys. A block takes
// the query heads of one key head (or some of them) and one stretch of keys; each of its warps takes every fourth key
// and keeps an online softmax. The last block of a group joins the stretches in their order, so a run repeats bit for
// bit.
#pragma once

#include "engine/backend/cuda/heads.cuh"

namespace switchyard::cuda {

inline constexpr int kAttendThreads = 128, kAttendWarps = kAttendThreads / kWarp;

template <class Key, int kPerLane>
__device__ __forceinline__ void load_vector(const unsigned char* row, int dim, float (&out)[kPerLane]) {
  for (int j = 0; j < kPerLane; ++j) {
    const int i = lane() * kPerLane + j;
    if constexpr (sizeof(Key) == 4)
      out[j] = i < dim ? load_key<float>(row + size_t(i) * 4) : 0.0f;
    else
      out[j] = i < dim ? bf16_to_float(load_key<uint16_t>(row + size_t(i) * 2)) : 0.0f;
  }
}

// One query's softmax so far: largest score, sum, and this lane's part of the weighted values.
template <int kPerLane>
struct Softmax {
  float largest = -INFINITY, sum = 0;
  float values[kPerLane] = {};

  __device__ void add(float score, const float (&value)[kPerLane]) {
    const float top = score > largest ? score : largest;
    const float before = expf(largest - top), own = expf(score - top);
    sum = sum * before + own;
    for (int j = 0; j < kPerLane; ++j) values[j] = values[j] * before + own * value[j];
    largest = top;
  }
};

// The first key that the query at this position sees.
__device__ __forceinline__ int first_visible(const AttendJob& job, int position) {
  const int windowed = job.window > 0 ? position - job.window + 1 : 0,
            chunked = job.chunk > 0 ? position - position % job.chunk : 0;
  return windowed > chunked ? (windowed > 0 ? windowed : 0) : chunked;
}

// Grid: (kv_heads * ceil(shared / kQueries), splits, tokens). shared: query heads of a key head.
template <class Key, int kPerLane, int kQueries>
__global__ void __launch_bounds__(kAttendThreads) attend(const StepState* state, AttendJob job) {
  DYNAMIC_SHARED(float, joined);  // [warps][queries][value_dim + 2]
  let_next_start();
  wait_for_previous();
  const KeyPlace& place = job.place;
  const int shared_heads = job.heads / place.kv_heads, parts = (shared_heads + kQueries - 1) / kQueries;
  const int kv_head = int(blockIdx.x) / parts, first_query = int(blockIdx.x) % parts * kQueries;
  const int queries = shared_heads - first_query < kQueries ? shared_heads - first_query : kQueries;
  const int first_head = kv_head * shared_heads + first_query, token = int(blockIdx.z),
            position = state->position + token;

  const int begin = first_visible(job, position), keys = position + 1 - begin;
  int stretch = (keys + int(gridDim.y) - 1) / int(gridDim.y);
  stretch = (stretch + kAttendWarps - 1) / kAttendWarps * kAttendWarps;
  const int active = (keys + stretch - 1) / stretch, split = int(blockIdx.y);
  if (split >= active) return;
  const int from = begin + split * stretch, to = from + stretch < position + 1 ? from + stretch : position + 1;

  float query[kQueries][kPerLane];
  Softmax<kPerLane> softmax[kQueries];
  for (int i = 0; i < kQueries; ++i) {
    const float* row = job.queries + (int64_t(token) * job.heads + first_head + (i < queries ? i : 0)) * place.head_dim;
    for (int j = 0; j < kPerLane; ++j) {
      const int d = lane() * kPerLane + j;
      query[i][j] = d < place.head_dim ? row[d] * job.scale : 0.0f;
    }
  }
  const bool latent = place.keys == place.values;
  for (int key = from + warp(); key < to; key += kAttendWarps) {
    float k[kPerLane], v[kPerLane];
    load_vector<Key, kPerLane>(key_row(*state, place, place.keys, place.head_dim, kv_head, key), place.head_dim, k);
    if (latent)
      for (int j = 0; j < kPerLane; ++j) v[j] = k[j];
    else
      load_vector<Key, kPerLane>(key_row(*state, place, place.values, place.value_dim, kv_head, key), place.value_dim,
                                 v);
    for (int i = 0; i < kQueries; ++i) {
      if (i >= queries) break;
      float product = 0;
      for (int j = 0; j < kPerLane; ++j) product += query[i][j] * k[j];
      softmax[i].add(warp_sum(product), v);
    }
  }

  // The warps' states side by side, then one after the other.
  const int state_size = place.value_dim + 2;
  for (int i = 0; i < kQueries; ++i) {
    if (i >= queries) break;
    float* own = joined + (warp() * kQueries + i) * state_size;
    if (lane() == 0) own[0] = softmax[i].largest, own[1] = softmax[i].sum;
    for (int j = 0; j < kPerLane; ++j)
      if (lane() * kPerLane + j < place.value_dim) own[2 + lane() * kPerLane + j] = softmax[i].values[j];
  }
  __syncthreads();

  // Joins `count` states that lie `apart` numbers from each other into `out`; as a result where finish, else as a
  // state.
  const auto join = [&](const float* states, int count, int64_t apart, int head, bool finish, float* out) {
    float largest = finish && job.sinks ? job.sinks[head] : -INFINITY;
    for (int s = 0; s < count; ++s) largest = fmaxf(largest, states[s * apart]);
    float sum = finish && job.sinks ? expf(job.sinks[head] - largest) : 0.0f;
    for (int s = 0; s < count; ++s)
      sum += states[s * apart + 1] == 0 ? 0.0f : states[s * apart + 1] * expf(states[s * apart] - largest);
    for (int d = int(threadIdx.x); d < place.value_dim; d += kAttendThreads) {
      float value = 0;
      for (int s = 0; s < count; ++s)
        if (states[s * apart + 1] != 0) value += states[s * apart + 2 + d] * expf(states[s * apart] - largest);
      out[finish ? d : d + 2] = finish ? value / sum : value;
    }
    if (!finish && threadIdx.x == 0) out[0] = largest, out[1] = sum;
  };
  for (int i = 0; i < queries; ++i) {
    const int64_t head = int64_t(token) * job.heads + first_head + i;
    float* out =
        active == 1 ? job.out + head * place.value_dim : job.partial + (head * int(gridDim.y) + split) * state_size;
    join(joined + i * state_size, kAttendWarps, int64_t(kQueries) * state_size, first_head + i, active == 1, out);
  }
  if (active == 1 || !last_to_arrive(job.arrived + int(blockIdx.z * gridDim.x + blockIdx.x), unsigned(active))) return;
  for (int i = 0; i < queries; ++i) {
    const int64_t head = int64_t(token) * job.heads + first_head + i;
    join(job.partial + head * int(gridDim.y) * state_size, active, state_size, first_head + i, true,
         job.out + head * place.value_dim);
  }
}

__device__ __forceinline__ float key_number(Stored type, const unsigned char* row, int i) {
  return type == Stored::kF32 ? load_key<float>(row + size_t(i) * 4)
                              : bf16_to_float(load_key<uint16_t>(row + size_t(i) * 2));
}

// Grid: tokens. A head at a time: every warp takes every fourth key, the scores of the last `window` keys stay.
__global__ void __launch_bounds__(kAttendThreads)
    attend_shares(const StepState* state, AttendJob job, int window, float* shares) {
  DYNAMIC_SHARED(float, scores);
  STATIC_SHARED(float, joined, 2 * kAttendWarps);
  let_next_start();
  wait_for_previous();
  const KeyPlace& place = job.place;
  const int token = int(blockIdx.x), position = state->position + token, begin = first_visible(job, position);
  const int from = begin > position - window + 1 ? begin : position - window + 1;
  float* const out = shares + int64_t(token) * window;
  for (int head = 0; head < job.heads; ++head) {
    const int kv_head = head / (job.heads / place.kv_heads);
    const float* const query = job.queries + (int64_t(token) * job.heads + head) * place.head_dim;
    float largest = -INFINITY, sum = 0;
    for (int key = begin + warp(); key <= position; key += kAttendWarps) {
      const unsigned char* const row = key_row(*state, place, place.keys, place.head_dim, kv_head, key);
      float score = 0;
      for (int d = lane(); d < place.head_dim; d += kWarp)
        score += query[d] * job.scale * key_number(place.type, row, d);
      score = warp_sum(score);
      const float top = score > largest ? score : largest;
      sum = sum * expf(largest - top) + expf(score - top);
      largest = top;
      if (key >= from && lane() == 0) scores[position - key] = score;
    }
    if (lane() == 0) joined[2 * warp()] = largest, joined[2 * warp() + 1] = sum;
    __syncthreads();
    float top = job.sinks ? job.sinks[head] : -INFINITY;
    for (int w = 0; w < kAttendWarps; ++w) top = fmaxf(top, joined[2 * w]);
    float total = job.sinks ? expf(job.sinks[head] - top) : 0.0f;
    for (int w = 0; w < kAttendWarps; ++w)
      if (joined[2 * w + 1] != 0) total += joined[2 * w + 1] * expf(joined[2 * w] - top);
    for (int o = int(threadIdx.x); o < window; o += kAttendThreads) {
      const float share = position - o >= from ? expf(scores[o] - top) / total : 0.0f;
      out[o] = ((head == 0 ? 0.0f : out[o]) + share) / (head == job.heads - 1 ? float(job.heads) : 1.0f);
    }
    __syncthreads();  // before the next head's scores
  }
}

}  // namespace switchyard::cuda
