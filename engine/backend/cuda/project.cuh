// Kernels 1 and 4 of engine.md section 5, and the head: a norm and matrix times vector. Every block makes the norm of
// the few KiB of the vector anew, which is cheaper than one more kernel; a warp owns a row, so sums have one order.
#pragma once

#include "engine/backend/cuda/dot.cuh"

namespace switchyard::cuda {

inline constexpr int kProjectThreads = 256;

// The products of this block's rows, x being the input in shared memory.
__device__ inline void project_rows(const Projection& job, const float* x) {
  int first = 0;  // row of the part in the whole
  const int own = int(blockIdx.x) * warps() + warp(), step = int(gridDim.x) * warps();
  for (int part = 0; part < job.count; ++part) {
    const Matrix& matrix = job.parts[part];
    // The first of this warp's rows at or behind the part's first.
    int row = own >= first ? own : own + (first - own + step - 1) / step * step;
    for (; row < first + matrix.rows; row += step) {
      float y = dot_row(matrix, row - first, x);
      if (lane() != 0) continue;
      if (job.bias[part]) y += job.bias[part][row - first];
      job.out[row] = job.adds ? job.out[row] + job.factor * y : job.factor * y;
    }
    first += matrix.rows;
  }
}

__global__ void __launch_bounds__(kProjectThreads) project(Projection job) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  load_normed(job.in, job.norm, job.cols, x);
  if (job.normed && blockIdx.x == 0)
    for (int i = int(threadIdx.x); i < job.cols; i += int(blockDim.x)) job.normed[i] = x[i];
  if (job.columns) {
    for (int i = int(threadIdx.x); i < job.cols; i += int(blockDim.x)) x[i] *= job.columns[i];
    __syncthreads();
  }
  project_rows(job, x);
}

inline unsigned project_blocks(const Stream& stream, int rows) {
  const int warps_of_block = kProjectThreads / kWarp, needed = (rows + warps_of_block - 1) / warps_of_block;
  return unsigned(needed < 8 * stream.processors ? needed : 8 * stream.processors);
}

__global__ void __launch_bounds__(kProjectThreads) project_heads(HeadProjection job) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  const int head = int(blockIdx.y), token = int(blockIdx.z);
  const int64_t at = int64_t(token) * job.heads + head;
  load_normed(job.in + at * job.in_step, Norm{}, job.matrix.cols, x);
  for (int row = int(blockIdx.x) * warps() + warp(); row < job.rows; row += int(gridDim.x) * warps()) {
    const float y = dot_row(job.matrix, job.first + int64_t(head) * job.rows_apart + row, x);
    if (lane() == 0) job.out[at * job.out_step + row] = y;
  }
}

// The residual stream of a step's tokens: rows of the embedding.
__global__ void __launch_bounds__(kProjectThreads)
    embed(const StepState* state, Matrix table, float scale, float* hidden) {
  let_next_start();
  wait_for_previous();
  const int token = int(blockIdx.y);
  const int64_t row = state->tokens[token];
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < table.cols; i += int(gridDim.x * blockDim.x))
    hidden[int64_t(token) * table.cols + i] = scale * load_number(table.type, table.data, row * table.cols + i);
}

// normed = norm(in) of each token; of a prompt, whose products are tiles (prefill.cuh).
__global__ void __launch_bounds__(kProjectThreads) norm_rows(const float* in, Norm norm, int n, float* normed) {
  DYNAMIC_SHARED(float, x);
  let_next_start();
  wait_for_previous();
  const int64_t first = int64_t(blockIdx.x) * n;
  load_normed(in + first, norm, n, x);
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) normed[first + i] = x[i];
}

}  // namespace switchyard::cuda
