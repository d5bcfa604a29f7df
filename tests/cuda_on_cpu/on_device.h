// Vectors on the device that a test runs on: the block emulator, or a GPU where tests/gpu/run.sh builds the same
// sources with nvcc. Orders of threads are the emulator's alone.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "engine/backend/cuda/device.h"

namespace switchyard::cuda::testing {

template <class T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline Stream& stream() {
  static Stream one = [] { return value_of(make_stream(value_of(open_device()))); }();
  return one;
}

template <class T>
class OnDevice {
 public:
  explicit OnDevice(size_t count)
      : count_(count),
        buffer_(value_of(Buffer::make(std::max<size_t>(count, 1) * sizeof(T), Place::kDevice, "a test"))) {}
  explicit OnDevice(const std::vector<T>& values) : OnDevice(values.size()) { set(values); }

  void set(const std::vector<T>& values) {
    value_of(copy(stream(), data(), values.data(), count_ * sizeof(T), "a test"));
    value_of(wait(stream(), "a test"));
  }
  std::vector<T> get() const {
    std::vector<T> out(count_);
    value_of(copy(stream(), out.data(), data(), count_ * sizeof(T), "a test"));
    value_of(wait(stream(), "a test"));
    return out;
  }
  T* data() const { return buffer_.template as<T>(); }
  size_t size() const { return count_; }

 private:
  size_t count_;
  Buffer buffer_;
};

// Whether exp() and sums are those of the host, so that equal means equal bits.
bool exact();
// Orders in which threads run; the device has none to choose.
std::vector<uint64_t> thread_orders();
class WithOrder {
 public:
  explicit WithOrder(uint64_t order);
  ~WithOrder();
  WithOrder(const WithOrder&) = delete;

 private:
  uint64_t before_;
};

}  // namespace switchyard::cuda::testing
