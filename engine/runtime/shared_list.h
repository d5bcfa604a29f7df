// A list that snapshots share: copying it copies a pointer, and a published list never changes.
// Reads like a const std::vector. Any thread may read one; only its owner appends, to a copy.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace switchyard {

template <class T>
class SharedList {
 public:
  SharedList() = default;
  SharedList(std::vector<T> items) : items_(std::make_shared<const std::vector<T>>(std::move(items))) {}

  const std::vector<T>& items() const {
    static const std::vector<T> kNone;
    return items_ ? *items_ : kNone;
  }
  operator const std::vector<T>&() const { return items(); }

  size_t size() const { return items().size(); }
  bool empty() const { return items().empty(); }
  const T& operator[](size_t index) const { return items()[index]; }
  const T& front() const { return items().front(); }
  const T& back() const { return items().back(); }
  auto begin() const { return items().begin(); }
  auto end() const { return items().end(); }
  auto rbegin() const { return items().rbegin(); }
  auto rend() const { return items().rend(); }

  void push_back(T item) {
    std::vector<T> copy = items();
    copy.push_back(std::move(item));
    *this = std::move(copy);
  }

 private:
  std::shared_ptr<const std::vector<T>> items_;
};

}  // namespace switchyard
