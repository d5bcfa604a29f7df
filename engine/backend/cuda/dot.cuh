// A warp times a row: sums of products of a matrix row in global memory with a vector in shared memory.
#pragma once

#include "engine/backend/cuda/intrinsics.cuh"

namespace switchyard::cuda {

template <Stored type>
struct Load {
  static constexpr int kNumbers = type == Stored::kF32 ? 4 : 8;  // of 16 bytes
  __device__ static void unpack(const Words& words, float (&out)[kNumbers]) {
    for (int i = 0; i < kNumbers; ++i) {
      if constexpr (type == Stored::kF32) out[i] = bits_to_float(words.w[i]);
      if constexpr (type == Stored::kBF16)
        out[i] = bits_to_float(i % 2 == 0 ? words.w[i / 2] << 16 : words.w[i / 2] & 0xFFFF0000u);
      if constexpr (type == Stored::kF16)
        out[i] = half_to_float(uint16_t(i % 2 == 0 ? words.w[i / 2] : words.w[i / 2] >> 16));
    }
  }
};

// One number, of whatever type.
__device__ __forceinline__ float load_number(Stored type, const unsigned char* data, int64_t at) {
  if (type == Stored::kF32) return load_weight<float>(data + at * 4);
  const auto bits = load_weight<uint16_t>(data + at * 2);
  return type == Stored::kBF16 ? bf16_to_float(bits) : half_to_float(bits);
}

template <Stored type, int kRows>
__device__ __forceinline__ void add_products(const Words (&words)[kRows], const float* x, float (&sums)[kRows]) {
  for (int r = 0; r < kRows; ++r) {
    float weights[Load<type>::kNumbers];
    Load<type>::unpack(words[r], weights);
    for (int i = 0; i < Load<type>::kNumbers; ++i) sums[r] += weights[i] * x[i];
  }
}

// This lane's part of the products of kRows rows with x; kAhead loads of each row are under way at a time.
template <Stored type, int kRows>
__device__ __forceinline__ void add_rows(const unsigned char* const (&rows)[kRows], const float* x, int n,
                                         float (&sums)[kRows]) {
  constexpr int kNumbers = Load<type>::kNumbers, kStep = kWarp * kNumbers, kAhead = 4 / kRows;
  constexpr int kBytes = type == Stored::kF32 ? 4 : 2;
  int i = lane() * kNumbers;
  for (; i + (kAhead - 1) * kStep < n; i += kAhead * kStep) {
    Words words[kAhead][kRows];
    for (int a = 0; a < kAhead; ++a)
      for (int r = 0; r < kRows; ++r) words[a][r] = load_once(rows[r] + int64_t(i + a * kStep) * kBytes);
    for (int a = 0; a < kAhead; ++a) add_products<type, kRows>(words[a], x + i + a * kStep, sums);
  }
  for (; i < n; i += kStep) {
    Words words[kRows];
    for (int r = 0; r < kRows; ++r) words[r] = load_once(rows[r] + int64_t(i) * kBytes);
    add_products<type, kRows>(words, x + i, sums);
  }
}

// Rows whose length or address is no multiple of 16 bytes.
template <int kRows>
__device__ __forceinline__ void add_rows_by_number(Stored type, const unsigned char* const (&rows)[kRows],
                                                   const float* x, int n, float (&sums)[kRows]) {
  for (int i = lane(); i < n; i += kWarp)
    for (int r = 0; r < kRows; ++r) sums[r] += load_number(type, rows[r], i) * x[i];
}

// rows: kRows of n numbers each. In all lanes.
template <int kRows>
__device__ __forceinline__ void dot_rows(Stored type, const unsigned char* const (&rows)[kRows], const float* x, int n,
                                         float (&sums)[kRows]) {
  for (int r = 0; r < kRows; ++r) sums[r] = 0;
  uintptr_t odd = uintptr_t(n) * uintptr_t(stored_bytes(type));
  for (int r = 0; r < kRows; ++r) odd |= reinterpret_cast<uintptr_t>(rows[r]);
  if (odd % 16 != 0)
    add_rows_by_number<kRows>(type, rows, x, n, sums);
  else if (type == Stored::kBF16)
    add_rows<Stored::kBF16, kRows>(rows, x, n, sums);
  else if (type == Stored::kF32)
    add_rows<Stored::kF32, kRows>(rows, x, n, sums);
  else
    add_rows<Stored::kF16, kRows>(rows, x, n, sums);
  for (int r = 0; r < kRows; ++r) sums[r] = warp_sum(sums[r]);
}

__device__ __forceinline__ float dot_row(const Matrix& matrix, int64_t row, const float* x) {
  const unsigned char* const rows[1] = {matrix.data + row * matrix.cols * stored_bytes(matrix.type)};
  float sums[1];
  dot_rows<1>(matrix.type, rows, x, matrix.cols, sums);
  return sums[0];
}

// The sum over the block's threads, in all of them. partial: shared, one for each warp.
__device__ __forceinline__ float block_sum(float value, float* partial) {
  value = warp_sum(value);
  __syncthreads();  // whoever still reads the last one
  if (lane() == 0) partial[warp()] = value;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < warps(); ++w) sum += partial[w];
  return sum;
}

// x = norm(from) in shared memory, by the whole block, which may read all of x afterwards.
__device__ inline void load_normed(const float* from, const Norm& norm, int n, float* x) {
  STATIC_SHARED(float, partial, kWarp);
  const int first = int(threadIdx.x), step = int(blockDim.x);
  if (!norm.weight) {
    for (int i = first; i < n; i += step) x[i] = from[i];
    __syncthreads();
    return;
  }
  float mean = 0;
  if (norm.centred) {
    float sum = 0;
    for (int i = first; i < n; i += step) sum += from[i];
    mean = block_sum(sum, partial) / float(n);
  }
  float squares = 0;
  for (int i = first; i < n; i += step) {
    const float value = from[i] - mean;
    x[i] = value;
    squares += value * value;
  }
  const float factor = 1.0f / sqrtf(block_sum(squares, partial) / float(n) + norm.eps);
  for (int i = first; i < n; i += step) x[i] = x[i] * factor * norm.weight[i] + (norm.bias ? norm.bias[i] : 0.0f);
  __syncthreads();
}

}  // namespace switchyard::cuda
