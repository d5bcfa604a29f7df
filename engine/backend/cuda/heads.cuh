// Kernel 2 of engine.md section 5: what is done to queries and keys between projection and attention, and keys and
// values into the cache. A block a head; queries go to a buffer of their own, because a norm over all heads reads them
// all.
#pragma once

#include "engine/backend/cuda/dot.cuh"

namespace switchyard::cuda {

inline constexpr int kHeadThreads = 128;

__device__ __forceinline__ unsigned char* key_row(const StepState& state, const KeyPlace& place, size_t offset, int dim,
                                                  int kv_head, int position) {
  const size_t row = size_t(kv_head) * kKeyBlock + size_t(position % kKeyBlock);
  return state.blocks[position / kKeyBlock] + offset + row * size_t(dim) * size_t(stored_bytes(place.type));
}
__device__ __forceinline__ void store_number(Stored type, unsigned char* row, int i, float value) {
  if (type == Stored::kF32)
    reinterpret_cast<float*>(row)[i] = value;
  else
    reinterpret_cast<uint16_t*>(row)[i] = float_to_bf16(value);
}

// x[dims] turned by the angles of this position.
__device__ inline void rotate(const Rope& rope, int position, float* x) {
  if (!rope.cosines) return;
  __syncthreads();
  const int pairs = rope.dims / 2, first = rope.interleaved ? 2 : 1, other = rope.interleaved ? 1 : pairs;
  for (int i = int(threadIdx.x); i < pairs; i += int(blockDim.x)) {
    const float cosine = rope.cosines[int64_t(position) * pairs + i], sine = rope.sines[int64_t(position) * pairs + i];
    const float a = x[i * first], b = x[i * first + other];
    x[i * first] = a * cosine - b * sine;
    x[i * first + other] = b * cosine + a * sine;
  }
  __syncthreads();
}

// Norm over this head, or the head's part of a norm over all of them.
__device__ inline void norm_head(const Norm& norm, bool whole, const float* all, int all_count, int head, int dim,
                                 float* x) {
  STATIC_SHARED(float, partial, kWarp);
  const float* over = whole ? all : x;
  const int count = whole ? all_count : dim;
  float squares = 0;
  __syncthreads();
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) squares += over[i] * over[i];
  const float factor = 1.0f / sqrtf(block_sum(squares, partial) / float(count) + norm.eps);
  for (int i = int(threadIdx.x); i < dim; i += int(blockDim.x))
    x[i] = x[i] * factor * norm.weight[whole ? head * dim + i : i];
}

// Grid: (heads + 2 kv_heads, tokens).
__global__ void __launch_bounds__(kHeadThreads) finish_heads(const StepState* state, HeadJob job) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  const int token = int(blockIdx.y), position = state->position + token, dim = job.place.head_dim;
  const int unit = int(blockIdx.x), kv_heads = job.place.kv_heads;
  const bool query = unit < job.heads, value = unit >= job.heads + kv_heads;
  const int head = query ? unit : value ? unit - job.heads - kv_heads : unit - job.heads;
  const float* row = job.qkv + int64_t(token) * job.step;
  const float* all = row + (query ? 0 : value ? (job.heads + kv_heads) * dim : job.heads * dim);
  for (int i = int(threadIdx.x); i < dim; i += int(blockDim.x)) x[i] = all[head * dim + i];
  const bool late = job.qk_norm == QkNorm::kPerHeadPostRope || job.qk_norm == QkNorm::kL2PostRope;
  const bool whole = job.qk_norm == QkNorm::kFullVector;
  const Norm& norm = query ? job.query_norm : job.key_norm;
  const int count = (query ? job.heads : kv_heads) * dim;
  if (!value && norm.weight && !late) norm_head(norm, whole, all, count, head, dim, x);
  if (job.clip > 0)
    for (int i = int(threadIdx.x); i < dim; i += int(blockDim.x)) x[i] = fminf(fmaxf(x[i], -job.clip), job.clip);
  if (!value) rotate(job.rope, position, x);
  if (!value && norm.weight && late) norm_head(norm, false, all, count, head, dim, x);
  __syncthreads();
  if (query) {
    const float warmth = job.temperature_floor > 0
                             ? 1 + job.temperature_scale * log1pf(floorf(float(position + 1) / job.temperature_floor))
                             : 1.0f;
    float* out = job.queries + (int64_t(token) * job.heads + head) * dim;
    for (int i = int(threadIdx.x); i < dim; i += int(blockDim.x)) out[i] = x[i] * warmth;
    return;
  }
  unsigned char* out = key_row(*state, job.place, value ? job.place.values : job.place.keys, dim, head, position);
  for (int i = int(threadIdx.x); i < dim; i += int(blockDim.x)) store_number(job.place.type, out, i, x[i]);
}

// Grid: (1 + heads, tokens).
__global__ void __launch_bounds__(kHeadThreads) finish_latents(const StepState* state, LatentJob job) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  const int token = int(blockIdx.y), position = state->position + token, latent = job.place.value_dim;
  if (blockIdx.x == 0) {
    const float* row = job.first + int64_t(token) * job.step;
    load_normed(row, job.latent_norm, latent, x);
    for (int i = int(threadIdx.x); i < latent; i += int(blockDim.x)) x[i] *= job.latent_scale;
    for (int i = int(threadIdx.x); i < job.rope_dims; i += int(blockDim.x)) x[latent + i] = row[latent + i];
    rotate(job.rope, position, x + latent);
    __syncthreads();
    unsigned char* out = key_row(*state, job.place, job.place.keys, job.place.head_dim, 0, position);
    for (int i = int(threadIdx.x); i < job.place.head_dim; i += int(blockDim.x))
      store_number(job.place.type, out, i, x[i]);
    return;
  }
  const int head = int(blockIdx.x) - 1, dim = job.nope + job.rope_dims;
  const int64_t at = int64_t(token) * job.heads + head;
  float* query = job.queries + at * dim;
  for (int i = int(threadIdx.x); i < dim; i += int(blockDim.x)) {
    const float scaled = query[i] * job.query_scale;
    query[i] = scaled;
    if (i >= job.nope) x[i - job.nope] = scaled;
  }
  rotate(job.rope, position, x);
  __syncthreads();
  float* out = job.absorbed + at * job.place.head_dim + latent;
  for (int i = int(threadIdx.x); i < job.rope_dims; i += int(blockDim.x)) out[i] = x[i];
}

}  // namespace switchyard::cuda
