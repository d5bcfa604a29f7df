// Float buffers on cache-line boundaries, for activations, key and value blocks. Owned by one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace switchyard::cpu {

class AlignedFloats {
 public:
  static constexpr size_t kLine = 64;

  AlignedFloats() = default;
  explicit AlignedFloats(size_t size) : data_(new (std::align_val_t(kLine)) float[size]()), size_(size) {}  // zeros

  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  size_t size() const { return size_; }
  // Makes room for `size` floats; what was held is lost where it must grow. Throws std::bad_alloc.
  void reserve(size_t size) {
    if (size > size_) *this = AlignedFloats(size);
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(kLine)); }
  };
  std::unique_ptr<float[], Free> data_;
  size_t size_ = 0;
};

// [rows, cols] floats whose rows begin on a cache line and do not fall into the same cache set.
class Rows {
 public:
  void shape(int rows, int64_t cols) {
    constexpr int64_t kLine = AlignedFloats::kLine / sizeof(float);
    stride_ = (cols + kLine - 1) / kLine * kLine + kLine;
    buffer_.reserve(size_t(rows) * size_t(stride_));
  }
  float* operator[](int row) { return buffer_.data() + row * stride_; }
  const float* operator[](int row) const { return buffer_.data() + row * stride_; }

 private:
  AlignedFloats buffer_;
  int64_t stride_ = 0;
};

}  // namespace switchyard::cpu
