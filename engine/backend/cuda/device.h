// The device as host code sees it: memory, copies, streams, captured graphs. Two implementations of the same functions:
// device.cpp calls the CUDA runtime, tests/cuda_on_cpu/device_on_cpu.cpp stands for it where kernels run on the
// emulator. Every error names the call and what it was for; after one that ends the device's context (sticky) every
// later call fails with it. Streams belong to the engine thread, a drain has its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "engine/backend/cuda/nvrtc.h"
#include "engine/backend/cuda/stream.h"
#include "engine/base/result.h"

namespace switchyard::cuda {

struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0;       // compute capability
  int processors = 0;             // multiprocessors
  uint64_t memory = 0, free = 0;  // bytes
};

// Makes the first device current for this thread. kDevice where there is no driver or no device, or it is older than
// sm_80.
Result<DeviceInfo> open_device();
// The device's free bytes now.
Result<uint64_t> free_memory();
// For a further thread that calls the device.
Result<void> use_device();

enum class Place : uint8_t {
  kDevice,
  kPinned,  // host memory that the device reads and writes at the same address
};

// Bytes that it owns, not initialised.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), place_(other.place_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_), std::swap(place_, other.place_);
    return *this;
  }
  ~Buffer();

  // what: for the error, "keys and values". kMemory where there is not so much.
  static Result<Buffer> make(size_t bytes, Place place, const std::string& what);

  template <class T = unsigned char>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Place place_ = Place::kDevice;
};

// Larger where it is too small; its contents are lost then.
inline Result<void> grow(Buffer& buffer, size_t bytes, Place place, const char* what) {
  if (buffer.bytes() >= bytes) return {};
  buffer = Buffer();  // before the larger one: there may be no room for both
  SY_TRY(buffer, Buffer::make(bytes, place, what));
  return {};
}

Result<Stream> make_stream(const DeviceInfo& device);
void close_stream(Stream& stream);

// Asynchronous where the host side is pinned, in the order of the stream.
Result<void> copy(Stream& stream, void* to, const void* from, size_t bytes, const char* what);
Result<void> clear(Stream& stream, void* to, size_t bytes, const char* what);
// Until everything launched so far is done; also reports the first launch that failed, with its kernel. what: "layer
// 7".
Result<void> wait(Stream& stream, const std::string& what);

// Launches recorded once and repeated with one call; what kernels are told by value stays as it was.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual Result<void> launch(Stream& stream) = 0;
};
Result<std::unique_ptr<Graph>> capture(Stream& stream, const std::function<void(Stream&)>& launches);

// A kernel whose text is compiled while the program runs.
class CompiledKernel {
 public:
  virtual ~CompiledKernel() = default;
  // argument: the struct that the kernel takes. Asynchronous in the stream; an error stays in it.
  virtual void launch(Stream& stream, unsigned blocks, unsigned threads, void* argument) = 0;
};
// kernel: the name of an extern "C" function of the text. kNotFound, kMalformed: see compile().
Result<std::unique_ptr<CompiledKernel>> compile_kernel(const KernelText& text, const char* kernel);

}  // namespace switchyard::cuda
