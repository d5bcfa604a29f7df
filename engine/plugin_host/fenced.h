// Buffers that a plugin writes into, and whether what it wrote can be used. Shared by the program and by
// switchyard-plugin-host. Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "switchyard/plugin.h"

namespace switchyard {

// Buffers between guard zones: writing past their ends is seen.
template <class T>
class FencedBuffer {
 public:
  void resize(size_t count) {
    count_ = count;
    values_.assign(count + 2 * kFence, T{});
    for (size_t i = 0; i < kFence; ++i) values_[i] = values_[kFence + count + i] = kMark;
  }
  T* data() { return values_.data() + kFence; }
  size_t size() const { return count_; }
  bool whole() const {
    for (size_t i = 0; i < kFence; ++i)
      if (values_[i] != kMark || values_[kFence + count_ + i] != kMark) return false;
    return true;
  }

 private:
  static constexpr size_t kFence = 16;
  static constexpr T kMark = T(0x5A);
  size_t count_ = 0;
  std::vector<T> values_;
};

// What is wrong with slots that a scheme wrote; "": nothing. T tokens of S slots each.
std::string wrong_slots(const sy_scheme_in& in, const sy_scheme_out& out);

}  // namespace switchyard
