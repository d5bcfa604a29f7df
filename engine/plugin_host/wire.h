// Messages between the program and switchyard-plugin-host: a line of JSON for control, then the bytes that it announces
// ("bytes"). One thread at a time on each side. The other side may be broken in any way.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/folder.h"
#include "engine/base/result.h"

namespace switchyard {

struct Message {
  nlohmann::json head = nlohmann::json::object();
  std::string body;

  // Appends an array; the other side takes them in the same order.
  template <class T>
  void put(std::span<const T> values) {
    body.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  // The next `count` values of the body; false: it has not so many left.
  template <class T>
  bool take(size_t count, std::vector<T>& out) {
    if (count > (body.size() - taken_) / sizeof(T)) return false;
    out.resize(count);
    if (count > 0) std::memcpy(out.data(), body.data() + taken_, count * sizeof(T));
    taken_ += count * sizeof(T);
    return true;
  }
  bool has(const char* key) const { return head.is_object() && head.contains(key); }
  uint64_t number(const char* key) const;   // 0 where there is none
  std::string text(const char* key) const;  // "" where there is none

 private:
  size_t taken_ = 0;
};

class Wire {
 public:
  static constexpr size_t kMostLine = 4 << 20, kMostBody = size_t(256) << 20;
  explicit Wire(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

  // kPlugin: the other side is gone, or sends what is no message. Waits `milliseconds` at most for each piece (-1: for
  // ever); an error "stands still" then, behind which receive() goes on where it was.
  Result<void> send(const Message& message, int milliseconds = -1);
  Result<Message> receive(int milliseconds = -1);
  int descriptor() const { return descriptor_.get(); }

 private:
  Result<void> wait(short what, int milliseconds) const;
  Descriptor descriptor_;
  std::string ahead_;  // read and not yet used
  Message pending_;    // whose line is read and whose bytes are not
  size_t bytes_ = 0;
  bool headed_ = false;
};

}  // namespace switchyard
