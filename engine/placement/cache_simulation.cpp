// Cache simulation, see cache_simulation.h.
// Every policy here throws out the expert of lowest priority, and no priority depends on the size of the cache: the
// caches of all sizes are then the beginnings of one stack (Mattson et al. 1970), and one walk gives all sizes. A
// demanded expert goes to the top; what it displaces goes down, at every level the expert of lower priority further,
// as far as the demanded one lay.
#include "engine/placement/cache_simulation.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "engine/placement/cache_steps.h"
#include "engine/placement/check_slab.h"

namespace switchyard {
namespace {

// A priority is (what the policy counts) << 34 | time of last access; 2^34 accesses, 2^29 uses in a sequence.
constexpr int kTimeBits = 34;
constexpr uint64_t kOneUse = uint64_t(1) << kTimeBits;
constexpr uint64_t kTime = kOneUse - 1;
constexpr uint64_t kDemandedNow = uint64_t(1) << 63;
constexpr uint32_t kNowhere = 0xFFFFFFFF;
constexpr uint64_t kNever = kTime;
constexpr size_t kRequests = 64;
constexpr double kPriorityScale = 1 << 28;

}  // namespace

void demands_of(std::span<const std::vector<ExpertId>> rows, size_t k, size_t experts, size_t step_tokens,
                StepDemands& out, std::vector<uint32_t>& seen) {
  const size_t tokens = rows[0].size() / k, steps = (tokens + step_tokens - 1) / step_tokens;
  out.width = std::min(step_tokens * k, std::max(experts, k)) * rows.size();
  out.ids.assign(steps * out.width, kNoDemand);
  seen.assign(rows.size() * experts, kNowhere);
  for (size_t step = 0; step < steps; ++step) {
    uint32_t* to = out.ids.data() + step * out.width;
    const size_t end = std::min(tokens, (step + 1) * step_tokens) * k;
    for (size_t r = 0; r < rows.size(); ++r) {
      for (size_t i = step * step_tokens * k; i < end; ++i) {
        if (rows[r][i] == kNoExpert) continue;
        const uint32_t id = uint32_t(r * experts + rows[r][i]);
        if (seen[id] == uint32_t(step)) continue;
        seen[id] = uint32_t(step);
        *to++ = id;
      }
    }
  }
}

struct CacheSimulation::Replay {
  StepDemands demands;
  std::vector<uint64_t> priority;      // [experts of the cache]
  std::vector<uint32_t> stack, place;  // place: where in the stack, kNowhere outside
  std::vector<uint8_t> touched;
  std::vector<uint32_t> next, scratch;  // next: Belady; of each demand, the access that uses its expert again
  size_t levels = 0;                    // kept of the stack

  void start(size_t experts, size_t max_slots) {
    priority.assign(experts, 0);
    place.assign(experts, kNowhere);
    touched.assign(experts, 0);
    stack.clear();
    levels = max_slots;
  }

  void find_next_uses(size_t experts) {
    next.assign(demands.ids.size(), kNowhere);
    scratch.assign(experts, kNowhere);
    for (size_t i = demands.ids.size(); i-- > 0;) {
      if (demands.ids[i] == kNoDemand) continue;
      next[i] = scratch[demands.ids[i]];
      scratch[demands.ids[i]] = uint32_t(i);
    }
    for (size_t e = 0; e < experts; ++e) priority[e] = scratch[e] == kNowhere ? 0 : kNever - scratch[e];
  }

  // The uses of `step` come into the window of SCH; they leave it one by one as they are served.
  void look_ahead(size_t step) {
    if (step >= demands.steps()) return;
    for (const uint32_t e : demands.step(step)) {
      if (e == kNoDemand) break;
      priority[e] += kOneUse;
    }
  }

  // Priority of `e` once access `at` has served it.
  void served(const CachePolicySpec& spec, uint32_t e, size_t at) {
    uint64_t& p = priority[e];
    const uint64_t demanded = p & kDemandedNow, time = uint64_t(at) + 1;
    switch (spec.policy) {
      case CachePolicy::kLru:
        p = demanded | time;
        break;
      case CachePolicy::kLfu:
        p = ((p & ~kTime) + kOneUse) | time;
        break;
      case CachePolicy::kSch:
        p = ((p & ~kTime) - kOneUse) | time;
        break;
      case CachePolicy::kBelady:
        p = demanded | (next[at] == kNowhere ? 0 : kNever - next[at]);
        break;
      case CachePolicy::kMoeInfinity:
        p = (p & ~kTime) | time;
        break;
      case CachePolicy::kStatic:
        break;
    }
  }

  void bring_to_top(uint32_t e) {
    if (place[e] == 0) return;
    uint32_t down = e;
    for (size_t i = 0; i < stack.size(); ++i) {
      const uint32_t here = stack[i];
      if (i > 0 && here != e && priority[here] >= priority[down]) continue;
      stack[i] = down;
      place[down] = uint32_t(i);
      if (here == e) return;
      down = here;
    }
    if (stack.size() < levels) {
      place[down] = uint32_t(stack.size());
      stack.push_back(down);
    } else {
      place[down] = kNowhere;
    }
  }

  // expected: [experts of the cache], what the nearest earlier request lets expect.
  void expect(std::span<const uint32_t> expected) {
    for (size_t e = 0; e < priority.size(); ++e)
      priority[e] = uint64_t(expected[e]) << kTimeBits | (priority[e] & kTime);
  }

  // found_at, first_at: [max_slots], see the class. expectation(step): expected, see above; empty: as before.
  template <class Expectation>
  void run(const CachePolicySpec& spec, CacheRule rule, size_t experts, size_t max_slots, std::span<uint64_t> found_at,
           std::span<uint64_t> first_at, const Expectation& expectation) {
    start(experts, max_slots);
    if (spec.policy == CachePolicy::kBelady) find_next_uses(experts);
    if (spec.policy == CachePolicy::kSch)
      for (int s = 0; s + 1 < spec.window; ++s) look_ahead(size_t(s));
    size_t distinct = 0;
    for (size_t step = 0; step < demands.steps(); ++step) {
      if (spec.policy == CachePolicy::kSch) look_ahead(step + size_t(spec.window) - 1);
      if (spec.policy == CachePolicy::kMoeInfinity) {
        if (const std::span<const uint32_t> expected = expectation(step); !expected.empty()) expect(expected);
      }
      const auto demanded = demands.step(step);
      for (const uint32_t e : demanded) {
        if (e == kNoDemand) break;
        if (place[e] != kNowhere) ++found_at[place[e]];
        if (!touched[e]) {
          touched[e] = 1;
          if (distinct < first_at.size()) ++first_at[distinct];
          ++distinct;
        }
        if (rule == CacheRule::kSet) priority[e] |= kDemandedNow;
      }
      for (size_t slot = 0; slot < demanded.size() && demanded[slot] != kNoDemand; ++slot) {
        served(spec, demanded[slot], step * demands.width + slot);
        bring_to_top(demanded[slot]);
      }
      if (rule == CacheRule::kMoeLrc) continue;
      for (const uint32_t e : demanded) {
        if (e == kNoDemand) break;
        priority[e] &= ~kDemandedNow;
      }
    }
  }
};

Result<CachePolicySpec> parse_cache_policy(std::string_view text) {
  if (text == "lru") return CachePolicySpec{CachePolicy::kLru};
  if (text == "lfu") return CachePolicySpec{CachePolicy::kLfu};
  if (text == "belady") return CachePolicySpec{CachePolicy::kBelady};
  if (text == "static") return CachePolicySpec{CachePolicy::kStatic};
  if (text == "moe-infinity") return CachePolicySpec{CachePolicy::kMoeInfinity};
  int window = 0;
  if (text.starts_with("sch-")) {
    const auto [end, problem] = std::from_chars(text.data() + 4, text.data() + text.size(), window);
    if (problem == std::errc() && end == text.data() + text.size() && window >= 1 && window <= 1'000'000)
      return CachePolicySpec{CachePolicy::kSch, window};
  }
  return fail(
      ErrorCode::kUsage, "\"" + std::string(text.substr(0, 40)) + "\" is no cache policy.", "",
      "Choose among lru, lfu, belady, sch-M (M tokens looked ahead, as in sch-16), moe-infinity, static and plec.");
}

std::string name(const CachePolicySpec& spec) {
  switch (spec.policy) {
    case CachePolicy::kLru:
      return "lru";
    case CachePolicy::kLfu:
      return "lfu";
    case CachePolicy::kBelady:
      return "belady";
    case CachePolicy::kSch:
      return "sch-" + std::to_string(spec.window);
    case CachePolicy::kMoeInfinity:
      return "moe-infinity";
    case CachePolicy::kStatic:
      break;
  }
  return "static";
}

CacheSimulation::CacheSimulation(int rows, int experts, const CacheOptions& options)
    : options_(options),
      rows_(rows),
      experts_(experts),
      caches_(options.shared ? 1 : rows),
      cache_experts_(options.shared ? rows * experts : experts),
      max_slots_(options.max_slots > 0 ? std::min(options.max_slots, cache_experts_) : cache_experts_),
      pool_(options.threads),
      buffered_(size_t(rows)),
      demands_(size_t(caches_), 0),
      used_(size_t(caches_) * size_t(cache_experts_), 0),
      found_at_(options.policies.size() * size_t(caches_) * size_t(max_slots_), 0),
      first_at_(found_at_.size(), 0) {
  replays_.resize(size_t(pool_.threads()));
}

CacheSimulation::~CacheSimulation() = default;

Result<void> CacheSimulation::feed(const RoutingSlab& slab) {
  if (k_ != 0 && slab.k != k_)
    return fail(ErrorCode::kMalformed, "slabs of one trace need equally many slots a token.");
  SY_CHECK(check_slab(slab, rows_, experts_));
  k_ = slab.k;
  for (int t = 0; t < slab.tokens; ++t) {
    if (open_ && slab.sequence[size_t(t)] != sequence_) replay_sequence();
    open_ = true;
    sequence_ = slab.sequence[size_t(t)];
    for (int r = 0; r < rows_; ++r) {
      const auto ids = slab.token(r, t);
      buffered_[size_t(r)].insert(buffered_[size_t(r)].end(), ids.begin(), ids.end());
    }
  }
  return {};
}

void CacheSimulation::finish() {
  if (open_) replay_sequence();
  open_ = false;
}

void CacheSimulation::replay_sequence() {
  const auto rows_of = [&](int cache) {
    return options_.shared ? std::span<const std::vector<ExpertId>>(buffered_)
                           : std::span<const std::vector<ExpertId>>(buffered_).subspan(size_t(cache), 1);
  };
  const bool by_request = std::any_of(options_.policies.begin(), options_.policies.end(),
                                      [](const CachePolicySpec& p) { return p.policy == CachePolicy::kMoeInfinity; });
  if (by_request) find_nearest();
  std::vector<size_t> largest(replays_.size(), 0), steps(replays_.size(), 0);
  pool_.run(caches_, [&](int cache, int worker) {
    Replay& replay = replays_[size_t(worker)];
    const size_t experts = size_t(cache_experts_), slots = size_t(max_slots_);
    demands_of(rows_of(cache), size_t(k_), size_t(experts_), size_t(options_.step_tokens), replay.demands,
               replay.scratch);
    steps[size_t(worker)] = replay.demands.steps();
    for (size_t s = 0; s < replay.demands.steps(); ++s) {
      size_t count = 0;
      for (const uint32_t e : replay.demands.step(s)) {
        if (e == kNoDemand) break;
        ++count;
        ++used_[size_t(cache) * experts + e];
      }
      demands_[size_t(cache)] += count;
      largest[size_t(worker)] = std::max(largest[size_t(worker)], count);
    }
    const auto expectation = [&](size_t step) -> std::span<const uint32_t> {
      if (nearest_[step] < 0 || (step > 0 && nearest_[step] == nearest_[step - 1])) return {};
      return std::span(requests_[size_t(nearest_[step])].priority).subspan(size_t(cache) * experts, experts);
    };
    for (size_t p = 0; p < options_.policies.size(); ++p) {
      if (options_.policies[p].policy == CachePolicy::kStatic) continue;
      const size_t at = (p * size_t(caches_) + size_t(cache)) * slots;
      replay.run(options_.policies[p], options_.rule, experts, slots, std::span(found_at_).subspan(at, slots),
                 std::span(first_at_).subspan(at, slots), expectation);
    }
  });
  steps_ += *std::max_element(steps.begin(), steps.end());
  largest_demand_ = std::max(largest_demand_, *std::max_element(largest.begin(), largest.end()));
  if (by_request) store_request();
  for (auto& row : buffered_) row.clear();
}

// The earlier request that is nearest to what this one chose before each step.
void CacheSimulation::find_nearest() {
  const size_t k = size_t(k_), experts = size_t(experts_), step_ids = k * size_t(options_.step_tokens);
  const size_t ids = buffered_[0].size();
  std::vector<double> dot(requests_.size(), 0.0);
  nearest_.clear();
  for (size_t first = 0; first < ids; first += step_ids) {
    int nearest = requests_.empty() ? -1 : 0;
    for (size_t r = 1; r < requests_.size(); ++r)
      if (dot[r] * requests_[size_t(nearest)].norm > dot[size_t(nearest)] * requests_[r].norm) nearest = int(r);
    nearest_.push_back(nearest);
    for (size_t row = 0; row < buffered_.size(); ++row) {
      for (size_t i = first; i < std::min(ids, first + step_ids); ++i) {
        if (buffered_[row][i] == kNoExpert) continue;
        const size_t cell = row * experts + buffered_[row][i];
        for (size_t r = 0; r < requests_.size(); ++r) dot[r] += double(requests_[r].counts[cell]);
      }
    }
  }
}

void CacheSimulation::store_request() {
  const size_t experts = size_t(experts_), rows = size_t(rows_);
  Request request{std::vector<float>(rows * experts, 0.0f), std::vector<uint32_t>(rows * experts, 0)};
  for (size_t row = 0; row < rows; ++row) {
    double total = 0;
    for (const ExpertId e : buffered_[row]) {
      if (e == kNoExpert) continue;
      ++request.counts[row * experts + e];
      ++total;
    }
    for (size_t cell = row * experts; cell < (row + 1) * experts; ++cell) {
      const double count = double(request.counts[cell]);
      request.norm += count * count;
      if (total > 0)
        request.priority[cell] = uint32_t(count / total * (1.0 - double(row) / double(rows)) * kPriorityScale);
    }
  }
  request.norm = std::sqrt(request.norm);
  if (request.norm == 0) return;
  if (requests_.size() == kRequests) requests_.erase(requests_.begin());
  requests_.push_back(std::move(request));
}

uint64_t CacheSimulation::hits(size_t policy, int cache, int slots, bool warm) const {
  if (options_.policies[policy].policy == CachePolicy::kStatic) {
    const size_t experts = size_t(cache_experts_);
    std::vector<uint64_t> used(used_.begin() + std::ptrdiff_t(size_t(cache) * experts),
                               used_.begin() + std::ptrdiff_t((size_t(cache) + 1) * experts));
    std::sort(used.begin(), used.end(), std::greater<>());
    return std::accumulate(used.begin(), used.begin() + slots, uint64_t{0});
  }
  const size_t at = (policy * size_t(caches_) + size_t(cache)) * size_t(max_slots_);
  uint64_t hits = 0;
  for (size_t d = at; d < at + size_t(slots); ++d) hits += found_at_[d] + (warm ? first_at_[d] : 0);
  return hits;
}

OffloadCost offload_cost(const OffloadMachine& machine, uint64_t steps, int layers, uint64_t misses) {
  OffloadCost cost;
  cost.bytes = double(misses) * machine.expert_bytes;
  cost.stall_s = machine.bytes_per_s > 0 ? cost.bytes / machine.bytes_per_s : 0;
  cost.total_s = double(steps) * layers * machine.layer_compute_s + cost.stall_s;
  return cost;
}

}  // namespace switchyard
