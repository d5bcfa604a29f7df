// Compiles CUDA kernels with g++ and runs them on the CPU (block.h says how): the words of the language and the
// built-in functions that our kernels use. Goes in front of a unit with -include; the kernels see the CUDA_ON_CPU that
// it defines. No header and no library of a CUDA toolkit is needed. Tests only.
#pragma once

#include <cmath>
#include <utility>

#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/mma.h"

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (cuda_on_cpu::Block::current()->me().index)
#define blockIdx (cuda_on_cpu::Block::current()->index)
#define blockDim (cuda_on_cpu::Block::current()->size)
#define gridDim (cuda_on_cpu::Block::current()->grid)

// Shared memory has no plain __shared__ here, because it is filled with 0xCD before each block and guarded on both
// sides.
#define STATIC_SHARED(T, name, count) \
  static char name##_declaration;     \
  T* const name = static_cast<T*>(cuda_on_cpu::Block::current()->shared(&name##_declaration, sizeof(T) * size_t(count)))
#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(cuda_on_cpu::Block::current()->dynamic_shared())

namespace cuda_on_cpu {

// Runs kernel(args...) over the grid; every thread takes its own copies of the arguments, as on a device.
template <class... Parameters, class... Arguments>
void launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...), const Arguments&... arguments) {
  Block(grid, block, shared_bytes, [&] { kernel(arguments...); }).run_grid();
}

template <class T>
T exchange(unsigned mask, T value, int from, const char* what) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  Block& block = *Block::current();
  block.exchange(mask, bits, what);
  if (from < 0 || !(mask >> from & 1)) return value;  // undefined on a device; ours never use it
  bits = block.given(from);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
// Lanes in groups of `width`; outside of its group a lane gets its own value.
inline int in_group(int from, int width) {
  const int own = Block::current()->lane();
  return (from & ~(width - 1)) == (own & ~(width - 1)) ? from : own;
}

}  // namespace cuda_on_cpu

inline void __syncthreads(std::source_location place = std::source_location::current()) {
  cuda_on_cpu::Block::current()->barrier(0, place);
}
inline int __syncthreads_count(int predicate, std::source_location place = std::source_location::current()) {
  return cuda_on_cpu::Block::current()->barrier(predicate, place).count;
}
inline int __syncthreads_or(int predicate, std::source_location place = std::source_location::current()) {
  return cuda_on_cpu::Block::current()->barrier(predicate, place).any;
}
inline int __syncthreads_and(int predicate, std::source_location place = std::source_location::current()) {
  return cuda_on_cpu::Block::current()->barrier(predicate, place).all;
}
inline void __syncwarp(unsigned mask = cuda_on_cpu::kAllLanes) {
  cuda_on_cpu::Block::current()->exchange(mask, 0, "__syncwarp");
}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int own = cuda_on_cpu::Block::current()->lane();
  return cuda_on_cpu::exchange(mask, value, (own & ~(width - 1)) | (from & (width - 1)), "__shfl_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
  const int own = cuda_on_cpu::Block::current()->lane();
  return cuda_on_cpu::exchange(mask, value, cuda_on_cpu::in_group(own ^ with, width), "__shfl_xor_sync");
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int own = cuda_on_cpu::Block::current()->lane();
  return cuda_on_cpu::exchange(mask, value, cuda_on_cpu::in_group(own + int(by), width), "__shfl_down_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int own = cuda_on_cpu::Block::current()->lane();
  return cuda_on_cpu::exchange(mask, value, cuda_on_cpu::in_group(own - int(by), width), "__shfl_up_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  cuda_on_cpu::Block& block = *cuda_on_cpu::Block::current();
  block.exchange(mask, uint64_t(predicate != 0), "__ballot_sync");
  unsigned out = 0;
  for (unsigned left = mask; left != 0; left &= left - 1)
    if (block.given(std::countr_zero(left)) != 0) out |= left & ~(left - 1);
  return out;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
inline unsigned __activemask() {
  return cuda_on_cpu::Block::current()->lanes_running();
}

// Threads change places only where they wait, so an atomic is a plain access. The old value is returned.
template <class T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, T(*at + value));
}
template <class T>
T atomicMax(T* at, T value) {
  return std::exchange(*at, std::max(*at, value));
}
template <class T>
T atomicMin(T* at, T value) {
  return std::exchange(*at, std::min(*at, value));
}
template <class T>
T atomicExch(T* at, T value) {
  return std::exchange(*at, value);
}
template <class T>
T atomicCAS(T* at, T expected, T value) {
  return *at == expected ? std::exchange(*at, value) : *at;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(unsigned(x));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(unsigned(x)) + 1;
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
