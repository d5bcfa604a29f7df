// A few threads that share one piece of work at a time: run(parts, body). The caller takes part, parts
// are claimed as threads get to them, and run() returns when all are done.
// One owner calls run() and resize(), one call at a time; body runs on the owner and on the workers.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace switchyard {

// Cores this process may use (its affinity mask), at least 1.
int available_cores();

// Rows [begin, end) of part `part` when `rows` are split evenly into `parts`; boundaries are multiples
// of `multiple` (the last end is `rows`). Depends on nothing else, so a split can be repeated.
struct RowRange {
  int64_t begin = 0, end = 0;
};
RowRange split_rows(int64_t rows, int parts, int part, int64_t multiple = 1);

// What a part computes must not depend on who computes it: then results are the same bit for bit for
// every number of threads. Idle workers look for work for some 30 microseconds, then sleep; with more
// threads than cores they sleep at once. A thread that other programs keep from running costs only the
// part it holds: the rest is taken by the others.
class ThreadPool {
 public:
  explicit ThreadPool(int threads = 0) { resize(threads); }  // 0: one per core
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }  // the caller included
  void resize(int threads);                                              // 0: one per core

  // Calls body(part, worker) once for every part in [0, parts); worker in [0, threads()) names the
  // thread that runs it, 0 the caller. body must not throw and must not call run().
  template <class Body>
  void run(int parts, Body&& body) {
    if (parts <= 1 || workers_.empty()) {
      for (int part = 0; part < parts; ++part) body(part, 0);
      return;
    }
    using Callee = std::remove_reference_t<Body>;
    share({[](void* callee, int part, int worker) { (*static_cast<Callee*>(callee))(part, worker); },
           const_cast<void*>(static_cast<const void*>(&body)), parts});
  }

 private:
  struct Job {
    void (*call)(void* callee, int part, int worker) = nullptr;
    void* callee = nullptr;
    int parts = 0;
  };

  void share(const Job& job);
  void work(int worker);
  void take_parts(int worker);
  int await_change(std::atomic<int>& word, int old) const;
  void stop();

  std::vector<std::thread> workers_;
  bool spin_ = true;
  Job job_;  // read only by who holds a claimed part of it
  // Job number in the high half, unclaimed parts in the low half: a late worker cannot claim a part of
  // a job it has not seen.
  alignas(64) std::atomic<uint64_t> unclaimed_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<int> jobs_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace switchyard
