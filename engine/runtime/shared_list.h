// A list that snapshots share: copying it copies a pointer, making the next one copies a pointer per item, and a
// published list never changes. Reads like a const std::vector. Any thread may read one.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <boost/iterator/indirect_iterator.hpp>

namespace switchyard {

template <class T>
class SharedList {
 public:
  using Items = std::vector<std::shared_ptr<const T>>;
  using value_type = T;
  using const_iterator = boost::indirect_iterator<typename Items::const_iterator>;
  using const_reverse_iterator = std::reverse_iterator<const_iterator>;

  SharedList() = default;
  explicit SharedList(Items items) : items_(std::make_shared<const Items>(std::move(items))) {}
  SharedList(const std::vector<T>& values) {
    Items items;
    for (const T& value : values) items.push_back(std::make_shared<const T>(value));
    items_ = std::make_shared<const Items>(std::move(items));
  }
  operator std::vector<T>() const { return {begin(), end()}; }
  void push_back(T value) {
    Items items = this->items();
    items.push_back(std::make_shared<const T>(std::move(value)));
    items_ = std::make_shared<const Items>(std::move(items));
  }

  size_t size() const { return items().size(); }
  bool empty() const { return items().empty(); }
  const T& operator[](size_t index) const { return *items()[index]; }
  const T& front() const { return *items().front(); }
  const T& back() const { return *items().back(); }
  const_iterator begin() const { return const_iterator(items().begin()); }
  const_iterator end() const { return const_iterator(items().end()); }
  const_reverse_iterator rbegin() const { return const_reverse_iterator(end()); }
  const_reverse_iterator rend() const { return const_reverse_iterator(begin()); }

 private:
  const Items& items() const {
    static const Items kNone;
    return items_ ? *items_ : kNone;
  }

  std::shared_ptr<const Items> items_;
};

}  // namespace switchyard
