// Many tokens at a time: products as tiles, of all tokens or of those that chose an expert, by fp32 sums on the ordinary
// cores: for matrices that are not bf16 (those: tensor.cuh). Slots are sorted by expert with counts and ranks, in the
// order of the tokens; every sum has one order.
#pragma once

#include "engine/backend/cuda/experts.cuh"

namespace switchyard::cuda {

inline constexpr int kTile = 64, kTileDepth = 16, kTileThreads = 256;  // a thread makes 4 x 4 numbers of a tile

// Inputs of a tile, `step` numbers apart of which `cols` count: number r is from[rows[first + r]], or from[first + r].
struct TileRows {
  const float* from = nullptr;
  const int32_t* rows = nullptr;
  int first = 0, count = 0, cols = 0, step = 0;

  __device__ const float* row(int r) const { return from + int64_t(rows ? rows[first + r] : first + r) * step; }
};

// Into shared memory, transposed.
__device__ inline void load_tile(const TileRows& x, int depth, float (*tile)[kTile + 1]) {
  for (int i = int(threadIdx.x); i < kTile * kTileDepth; i += kTileThreads) {
    const int r = i / kTileDepth, d = i % kTileDepth;
    float value = 0;
    if (r < x.count && depth + d < x.cols) value = x.row(r)[depth + d];
    tile[d][r] = value;
  }
}
__device__ inline void load_tile(Stored type, const unsigned char* matrix, int first, int rows, int cols, int depth,
                                 float (*tile)[kTile + 1]) {
  for (int i = int(threadIdx.x); i < kTile * kTileDepth; i += kTileThreads) {
    const int r = i / kTileDepth, d = i % kTileDepth;
    tile[d][r] =
        first + r < rows && depth + d < cols ? load_number(type, matrix, int64_t(first + r) * cols + depth + d) : 0.0f;
  }
}
__device__ __forceinline__ void multiply_tile(const float (*x)[kTile + 1], const float (*w)[kTile + 1],
                                              float (&sums)[4][4]) {
  const int r = int(threadIdx.x) / 16 * 4, c = int(threadIdx.x) % 16 * 4;
  for (int d = 0; d < kTileDepth; ++d)
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) sums[i][j] += x[d][r + i] * w[d][c + j];
}

// out = in * matrix^T. Grid: (tiles of rows of the matrix, tiles of tokens).
__global__ void __launch_bounds__(kTileThreads) multiply_tiles(TileJob job) {
  STATIC_SHARED(float, x_memory, kTileDepth*(kTile + 1));
  STATIC_SHARED(float, w_memory, kTileDepth*(kTile + 1));
  const auto x = reinterpret_cast<float(*)[kTile + 1]>(x_memory), w = reinterpret_cast<float(*)[kTile + 1]>(w_memory);
  let_next_start();
  wait_for_previous();
  const int column = int(blockIdx.x) * kTile, token = int(blockIdx.y) * kTile;
  const int count = job.tokens - token < kTile ? job.tokens - token : kTile;
  const TileRows rows{job.in, nullptr, token, count, job.matrix.cols, job.matrix.cols};
  float sums[4][4] = {};
  for (int depth = 0; depth < job.matrix.cols; depth += kTileDepth) {
    __syncthreads();
    load_tile(rows, depth, x);
    load_tile(job.matrix.type, job.matrix.data, column, job.matrix.rows, job.matrix.cols, depth, w);
    __syncthreads();
    multiply_tile(x, w, sums);
  }
  const int r = int(threadIdx.x) / 16 * 4, c = column + int(threadIdx.x) % 16 * 4;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      if (r + i >= rows.count || c + j >= job.matrix.rows) continue;
      float* out = job.out + int64_t(token + r + i) * job.step + job.at + c + j;
      const float y = job.factor * (sums[i][j] + (job.bias ? job.bias[c + j] : 0.0f));
      *out = job.adds ? *out + y : y;
    }
}

__device__ __forceinline__ bool holds(const Chosen& chosen, int tokens, int expert, int64_t at) {
  const int token = int(at / chosen.slots);
  return token < tokens && int(at % chosen.slots) < chosen.count[token] && chosen.experts[at] == expert;
}

// Grid: experts, a warp each.
__global__ void __launch_bounds__(kWarp) count_slots(Chosen chosen, int tokens, Sorted sorted) {
  let_next_start();
  wait_for_previous();
  const int expert = int(blockIdx.x);
  int count = 0;
  for (int64_t first = 0; first < int64_t(tokens) * chosen.slots; first += kWarp)
    count += __popc(__ballot_sync(kAllLanes, holds(chosen, tokens, expert, first + lane())));
  if (lane() == 0) sorted.counts[expert] = count;
}

__global__ void __launch_bounds__(kWarp) place_slots(Chosen chosen, int tokens, Sorted sorted) {
  let_next_start();
  wait_for_previous();
  const int expert = int(blockIdx.x);
  int at = 0;
  for (int e = 0; e < expert; ++e) at += sorted.counts[e];
  if (lane() == 0) {
    sorted.starts[expert] = at;
    if (expert == int(gridDim.x) - 1) sorted.starts[expert + 1] = at + sorted.counts[expert];
  }
  for (int64_t first = 0; first < int64_t(tokens) * chosen.slots; first += kWarp) {
    const int64_t slot = first + lane();
    const bool own = holds(chosen, tokens, expert, slot);
    const unsigned all = __ballot_sync(kAllLanes, own);
    const int place = at + __popc(all & ((1u << lane()) - 1));
    if (own) {
      sorted.tokens[place] = int32_t(slot / chosen.slots);
      sorted.inputs[place] = chosen.inputs[slot];
      sorted.places[slot] = place;
    }
    at += __popc(all);
  }
}

__device__ inline TileRows group_rows(const GroupJob& job, int group, int tile, bool gathered) {
  const int first = job.starts ? job.starts[group] : 0, end = job.starts ? job.starts[group + 1] : job.tokens;
  const int begin = first + tile * kTile;
  return {job.in, gathered ? job.rows : nullptr, begin, end - begin < kTile ? end - begin : kTile, job.cols,
          job.step > 0 ? job.step : job.cols};
}

// Hidden units of each group's slots. Grid: (tiles of the width, tiles of slots, groups).
__global__ void __launch_bounds__(kTileThreads) group_units(GroupJob job) {
  STATIC_SHARED(float, x_memory, kTileDepth*(kTile + 1));
  STATIC_SHARED(float, gate_memory, kTileDepth*(kTile + 1));
  STATIC_SHARED(float, up_memory, kTileDepth*(kTile + 1));
  using Tile = float(*)[kTile + 1];
  const auto x = reinterpret_cast<Tile>(x_memory), g = reinterpret_cast<Tile>(gate_memory),
             u = reinterpret_cast<Tile>(up_memory);
  let_next_start();
  wait_for_previous();
  const TileRows rows = group_rows(job, int(blockIdx.z), int(blockIdx.y), true);
  if (rows.count <= 0) return;
  const Expert expert = job.experts[blockIdx.z];
  const int column = int(blockIdx.x) * kTile;
  const bool gated = job.form.form != Form::kMlp;
  float gates[4][4] = {}, ups[4][4] = {};
  for (int depth = 0; depth < job.cols; depth += kTileDepth) {
    __syncthreads();
    load_tile(rows, depth, x);
    load_tile(expert.type, expert.up, column, job.form.width, job.cols, depth, u);
    if (gated) load_tile(expert.type, expert.gate, column, job.form.width, job.cols, depth, g);
    __syncthreads();
    multiply_tile(x, u, ups);
    if (gated) multiply_tile(x, g, gates);
  }
  const int r = int(threadIdx.x) / 16 * 4, c = column + int(threadIdx.x) % 16 * 4;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      if (r + i >= rows.count || c + j >= job.form.width) continue;
      const int slot = rows.first + r + i;
      job.out[int64_t(slot) * job.form.width + c + j] =
          hidden_unit(job.form, expert, c + j, gates[i][j], ups[i][j], job.weights ? job.weights[slot] : 1.0f);
    }
}

// Their products with the down matrices, biases added, not weighed. Grid: (tiles of the hidden size, tiles of slots,
// groups).
__global__ void __launch_bounds__(kTileThreads) group_down(GroupJob job, int hidden) {
  STATIC_SHARED(float, x_memory, kTileDepth*(kTile + 1));
  STATIC_SHARED(float, w_memory, kTileDepth*(kTile + 1));
  const auto x = reinterpret_cast<float(*)[kTile + 1]>(x_memory), w = reinterpret_cast<float(*)[kTile + 1]>(w_memory);
  let_next_start();
  wait_for_previous();
  const TileRows rows = group_rows(job, int(blockIdx.z), int(blockIdx.y), false);
  if (rows.count <= 0) return;
  const Expert expert = job.experts[blockIdx.z];
  const int column = int(blockIdx.x) * kTile;
  float sums[4][4] = {};
  for (int depth = 0; depth < job.cols; depth += kTileDepth) {
    __syncthreads();
    load_tile(rows, depth, x);
    load_tile(expert.down_type, expert.down, column, hidden, job.cols, depth, w);
    __syncthreads();
    multiply_tile(x, w, sums);
  }
  const int r = int(threadIdx.x) / 16 * 4, c = column + int(threadIdx.x) % 16 * 4;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      if (r + i >= rows.count || c + j >= hidden) continue;
      job.out[int64_t(rows.first + r + i) * hidden + c + j] =
          sums[i][j] + (expert.down_bias ? expert.down_bias[c + j] : 0.0f);
    }
}

// Grid: (parts of the hidden size, tokens).
__global__ void __launch_bounds__(kTileThreads) combine(CombineJob job) {
  let_next_start();
  wait_for_previous();
  const int token = int(blockIdx.y);
  const int64_t first = int64_t(token) * job.chosen.slots;
  const int count = job.places ? job.chosen.count[token] : 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < job.hidden; i += int(gridDim.x * blockDim.x)) {
    float sum = job.output_bias ? job.output_bias[i] : 0.0f;
    for (int slot = 0; slot < count; ++slot)
      sum += job.chosen.weights[first + slot] * job.routed[int64_t(job.places[first + slot]) * job.hidden + i];
    if (job.shared) sum += gate_of_shared(job.shared_gate, token) * job.shared[int64_t(token) * job.hidden + i];
    job.out[int64_t(token) * job.hidden + i] += job.factor * sum;
  }
}

}  // namespace switchyard::cuda
