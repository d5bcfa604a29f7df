// A bounded queue between one producer and one consumer whose slots are reused: pushing copies into a
// slot, so an element that owns a buffer allocates once and never again.
// push() and try_push() belong to the producer's thread, wait(), size(), at() and pop() to the consumer's;
// close() and closed() to any.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace switchyard {

template <class T>
class Ring {
 public:
  // The consumer is woken when `wake_at` elements wait, not for each one.
  Ring(size_t capacity, size_t wake_at) : slots_(capacity), wake_at_(wake_at) {}

  // Waits while the ring is full. False: closed, nothing was pushed.
  bool push(const T& value) {
    {
      std::unique_lock lock(mutex_);
      if (tail_ - head_ == slots_.size()) {
        hurry_ = true;
        filled_.notify_one();
        room_.wait(lock, [&] { return closed_ || tail_ - head_ < slots_.size(); });
      }
      if (closed_) return false;
    }
    store(value);
    return true;
  }

  // False: full or closed, nothing was pushed.
  bool try_push(const T& value) {
    {
      const std::scoped_lock lock(mutex_);
      if (closed_ || tail_ - head_ == slots_.size()) return false;
    }
    store(value);
    return true;
  }

  // Returns at the deadline, when `wake_at` elements wait, when the producer waits for room, or when closed.
  // The number of elements that wait.
  size_t wait(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    filled_.wait_until(lock, deadline, [&] { return closed_ || hurry_ || tail_ - head_ >= wake_at_; });
    hurry_ = false;
    return tail_ - head_;
  }

  // The i-th waiting element, i < what wait() returned.
  const T& at(size_t i) const { return slots_[(head_ + i) % slots_.size()]; }

  void pop(size_t count) {
    {
      const std::scoped_lock lock(mutex_);
      head_ += count;
    }
    room_.notify_one();
  }

  // No more pushes; what waits can still be read.
  void close() {
    {
      const std::scoped_lock lock(mutex_);
      closed_ = true;
    }
    room_.notify_all();
    filled_.notify_all();
  }
  bool closed() const {
    const std::scoped_lock lock(mutex_);
    return closed_;
  }
  size_t capacity() const { return slots_.size(); }

 private:
  // The slot at tail_ is the producer's until tail_ moves.
  void store(const T& value) {
    slots_[tail_ % slots_.size()] = value;
    bool wake = false;
    {
      const std::scoped_lock lock(mutex_);
      ++tail_;
      wake = tail_ - head_ == wake_at_;
    }
    if (wake) filled_.notify_one();
  }

  mutable std::mutex mutex_;
  std::condition_variable filled_, room_;
  std::vector<T> slots_;
  size_t wake_at_;
  size_t head_ = 0, tail_ = 0;  // written under the mutex; tail_ by the producer, head_ by the consumer
  bool closed_ = false;
  bool hurry_ = false;
};

}  // namespace switchyard
