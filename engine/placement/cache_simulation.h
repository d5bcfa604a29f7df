// An expert cache replayed over a trace: which experts were resident when they were demanded, for every cache size at
// once (specs/analyses.md A8, A9). A step is a token, or several that run together (the demand is then what any of
// them chose). Every sequence starts with an empty cache.
// Streaming; memory holds the longest sequence. Called by the command line and jobs, on one thread; sequences are
// shared out to a pool of its own, results do not depend on it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"
#include "engine/base/thread_pool.h"

namespace switchyard {

// What is thrown out when the cache is full.
enum class CachePolicy {
  kLru,     // least recently used
  kLfu,     // least often used since the start of the sequence, resident or not; then least recently
  kBelady,  // used again farthest in the future
  kSch,     // used least in the next `window` steps, the current one included; then least recently
  kStatic,  // nothing: the experts most used in this very trace stay, misses pass through
  // Like MoE-Infinity, after its description: the lowest share * (1 - row / rows), then least recently used. Shares are
  // those of the row's choices in the earlier sequence (of the last 64) whose counts [L, E] have the largest cosine
  // with those of this sequence so far; equal ones: the earliest. The first sequence runs as LRU.
  kMoeInfinity,
};

// How the demands of one step meet the cache. Hits are always judged on the cache before the step.
enum class CacheRule {
  kSet,  // the step's demands stay until it ends: a miss replaces the worst among those not demanded. Slots >= demands
  kMoeLrc,  // demands are inserted one by one, and may throw each other out (moe-lrc's functions)
};

struct CachePolicySpec {
  CachePolicy policy = CachePolicy::kLru;
  int window = 0;  // SCH only, >= 1
};
// "lru", "lfu", "belady", "sch-16", "static", "moe-infinity"; kUsage otherwise.
Result<CachePolicySpec> parse_cache_policy(std::string_view text);
std::string name(const CachePolicySpec& spec);

struct CacheOptions {
  CacheRule rule = CacheRule::kSet;
  bool shared = false;  // one cache for all rows; else one for each
  int step_tokens = 1;  // tokens that run together
  int max_slots = 0;    // of a cache; 0: as many as there are experts
  std::vector<CachePolicySpec> policies = {CachePolicySpec{}};
  int threads = 0;  // 0: one per core
};

class CacheSimulation {
 public:
  CacheSimulation(int rows, int experts, const CacheOptions& options);
  ~CacheSimulation();
  // Slabs in order. An id that the model does not have is an error; then nothing of the slab is counted.
  Result<void> feed(const RoutingSlab& slab);
  void finish();  // after the last slab

  const CacheOptions& options() const { return options_; }
  int caches() const { return caches_; }  // rows, or 1
  int max_slots() const { return max_slots_; }
  int min_slots() const { return options_.rule == CacheRule::kSet ? int(largest_demand_) : 1; }
  uint64_t steps() const { return steps_; }  // of one row
  uint64_t demands(int cache) const { return demands_[size_t(cache)]; }
  // warm: the first touch of an expert in a sequence counts as a hit while fewer than `slots` were touched.
  // slots: min_slots() .. max_slots().
  uint64_t hits(size_t policy, int cache, int slots, bool warm) const;

 private:
  struct Replay;
  struct Request {                   // MoE-Infinity: what a sequence has chosen
    std::vector<float> counts;       // [L, E]
    std::vector<uint32_t> priority;  // [L, E], scaled to 28 bits
    double norm = 0;
  };
  void replay_sequence();
  void find_nearest();
  void store_request();

  CacheOptions options_;
  int rows_, experts_, caches_, cache_experts_, max_slots_, k_ = 0;
  ThreadPool pool_;
  std::vector<Replay> replays_;  // one for each worker
  bool open_ = false;
  uint32_t sequence_ = 0;
  std::vector<std::vector<ExpertId>> buffered_;  // [rows]: ids of the running sequence, [tokens, k]
  std::vector<Request> requests_;                // earlier sequences, oldest first
  std::vector<int> nearest_;                     // of each step of the running one; -1: none
  uint64_t steps_ = 0;
  size_t largest_demand_ = 1;
  std::vector<uint64_t> demands_;  // [caches]
  std::vector<uint64_t> used_;     // [caches, cache_experts]
  // [policies, caches, max_slots]: demands found with exactly d better experts before them; and first touches with
  // exactly d experts touched before.
  std::vector<uint64_t> found_at_, first_at_;
};

// A9: what the misses cost. Bytes are those of experts loaded on demand.
struct OffloadMachine {
  double expert_bytes = 0;
  double bytes_per_s = 0;
  double layer_compute_s = 0;
};
struct OffloadCost {
  double bytes = 0;    // moved in all
  double stall_s = 0;  // waiting for misses
  double total_s = 0;  // sum over steps and layers of max(compute, prefetch), plus the stall
};
// Nothing is prefetched by these policies: total = steps * layers * compute + misses * bytes / bandwidth.
OffloadCost offload_cost(const OffloadMachine& machine, uint64_t steps, int layers, uint64_t misses);

}  // namespace switchyard
