// The few things that differ between a device and the block emulator (tests/cuda_on_cpu): launches, shared memory,
// memory accesses with a hint, PTX. Everything else in the kernels is the same C++ for both.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/backend/cuda/kernels.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define STATIC_SHARED(T, name, count) __shared__ T name[count]
#define DYNAMIC_SHARED(T, name)                                          \
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[]; \
  T* const name = reinterpret_cast<T*>(dynamic_shared_memory)
// In front of a loop whose arrays have to be registers.
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")  // would take registers
#elif defined(CUDA_ON_CPU)
#define UNROLL
#define NO_UNROLL
#else
#error "compile with nvcc, or with g++ and -include tests/cuda_on_cpu/cuda_on_cpu.h"
#endif

namespace switchyard::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

struct alignas(16) Words {
  uint32_t w[4];
};

#if defined(__CUDACC__)

// Weights: read once, so they do not push activations out of the first cache.
__device__ __forceinline__ Words load_once(const void* at) {
  Words out;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(out.w[0]), "=r"(out.w[1]), "=r"(out.w[2]), "=r"(out.w[3])
      : "l"(at));
  return out;
}
template <class T>
__device__ __forceinline__ T load_weight(const void* at) {
  return *static_cast<const T*>(at);
}
template <class T>
__device__ __forceinline__ T load_key(const void* at) {
  return *static_cast<const T*>(at);
}
__device__ __forceinline__ float half_to_float(uint16_t bits) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
  return out;
}
__device__ __forceinline__ float bits_to_float(uint32_t bits) {
  return __uint_as_float(bits);
}
__device__ __forceinline__ uint32_t float_to_bits(float value) {
  return __float_as_uint(value);
}

// c += a b, 16 x 8 numbers of 16 products each, by a whole warp: a [16, 16] and b [16, 8] in bf16, two numbers a word,
// c in fp32, laid out over the lanes as the PTX manual says of mma.m16n8k16: lane l has of a the rows l / 4 and l / 4 + 8,
// of b and c the column l / 4 and the columns 2 (l % 4) and the next. Products are exact.
__device__ __forceinline__ void multiply_add(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 16 bytes each from global to shared memory, while the thread goes on. It sees them after wait(), the others of its
// block after a barrier behind that.
class AsyncCopies {
 public:
  __device__ __forceinline__ void copy(Words* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(uint32_t(__cvta_generic_to_shared(to))), "l"(from)
                 : "memory");
  }
  __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
};

// Seen by the host once everything written before it is.
__device__ __forceinline__ void publish(uint64_t* at, uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

// A kernel may start while the one before it still runs, and waits here for its results (programmatic dependent launch,
// sm_90); without the launch attribute both do nothing.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// The first error of a stream stays in it, with the kernel's name.
template <class... Parameters, class... Arguments>
void launch(Stream& stream, const char* name, dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (stream.error != 0) return;
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 48 * 1024)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
  if (error == cudaSuccess) {
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream.native);
    config.attrs = &early, config.numAttrs = stream.early_start ? 1 : 0;
    error = cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  }
  if (error != cudaSuccess) stream.error = int(error), stream.failed = name, stream.failed_layer = stream.layer;
}

#else

// Bytes that kernels read of weights and of keys, and the name of the kernel that reads: what traffic_test.cpp adds up.
struct Traffic {
  uint64_t weights = 0, keys = 0, launches = 0;
};
Traffic& traffic();  // of the kernel that runs (tests/cuda_on_cpu/device_on_cpu.cpp)
void begin_kernel(const char* name);
bool record_launch(Stream& stream, std::function<void(Stream&)> launch);  // false: no graph is being captured

inline Words load_once(const void* at) {
  Words out;
  std::memcpy(&out, __builtin_assume_aligned(at, 16), sizeof(out));
  traffic().weights += sizeof(out);
  return out;
}
template <class T>
T load_weight(const void* at) {
  traffic().weights += sizeof(T);
  return *static_cast<const T*>(at);
}
template <class T>
T load_key(const void* at) {
  traffic().keys += sizeof(T);
  return *static_cast<const T*>(at);
}
inline float bits_to_float(uint32_t bits) {
  return std::bit_cast<float>(bits);
}
inline uint32_t float_to_bits(float value) {
  return std::bit_cast<uint32_t>(value);
}
inline float half_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return bits_to_float(sign | 0x7F800000 | fraction << 13);
  if (exponent > 0) return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = float(fraction) * 0x1p-24f;  // subnormal
  return sign ? -small : small;
}
inline void multiply_add(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
  cuda_on_cpu::mma_m16n8k16_bf16(a, b, c);
}
// Nothing arrives before wait().
class AsyncCopies {
 public:
  ~AsyncCopies() {
    if (!under_way_.empty()) std::fprintf(stderr, "a kernel ends with copies under way\n"), std::abort();
  }
  void copy(Words* to, const void* from) {
    under_way_.push_back({to, static_cast<const Words*>(__builtin_assume_aligned(from, 16))});
  }
  void wait() {
    for (const auto& [to, from] : under_way_) *to = *from, traffic().weights += sizeof(Words);
    under_way_.clear();
  }

 private:
  std::vector<std::pair<Words*, const Words*>> under_way_;
};
inline void publish(uint64_t* at, uint64_t value) {
  __atomic_store_n(at, value, __ATOMIC_RELEASE);
}
inline void wait_for_previous() {}
inline void let_next_start() {}

template <class... Parameters, class... Arguments>
void launch(Stream& stream, const char* name, dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (stream.error != 0) return;
  const auto run = [=](Stream&) {
    begin_kernel(name);
    cuda_on_cpu::launch(grid, block, shared_bytes, kernel, Parameters(arguments)...);
  };
  if (!record_launch(stream, run)) run(stream);
}

#endif

__device__ __forceinline__ int lane() {
  return int(threadIdx.x) % kWarp;
}
__device__ __forceinline__ int warp() {
  return int(threadIdx.x) / kWarp;
}
__device__ __forceinline__ int warps() {
  return int(blockDim.x) / kWarp;
}

__device__ __forceinline__ float bf16_to_float(uint16_t bits) {
  return bits_to_float(uint32_t(bits) << 16);
}
// To the nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ uint16_t float_to_bf16(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// In every lane, bit for bit the same.
__device__ __forceinline__ float warp_sum(float value) {
  for (int with = kWarp / 2; with > 0; with /= 2) value += __shfl_xor_sync(kAllLanes, value, with);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  for (int with = kWarp / 2; with > 0; with /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, with);
    value = other > value ? other : value;
  }
  return value;
}

// True in all threads of the last of `expected` blocks to come here, which sees what the others wrote; it leaves the
// counter at 0 for the next launch.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned expected) {
  STATIC_SHARED(unsigned, ticket, 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    ticket[0] = atomicAdd(counter, 1u);
    __threadfence();
  }
  __syncthreads();
  const bool last = ticket[0] == expected - 1;
  if (last && threadIdx.x == 0) *counter = 0;
  return last;
}

}  // namespace switchyard::cuda
