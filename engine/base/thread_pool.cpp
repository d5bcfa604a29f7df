// Parts are claimed by a compare-and-swap on one word; sleeping is std::atomic::wait (a futex).
// See thread_pool.h.
#include "engine/base/thread_pool.h"

#include <algorithm>
#include <chrono>

#include <sched.h>

namespace switchyard {
namespace {

constexpr auto kSpin = std::chrono::microseconds(30);

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

RowRange split_rows(int64_t rows, int parts, int part, int64_t multiple) {
  const int64_t blocks = (rows + multiple - 1) / multiple;
  const auto edge = [&](int64_t i) { return std::min(rows, blocks * i / parts * multiple); };
  return {edge(part), edge(part + 1)};
}

void ThreadPool::resize(int threads) {
  if (threads <= 0) threads = available_cores();
  if (threads == this->threads()) return;
  stop();
  stopping_.store(false);
  spin_ = threads <= available_cores();
  for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { work(worker); });
}

void ThreadPool::stop() {
  stopping_.store(true);
  jobs_.fetch_add(1);
  jobs_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

// The value of `word` once it is no longer `old`.
int ThreadPool::await_change(std::atomic<int>& word, int old) const {
  if (spin_) {
    const auto give_up = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        const int now = word.load(std::memory_order_acquire);
        if (now != old) return now;
        relax();
      }
    } while (std::chrono::steady_clock::now() < give_up);
  }
  word.wait(old);
  return word.load(std::memory_order_acquire);
}

void ThreadPool::share(const Job& job) {
  job_ = job;
  unfinished_.store(job.parts, std::memory_order_relaxed);
  const uint64_t number = (unclaimed_.load(std::memory_order_relaxed) >> 32) + 1;
  unclaimed_.store(number << 32 | uint32_t(job.parts), std::memory_order_release);
  jobs_.fetch_add(1);  // sequentially consistent: a worker going to sleep sees it, or we see the worker
  jobs_.notify_all();

  take_parts(0);
  for (int left = unfinished_.load(std::memory_order_acquire); left != 0;) left = await_change(unfinished_, left);
}

void ThreadPool::take_parts(int worker) {
  uint64_t seen = unclaimed_.load(std::memory_order_acquire);
  while (uint32_t(seen) != 0) {
    if (!unclaimed_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    job_.call(job_.callee, job_.parts - static_cast<int>(uint32_t(seen)), worker);
    if (unfinished_.fetch_sub(1) == 1) unfinished_.notify_one();
    seen = unclaimed_.load(std::memory_order_acquire);
  }
}

void ThreadPool::work(int worker) {
  int seen = 0;  // a job published before this thread came up is looked at once
  while (!stopping_.load(std::memory_order_acquire)) {
    take_parts(worker);
    seen = await_change(jobs_, seen);
  }
}

}  // namespace switchyard
