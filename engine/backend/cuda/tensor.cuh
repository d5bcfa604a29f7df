// Many tokens at a time on the tensor cores: products of bf16 matrices, read as they lie, with fp32 inputs; of all
// tokens, or of those that chose an expert (the grouped GEMM of engine.md section 11, as a kernel of our own).
//
// An input is cut into three bf16 pieces of eight bits of its mantissa each, x = high + middle + low exactly, as in
// kernels_amx.cpp of the cpu backend, so every product is exact. The unit cuts sums off where an fp32 addition rounds
// ("Recovering single precision accuracy from Tensor Cores", arXiv 2203.03341), so it sums the pieces of sixteen
// columns and starts anew; what it gave is added on the ordinary cores, column after column: one order for every
// output, whatever is computed beside it.
#pragma once

#include "engine/backend/cuda/prefill.cuh"

namespace switchyard::cuda {

inline constexpr int kTensorThreads = 128;  // four warps: 2 x 2 parts of a tile, of 32 tokens and 64 rows each
inline constexpr int kTensorTokens = 64, kTensorRows = 128, kTensorDepth = 32, kPieces = 3;
// bf16 numbers from a row to the next in shared memory: a row begins on 16 bytes, and the eight rows that a warp reads
// at once lie in different banks.
inline constexpr int kTensorStep = 40;
// In Words: the pieces of the inputs, and twice the weights, which come while those before them are used.
inline constexpr int kPieceWords = kTensorTokens * kTensorStep / 8, kWeightWords = kTensorRows * kTensorStep / 8;
inline constexpr int kTensorMemory = kPieces * kPieceWords + 2 * kWeightWords;

// x's pieces as bf16 bits, high to low. An infinity or NaN is whole in the first one.
__device__ __forceinline__ void cut(float x, uint32_t (&pieces)[kPieces]) {
  for (int i = 0; i < kPieces; ++i) {
    const uint32_t upper = float_to_bits(x) & 0xFFFF0000u;
    pieces[i] = upper >> 16;
    x = (upper & 0x7F800000u) == 0x7F800000u ? 0.0f : x - bits_to_float(upper);
  }
}

// One tile of products: kTensorTokens inputs times kTensorRows rows of weights.
class TensorTile {
 public:
  // memory: kTensorMemory Words of shared memory.
  __device__ TensorTile(const TileRows& x, Words* memory) : x_(x), memory_(memory) {
    whole_inputs_ = (x.cols | x.step) % 4 == 0 && reinterpret_cast<uintptr_t>(x.from) % 16 == 0;
    for (int i = 0; i < kLoads; ++i) {
      const int r = input_row(i);
      inputs_[i] = r < x.count ? x.row(r) : nullptr;
    }
  }

  // row_of(r): the r-th row of the tile, x.cols bf16 numbers, or null: no such row. Blocks of eight rows below
  // first_block of each half of the tile are left out. All threads call it.
  template <class RowOf>
  __device__ void multiply(RowOf&& row_of, int first_block = 0) {
    for (int i = 0; i < kLoads; ++i) weights_[i] = row_of(weight_row(i));
    load_inputs(0);
    load_weights(0, 0);
    for (int depth = 0, turn = 0; depth < x_.cols; depth += kTensorDepth, turn ^= 1) {
      on_the_way_.wait();
      __syncthreads();  // all are done with the tiles before these
      store_inputs();
      if (depth + kTensorDepth < x_.cols) {
        load_inputs(depth + kTensorDepth);
        load_weights(depth + kTensorDepth, turn ^ 1);
      }
      __syncthreads();
      multiply_step(turn, first_block);
    }
  }

  // visit(token, block, row, sums of block and row): of this thread's outputs, token in the tile, row within the
  // block's half, for blocks [0, blocks).
  template <class Visit>
  __device__ void each(int blocks, Visit&& visit) const {
    UNROLL for (int m = 0; m < 2; ++m) UNROLL for (int n = 0; n < 8; ++n) UNROLL for (int i = 0; i < 4; ++i) {
      const int token = first_token() + 16 * m + lane() / 4 + 8 * (i / 2), row = 8 * n + lane() % 4 * 2 + i % 2;
      if (n < blocks && token < x_.count) visit(token, row, sums_[m][n][i], n + 4 < 8 ? sums_[m][n + 4][i] : 0.0f);
    }
  }
  // Of this warp's 64 rows: which half of the tile.
  __device__ static int half() { return warp() % 2; }

 private:
  static constexpr int kLoads = 4;  // 16-byte pieces of inputs, and of weights, that a thread brings in one step
  static_assert(kTensorTokens * kTensorDepth / 4 == kLoads * kTensorThreads);
  static_assert(kTensorRows * kTensorDepth / 8 == kLoads * kTensorThreads);

  __device__ static int first_token() { return warp() / 2 * 32; }
  __device__ static int input_row(int i) { return (int(threadIdx.x) + i * kTensorThreads) / 8; }
  __device__ static int input_column() { return int(threadIdx.x) % 8 * 4; }
  __device__ static int weight_row(int i) { return (int(threadIdx.x) + i * kTensorThreads) / 4; }
  __device__ static int weight_column() { return int(threadIdx.x) % 4 * 8; }
  __device__ uint32_t* piece(int i) const { return reinterpret_cast<uint32_t*>(memory_ + i * kPieceWords); }
  __device__ Words* weights(int turn) const { return memory_ + kPieces * kPieceWords + turn * kWeightWords; }

  __device__ void load_inputs(int depth) {
    const int at = depth + input_column();
    UNROLL for (int i = 0; i < kLoads; ++i) {
      next_[i] = Words{};
      if (!inputs_[i] || at >= x_.cols) continue;
      if (whole_inputs_) {
        next_[i] = *reinterpret_cast<const Words*>(inputs_[i] + at);
      } else {
        UNROLL for (int j = 0; j < 4; ++j) if (at + j < x_.cols) next_[i].w[j] = float_to_bits(inputs_[i][at + j]);
      }
    }
  }

  __device__ void store_inputs() const {
    UNROLL for (int i = 0; i < kLoads; ++i) {
      uint32_t pieces[4][kPieces];
      UNROLL for (int j = 0; j < 4; ++j) cut(bits_to_float(next_[i].w[j]), pieces[j]);
      const int at = (input_row(i) * kTensorStep + input_column()) / 2;
      UNROLL for (int p = 0; p < kPieces; ++p) {
        piece(p)[at] = pieces[0][p] | pieces[1][p] << 16;
        piece(p)[at + 1] = pieces[2][p] | pieces[3][p] << 16;
      }
    }
  }

  __device__ void load_weights(int depth, int turn) {
    const int at = depth + weight_column(), left = x_.cols - at;
    UNROLL for (int i = 0; i < kLoads; ++i) {
      Words* const to = weights(turn) + (weight_row(i) * kTensorStep + weight_column()) / 8;
      const unsigned char* const from = weights_[i] ? weights_[i] + int64_t(at) * 2 : nullptr;
      if (from && left >= 8 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
        on_the_way_.copy(to, from);
        continue;
      }
      Words some{};
      UNROLL for (int j = 0; j < 8; ++j) if (from && j < left) some.w[j / 2] |=
          uint32_t(load_weight<uint16_t>(from + 2 * j)) << 16 * (j % 2);
      *to = some;
    }
  }

  __device__ void multiply_step(int turn, int first_block) {
    if (first_token() >= x_.count) return;
    const auto* const rows = reinterpret_cast<const uint32_t*>(weights(turn));
    const int pair = lane() % 4, row = lane() / 4;
    NO_UNROLL for (int k = 0; k < kTensorDepth; k += 16) {
      uint32_t a[2][kPieces][4];
      UNROLL for (int m = 0; m < 2; ++m) UNROLL for (int p = 0; p < kPieces; ++p) {
        const uint32_t* const from = piece(p) + ((first_token() + 16 * m + row) * kTensorStep + k) / 2 + pair;
        a[m][p][0] = from[0], a[m][p][1] = from[8 * kTensorStep / 2];
        a[m][p][2] = from[4], a[m][p][3] = from[8 * kTensorStep / 2 + 4];
      }
      UNROLL for (int n = 0; n < 8; ++n) {
        if (n < first_block) continue;
        const uint32_t* const from = rows + ((64 * half() + 8 * n + row) * kTensorStep + k) / 2 + pair;
        const uint32_t b[2] = {from[0], from[4]};
        UNROLL for (int m = 0; m < 2; ++m) {
          if (first_token() + 16 * m >= x_.count) continue;
          float part[4] = {};
          UNROLL for (int p = kPieces - 1; p >= 0; --p) multiply_add(a[m][p], b, part);
          UNROLL for (int i = 0; i < 4; ++i) sums_[m][n][i] += part[i];
        }
      }
    }
  }

  const TileRows& x_;
  Words* memory_;
  bool whole_inputs_;
  const float* inputs_[kLoads];           // rows that this thread brings; null: none
  const unsigned char* weights_[kLoads];  // likewise
  Words next_[kLoads];                    // inputs of the next step
  AsyncCopies on_the_way_;                // its weights
  float sums_[2][8][4] = {};              // 16 tokens and 8 rows each, as the unit lays them out over the lanes
};

__device__ __forceinline__ const unsigned char* row_or_null(const unsigned char* matrix, int64_t row, bool there,
                                                            int cols) {
  return there ? matrix + row * cols * 2 : nullptr;
}
__device__ __forceinline__ TileRows token_rows(const float* in, int tokens, int cols, int step) {
  const int first = int(blockIdx.x) * kTensorTokens, left = tokens - first;
  return {in, nullptr, first, left < kTensorTokens ? left : kTensorTokens, cols, step};
}

// As multiply_tiles. Grid: (tiles of tokens, tiles of rows of the matrix).
__global__ void __launch_bounds__(kTensorThreads, 3) multiply_tensor(TileJob job) {
  STATIC_SHARED(Words, memory, kTensorMemory);
  let_next_start();
  wait_for_previous();
  const int cols = job.matrix.cols, column = int(blockIdx.y) * kTensorRows;
  const TileRows x = token_rows(job.in, job.tokens, cols, cols);
  TensorTile tile(x, memory);
  tile.multiply([&](int r) { return row_or_null(job.matrix.data, column + r, column + r < job.matrix.rows, cols); });
  tile.each(8, [&](int token, int row, float sum, float) {
    const int c = column + 64 * TensorTile::half() + row;
    if (c >= job.matrix.rows) return;
    float* out = job.out + int64_t(x.first + token) * job.step + job.at + c;
    const float y = job.factor * (sum + (job.bias ? job.bias[c] : 0.0f));
    *out = job.adds ? *out + y : y;
  });
}

// As project_heads, of many tokens. Grid: (tiles of tokens, tiles of rows of a head, heads).
__global__ void __launch_bounds__(kTensorThreads, 3) heads_tensor(HeadProjection job, int tokens) {
  STATIC_SHARED(Words, memory, kTensorMemory);
  let_next_start();
  wait_for_previous();
  const int cols = job.matrix.cols, head = int(blockIdx.z), column = int(blockIdx.y) * kTensorRows;
  const TileRows x = token_rows(job.in + int64_t(head) * job.in_step, tokens, cols, job.heads * job.in_step);
  TensorTile tile(x, memory);
  const int64_t first = job.first + int64_t(head) * job.rows_apart;
  tile.multiply([&](int r) { return row_or_null(job.matrix.data, first + column + r, column + r < job.rows, cols); });
  tile.each(8, [&](int token, int row, float sum, float) {
    const int c = column + 64 * TensorTile::half() + row;
    if (c < job.rows) job.out[(int64_t(x.first + token) * job.heads + head) * job.out_step + c] = sum;
  });
}

// As group_units. A tile is 64 units: each half of its rows is the gate rows of 32 of them, then their up rows, so that
// a thread has both of a unit. Grid: (tiles of slots, tiles of the width, groups).
__global__ void __launch_bounds__(kTensorThreads, 3) group_units_tensor(GroupJob job) {
  STATIC_SHARED(Words, memory, kTensorMemory);
  let_next_start();
  wait_for_previous();
  const TileRows x = group_rows(job, int(blockIdx.z), int(blockIdx.x), true);
  if (x.count <= 0) return;
  const Expert expert = job.experts[blockIdx.z];
  const int column = int(blockIdx.y) * 64;
  const bool gated = job.form.form != Form::kMlp;
  TensorTile tile(x, memory);
  tile.multiply(
      [&](int r) {
        const int unit = column + r / 64 * 32 + r % 32;
        const bool up = r % 64 >= 32;
        return row_or_null(up ? expert.up : expert.gate, unit, unit < job.form.width && (up || gated), job.cols);
      },
      gated ? 0 : 4);
  tile.each(4, [&](int token, int row, float gate, float up) {
    const int c = column + 32 * TensorTile::half() + row, slot = x.first + token;
    if (c < job.form.width)
      job.out[int64_t(slot) * job.form.width + c] =
          hidden_unit(job.form, expert, c, gate, up, job.weights ? job.weights[slot] : 1.0f);
  });
}

// As group_down. Grid: (tiles of slots, tiles of the hidden size, groups).
__global__ void __launch_bounds__(kTensorThreads, 3) group_down_tensor(GroupJob job, int hidden) {
  STATIC_SHARED(Words, memory, kTensorMemory);
  let_next_start();
  wait_for_previous();
  const TileRows x = group_rows(job, int(blockIdx.z), int(blockIdx.x), false);
  if (x.count <= 0) return;
  const Expert expert = job.experts[blockIdx.z];
  const int column = int(blockIdx.y) * kTensorRows;
  TensorTile tile(x, memory);
  tile.multiply([&](int r) { return row_or_null(expert.down, column + r, column + r < hidden, job.cols); });
  tile.each(8, [&](int token, int row, float sum, float) {
    const int c = column + 64 * TensorTile::half() + row;
    if (c < hidden)
      job.out[int64_t(x.first + token) * hidden + c] = sum + (expert.down_bias ? expert.down_bias[c] : 0.0f);
  });
}

}  // namespace switchyard::cuda
