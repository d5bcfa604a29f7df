// A block of CUDA threads on one CPU thread: a fibre a thread, switched where threads wait for each other (block
// barrier, warp exchange). Between such points threads run one after the other in an order that the seed decides, so
// that a barrier that is missing gives other numbers under some seeds. Blocks of a grid run one after the other, in an
// order of the seed. Used by cuda_on_cpu.h; one grid at a time per host thread. What a device leaves undefined (a
// barrier that some threads never reach, a shuffle with lanes that have exited) is reported with the threads and what
// each waits for, and ends the program.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <source_location>
#include <vector>

#include <boost/context/continuation.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned the_x = 1, unsigned the_y = 1, unsigned the_z = 1) : x(the_x), y(the_y), z(the_z) {}
};
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

namespace cuda_on_cpu {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;
inline constexpr unsigned char kPoison = 0xCD;

// Decides every order; the same seed repeats a run.
class Order {
 public:
  explicit Order(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x2545F4914F6CDD1Du) {}
  uint32_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return uint32_t(state_ >> 32);
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t left = items.size(); left > 1; --left) std::swap(items[left - 1], items[next() % left]);
  }

 private:
  uint64_t state_;
};

// 0: threads and blocks in the order of their numbers.
inline uint64_t& seed() {
  thread_local uint64_t value = 0;
  return value;
}
struct WithSeed {
  explicit WithSeed(uint64_t value) : before(seed()) { seed() = value; }
  ~WithSeed() { seed() = before; }
  WithSeed(const WithSeed&) = delete;
  uint64_t before;
};

// Memory with a guard zone on either side that nobody may touch: AddressSanitizer reports an access there at once,
// without it intact() tells afterwards.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes), memory_(new (std::align_val_t(kAlign)) unsigned char[whole()]) {
    std::memset(memory_, kGuard, kZone), std::memset(memory_ + kZone + bytes_, kGuard, whole() - kZone - bytes_);
    std::memset(data(), kPoison, bytes_);
    ASAN_POISON_MEMORY_REGION(memory_, kZone);
    ASAN_POISON_MEMORY_REGION(memory_ + kZone + bytes_, whole() - kZone - bytes_);
  }
  ~Guarded() {
    ASAN_UNPOISON_MEMORY_REGION(memory_, whole());
    operator delete[](memory_, std::align_val_t(kAlign));
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  unsigned char* data() const { return memory_ + kZone; }
  size_t size() const { return bytes_; }
  bool intact() const {
#if defined(__SANITIZE_ADDRESS__)
    return true;
#else
    const auto good = [](const unsigned char* at, size_t count) {
      return std::all_of(at, at + count, [](unsigned char byte) { return byte == kGuard; });
    };
    return good(memory_, kZone) && good(memory_ + kZone + bytes_, whole() - kZone - bytes_);
#endif
  }

 private:
  static constexpr size_t kAlign = 256, kZone = 256;
  static constexpr unsigned char kGuard = 0xFD;
  size_t whole() const {
    return (kZone + bytes_ + kZone + 7) / 8 * 8;
  }
  size_t bytes_;
  unsigned char* memory_;
};

enum class Wait : uint8_t { kNothing, kBarrier, kWarpExchange, kFinished };

struct Fibre {
  boost::context::continuation context;
  Wait wait = Wait::kFinished;
  unsigned mask = 0;           // of the exchange
  const char* what = "";       // the exchange's name
  uint64_t given = 0;          // to the other lanes
  int predicate = 0;           // of the barrier
  std::source_location place;  // of the barrier
  uint3 index;
};

struct BarrierResult {
  int count = 0;
  bool all = true, any = false;
};

class Block {
 public:
  // The block in which this host thread is, while a grid runs.
  static Block*& current() {
    thread_local Block* block = nullptr;
    return block;
  }

  Block(dim3 the_grid, dim3 the_block, size_t dynamic_bytes, std::function<void()> body)
      : grid(the_grid), size(the_block), body_(std::move(body)), dynamic_bytes_(dynamic_bytes), order_(seed()) {
    threads_ = int(size.x * size.y * size.z);
    if (threads_ < 1 || threads_ > 1024) die("a block of so many threads: " + std::to_string(threads_));
    grow(size_t(threads_));
    all_ = fibres().data();
    exchanged_.resize(size_t(threads_ + kWarp - 1) / kWarp * kWarp);
  }

  void run_grid() {
    const size_t blocks = size_t(grid.x) * grid.y * grid.z;
    std::vector<size_t> numbers(blocks);
    std::iota(numbers.begin(), numbers.end(), size_t(0));
    if (seed() != 0) order_.shuffle(numbers);
    Block* const before = std::exchange(current(), this);
    for (const size_t number : numbers) {
      index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
      run_block();
    }
    current() = before;
  }

  // ---- called by the threads of the block ----
  Fibre& me() { return all_[size_t(running_)]; }
  int thread() const { return running_; }
  int lane() const { return running_ % kWarp; }

  BarrierResult barrier(int predicate, std::source_location place) {
    Fibre& own = me();
    own.predicate = predicate, own.place = place;
    yield(Wait::kBarrier);
    return barrier_;
  }
  // Waits for all lanes of the mask; then their values can be read with given().
  void exchange(unsigned mask, uint64_t value, const char* what) {
    Fibre& own = me();
    if (!(mask >> lane() & 1)) die(std::string(what) + ": the lane is not in its own mask");
    own.mask = mask, own.given = value, own.what = what;
    yield(Wait::kWarpExchange);
  }
  uint64_t given(int lane_of_warp) const { return exchanged_[size_t(running_ / kWarp * kWarp + lane_of_warp)]; }
  unsigned lanes_running() const {  // of this warp: those that have not exited
    unsigned mask = 0;
    const int first = running_ / kWarp * kWarp;
    for (int i = first; i < std::min(first + kWarp, threads_); ++i)
      if (all_[size_t(i)].wait != Wait::kFinished) mask |= 1u << (i - first);
    return mask;
  }
  // Shared memory of the block: one piece for each declaration, dynamic memory for all that ask.
  void* shared(const void* declaration, size_t bytes) {
    std::unique_ptr<Guarded>& piece = shared_[declaration];
    if (!piece) piece = std::make_unique<Guarded>(bytes);
    return piece->data();
  }
  void* dynamic_shared() { return shared(nullptr, dynamic_bytes_); }

  dim3 grid, size;
  uint3 index;

 private:
  static std::vector<Fibre>& fibres() {
    thread_local std::vector<Fibre> all;
    return all;
  }

  // Fibres outlive blocks: making one costs as much as running a small thread.
  static void grow(size_t count) {
    std::vector<Fibre>& all = fibres();
    all.reserve(1024);  // threads refer to their fibre
#if defined(__SANITIZE_ADDRESS__)
    constexpr size_t kStack = 512 * 1024;
#else
    constexpr size_t kStack = 128 * 1024;
#endif
    while (all.size() < count) {
      Fibre& fibre = all.emplace_back();
      places().left = &places().scheduler;
      boost::context::continuation came =
          boost::context::callcc(std::allocator_arg, boost::context::protected_fixedsize_stack(kStack),
                                 [&fibre](boost::context::continuation&& from) {
                                   *places().left = std::move(from);
                                   switch_to(places().scheduler, fibre.context);
                                   for (;;) {
                                     current()->body_();
                                     current()->yield(Wait::kFinished);
                                   }
                                   return std::move(places().scheduler);
                                 });
      *places().left = std::move(came);
    }
  }

  // Where the scheduler goes on, and where whoever switches keeps its own context: the one that it switches to puts it
  // there.
  struct Places {
    boost::context::continuation scheduler;
    boost::context::continuation* left = nullptr;
  };
  static Places& places() {
    thread_local Places all;
    return all;
  }
  static void switch_to(boost::context::continuation& to, boost::context::continuation& own) {
    places().left = &own;
    boost::context::continuation from = to.resume();
    *places().left = std::move(from);
  }

  // To the next thread of the warp that can run, or to the scheduler.
  void yield(Wait wait) {
    Fibre& own = me();
    own.wait = wait;
    const int next = next_in_walk();
    if (next >= 0) running_ = next;
    switch_to(next >= 0 ? all_[size_t(next)].context : places().scheduler, own.context);
  }

  void run_block() {
    shared_.clear();
    for (int i = 0; i < threads_; ++i) {
      Fibre& fibre = all_[size_t(i)];
      fibre.wait = Wait::kNothing;
      fibre.index = {unsigned(i) % size.x, unsigned(i) / size.x % size.y, unsigned(i) / (size.x * size.y)};
    }
    std::vector<int> warps(size_t(threads_ + kWarp - 1) / kWarp);
    std::iota(warps.begin(), warps.end(), 0);
    for (;;) {
      if (seed() != 0) order_.shuffle(warps);
      for (const int warp : warps) run_warp(warp * kWarp, std::min(warp * kWarp + kWarp, threads_));
      if (!release_barrier()) break;
    }
    for (const auto& [declaration, piece] : shared_)
      if (!piece->intact()) die("a write outside of shared memory");
  }

  // As far as the warp's lanes come: to a barrier or to their end.
  void run_warp(int first, int end) {
    do {
      // An affine walk through the lanes: every lane once.
      const uint32_t random = seed() == 0 ? 0 : order_.next();
      walk_ = {first, end, int(random & 31), 2 * int(random >> 5 & 15) + 1, 0};
      running_ = next_in_walk();
      if (running_ >= 0) switch_to(all_[size_t(running_)].context, places().scheduler);
    } while (release_exchanges(first, end));
  }
  struct Walk {
    int first = 0, end = 0, start = 0, step = 1, taken = 0;
  };
  int next_in_walk() {
    while (walk_.taken < kWarp) {
      const int thread = walk_.first + ((walk_.start + walk_.taken++ * walk_.step) & 31);
      if (thread < walk_.end && all_[size_t(thread)].wait == Wait::kNothing) return thread;
    }
    return -1;
  }

  // Lets the lanes go on whose exchange is complete. Whoever is let go runs, and reads, before the next release.
  bool release_exchanges(int first, int end) {
    Fibre* const all = all_;
    unsigned waiting = 0, released = 0;
    for (int i = first; i < end; ++i)
      if (all[size_t(i)].wait == Wait::kWarpExchange) waiting |= 1u << (i - first);
    for (unsigned left = waiting; left != 0; left &= left - 1) {
      const int lane = std::countr_zero(left);
      const Fibre& fibre = all[size_t(first + lane)];
      if ((fibre.mask & ~waiting) != 0) {
        check_alive(fibre.mask & ~waiting, first, end);
        continue;
      }
      bool same = true;
      for (unsigned others = fibre.mask; others != 0 && same; others &= others - 1) {
        const Fibre& other = all[size_t(first + std::countr_zero(others))];
        same = other.mask == fibre.mask && other.what == fibre.what;
      }
      if (!same) continue;  // some lanes have an exchange of their own before this one
      released |= fibre.mask;
      left &= ~fibre.mask | (1u << lane);  // the bit in hand is taken by the loop
    }
    for (unsigned left = released; left != 0; left &= left - 1) {
      const size_t thread = size_t(first + std::countr_zero(left));
      exchanged_[thread] = all[thread].given;
      all[thread].wait = Wait::kNothing;
    }
    return released != 0;
  }
  void check_alive(unsigned mask, int first, int end) const {
    for (; mask != 0; mask &= mask - 1) {
      const int thread = first + std::countr_zero(mask);
      if (thread >= end || all_[size_t(thread)].wait == Wait::kFinished)
        die_waiting("a mask names a lane that has exited");
    }
  }

  // Threads that have exited count as arrived. False: all have exited.
  bool release_barrier() {
    Fibre* const all = all_;
    const Fibre* first = nullptr;
    barrier_ = {};
    for (int i = 0; i < threads_; ++i) {
      const Fibre& fibre = all[size_t(i)];
      if (fibre.wait == Wait::kFinished) continue;
      if (fibre.wait != Wait::kBarrier) die_waiting("deadlock");
      if (!first) first = &fibre;
      if (fibre.place.line() != first->place.line() ||
          std::strcmp(fibre.place.file_name(), first->place.file_name()) != 0)
        die_waiting("threads of one block wait at different barriers");
      barrier_.count += fibre.predicate != 0;
      barrier_.all = barrier_.all && fibre.predicate != 0;
      barrier_.any = barrier_.any || fibre.predicate != 0;
    }
    if (!first) return false;
    for (int i = 0; i < threads_; ++i)
      if (all[size_t(i)].wait == Wait::kBarrier) all[size_t(i)].wait = Wait::kNothing;
    return true;
  }

  [[noreturn]] static void die(const std::string& why) {
    std::fprintf(stderr, "cuda_on_cpu: %s\n", why.c_str());
    std::abort();
  }
  [[noreturn]] void die_waiting(const char* why) const {
    std::fprintf(stderr, "cuda_on_cpu: %s in block (%u, %u, %u), seed %llu\n", why, index.x, index.y, index.z,
                 static_cast<unsigned long long>(seed()));
    for (int i = 0; i < threads_; ++i) {
      const Fibre& fibre = all_[size_t(i)];
      std::fprintf(stderr, "  thread (%u, %u, %u): ", fibre.index.x, fibre.index.y, fibre.index.z);
      switch (fibre.wait) {
        case Wait::kNothing:
          std::fprintf(stderr, "runs\n");
          break;
        case Wait::kBarrier:
          std::fprintf(stderr, "barrier at %s:%u\n", fibre.place.file_name(), fibre.place.line());
          break;
        case Wait::kWarpExchange:
          std::fprintf(stderr, "%s with mask %08x\n", fibre.what, fibre.mask);
          break;
        case Wait::kFinished:
          std::fprintf(stderr, "has exited\n");
          break;
      }
    }
    std::abort();
  }

  std::function<void()> body_;
  size_t dynamic_bytes_;
  Order order_;
  int threads_ = 0, running_ = 0;
  Fibre* all_ = nullptr;  // [threads]
  Walk walk_;
  BarrierResult barrier_;
  std::vector<uint64_t> exchanged_;
  std::map<const void*, std::unique_ptr<Guarded>> shared_;
};

}  // namespace cuda_on_cpu
