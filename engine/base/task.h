// Progress and cancellation of long work (opening a model, prefill, analysis).
// One thread works, any thread reads or cancels.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>

namespace switchyard {

class Task {
 public:
  // fraction: 0..1, or negative when the length of the work is unknown.
  void report(double fraction, std::string_view step) {
    fraction_.store(fraction, std::memory_order_relaxed);
    const std::scoped_lock lock(mutex_);
    step_ = step;
  }
  double fraction() const { return fraction_.load(std::memory_order_relaxed); }
  std::string step() const {
    const std::scoped_lock lock(mutex_);
    return step_;
  }

  void cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<double> fraction_{-1.0};
  std::atomic<bool> cancelled_{false};
  mutable std::mutex mutex_;
  std::string step_;
};

}  // namespace switchyard
