// The predictive cache, see plec_simulation.h for its rules.
#include "engine/placement/plec_simulation.h"

#include <algorithm>
#include <numeric>

#include "engine/analysis/affinity.h"
#include "engine/placement/check_slab.h"

namespace switchyard {
namespace {

constexpr uint8_t kForecast = 1, kDemanded = 2;

}  // namespace

PlecSimulation::PlecSimulation(int rows, int experts, int slots, int step_tokens, std::span<const uint64_t> topk)
    : rows_(rows),
      experts_(experts),
      slots_(slots),
      step_tokens_(step_tokens),
      step_(size_t(rows)),
      used_(size_t(rows) * size_t(experts), 0),
      wanted_(size_t(experts), 0),
      held_(size_t(rows), 0),
      quota_(size_t(rows), 0),
      loads_ahead_(size_t(experts) + 1, 0) {
  const size_t cells = size_t(experts) * size_t(experts);
  for (size_t at = 0; at + cells <= topk.size(); at += cells) {
    const auto p = conditional(topk.subspan(at, cells), experts);
    conditional_.insert(conditional_.end(), p.begin(), p.end());
  }
  totals_.layer_demands.assign(size_t(rows), 0);
  totals_.layer_hits.assign(size_t(rows), 0);
}

Result<void> PlecSimulation::feed(const RoutingSlab& slab) {
  SY_CHECK(check_slab(slab, rows_, experts_));
  k_ = slab.k;
  for (int t = 0; t < slab.tokens; ++t) {
    const uint32_t sequence = slab.sequence[size_t(t)];
    if (open_ && sequence != sequence_) finish();
    open_ = true;
    sequence_ = sequence;
    for (int r = 0; r < rows_; ++r) {
      const auto ids = slab.token(r, t);
      step_[size_t(r)].insert(step_[size_t(r)].end(), ids.begin(), ids.end());
    }
    if (++tokens_in_step_ == step_tokens_) run_step();
  }
  return {};
}

void PlecSimulation::finish() {
  if (tokens_in_step_ > 0) run_step();
  open_ = false;
  std::fill(used_.begin(), used_.end(), 0);
  std::fill(held_.begin(), held_.end(), 0);
  resident_ = 0;
}

// The k best of the next row for each token; from, to: [tokens, k]. A token without experts forecasts none.
void PlecSimulation::forecast(int row, std::span<const ExpertId> from, std::span<ExpertId> to) {
  const size_t experts = size_t(experts_), k = size_t(k_);
  const double* table = conditional_.data() + size_t(row) * experts * experts;
  std::vector<double> score(experts);
  std::vector<ExpertId> order(experts);
  for (size_t t = 0; t < from.size(); t += k) {
    std::fill(score.begin(), score.end(), 0.0);
    bool any = false;
    for (size_t i = t; i < t + k; ++i) {
      if (from[i] == kNoExpert) continue;
      any = true;
      const double* p = table + from[i] * experts;
      for (size_t e = 0; e < experts; ++e) score[e] += p[e];
    }
    std::fill_n(to.begin() + std::ptrdiff_t(t), k, kNoExpert);
    if (!any) continue;
    std::iota(order.begin(), order.end(), ExpertId{0});
    const size_t best = std::min(k, experts);
    std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(best), order.end(),
                      [&](ExpertId a, ExpertId b) { return score[a] != score[b] ? score[a] > score[b] : a < b; });
    std::copy_n(order.begin(), best, to.begin() + std::ptrdiff_t(t));
  }
}

// Quotas of this step: shares of the distinct experts forecast for it.
void PlecSimulation::share_slots() {
  std::vector<ExpertId> chosen = step_[0], next(chosen.size());
  std::vector<int> distinct(static_cast<size_t>(rows_));
  std::vector<uint8_t> seen(static_cast<size_t>(experts_));
  for (int r = 0; r < rows_; ++r) {
    std::fill(seen.begin(), seen.end(), uint8_t{0});
    for (const ExpertId e : chosen)
      if (e != kNoExpert && !seen[e]) {
        seen[e] = 1;
        ++distinct[size_t(r)];
      }
    if (r + 1 == rows_) break;
    forecast(r, chosen, next);
    std::swap(chosen, next);
  }
  const int total = std::accumulate(distinct.begin(), distinct.end(), 0);
  std::fill(quota_.begin(), quota_.end(), 0);
  if (total == 0) return;
  std::vector<int> order(static_cast<size_t>(rows_));
  std::iota(order.begin(), order.end(), 0);
  const auto remainder = [&](int r) { return int64_t(slots_) * distinct[size_t(r)] % total; };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return remainder(a) > remainder(b); });
  int left = slots_;
  for (int r = 0; r < rows_; ++r) {
    quota_[size_t(r)] = std::min(experts_, int(int64_t(slots_) * distinct[size_t(r)] / total));
    left -= quota_[size_t(r)];
  }
  for (bool gave = true; left > 0 && gave;) {
    gave = false;
    for (const int r : order) {
      if (left == 0 || quota_[size_t(r)] == experts_) continue;
      ++quota_[size_t(r)];
      --left;
      gave = true;
    }
  }
}

// The least recently used expert of a row; spare_wanted: among those that are neither forecast nor demanded. -1: none.
int PlecSimulation::oldest(int row, bool spare_wanted) const {
  int found = -1;
  for (int e = 0; e < experts_; ++e) {
    const uint64_t used = used_[cell(row, e)];
    if (used == 0 || (spare_wanted && wanted_[size_t(e)])) continue;
    if (found < 0 || used < used_[cell(row, found)]) found = e;
  }
  return found;
}

void PlecSimulation::evict(int row, int expert) {
  used_[cell(row, expert)] = 0;
  --held_[size_t(row)];
  --resident_;
}

// Frees a slot for `row` by the rules of the header; false: there is none.
bool PlecSimulation::take_slot(int row) {
  if (resident_ < slots_) return true;
  if (held_[size_t(row)] < quota_[size_t(row)]) {
    int from = -1, victim = -1;
    for (int r = 0; r < rows_; ++r) {
      if (r == row || held_[size_t(r)] <= quota_[size_t(r)]) continue;
      const int e = oldest(r, false);
      if (from < 0 || used_[cell(r, e)] < used_[cell(from, victim)]) {
        from = r;
        victim = e;
      }
    }
    if (from >= 0) {
      evict(from, victim);
      return true;
    }
  }
  if (const int own = oldest(row, true); own >= 0) {
    evict(row, own);
    return true;
  }
  int from = -1, victim = -1;
  for (int r = 0; r < row; ++r) {
    const int e = oldest(r, false);
    if (e >= 0 && (from < 0 || used_[cell(r, e)] < used_[cell(from, victim)])) {
      from = r;
      victim = e;
    }
  }
  if (from < 0) return false;
  evict(from, victim);
  return true;
}

bool PlecSimulation::load(int row, int expert) {
  if (!take_slot(row)) return false;
  used_[cell(row, expert)] = ++clock_;
  ++held_[size_t(row)];
  ++resident_;
  return true;
}

void PlecSimulation::run_step() {
  share_slots();
  std::vector<ExpertId> forecast_of_tokens(step_[0].size());
  std::vector<int> votes(static_cast<size_t>(experts_)), ranked;
  std::vector<uint8_t> loaded(static_cast<size_t>(experts_));
  std::vector<ExpertId> demanded;
  for (int r = 0; r < rows_; ++r) {
    std::fill(wanted_.begin(), wanted_.end(), uint8_t{0});
    std::fill(loaded.begin(), loaded.end(), uint8_t{0});
    size_t ahead = 0;
    if (r > 0) {
      forecast(r - 1, step_[size_t(r) - 1], forecast_of_tokens);
      std::fill(votes.begin(), votes.end(), 0);
      for (const ExpertId e : forecast_of_tokens)
        if (e != kNoExpert) ++votes[e];
      ranked.clear();
      for (int e = 0; e < experts_; ++e)
        if (votes[size_t(e)] > 0) ranked.push_back(e);
      std::stable_sort(ranked.begin(), ranked.end(), [&](int a, int b) { return votes[size_t(a)] > votes[size_t(b)]; });
      for (const int e : ranked) wanted_[size_t(e)] = kForecast;
      for (const int e : ranked) {
        if (used_[cell(r, e)] != 0 || !load(r, e)) continue;
        loaded[size_t(e)] = 1;
        ++ahead;
      }
    }
    demanded.clear();
    for (const ExpertId e : step_[size_t(r)]) {
      if (e == kNoExpert || (wanted_[e] & kDemanded)) continue;
      wanted_[e] |= kDemanded;
      demanded.push_back(e);
    }
    std::vector<ExpertId> missed;
    for (const ExpertId e : demanded) {
      ++totals_.demands;
      ++totals_.layer_demands[size_t(r)];
      if (used_[cell(r, e)] == 0) {
        missed.push_back(e);
        continue;
      }
      ++totals_.hits;
      ++totals_.layer_hits[size_t(r)];
      used_[cell(r, e)] = ++clock_;
    }
    for (uint8_t& wanted : wanted_) wanted &= kDemanded;  // what was forecast in vain may go
    for (const ExpertId e : missed) load(r, e);
    totals_.prefetched += ahead;
    for (int e = 0; e < experts_; ++e)
      if (loaded[size_t(e)] && !(wanted_[size_t(e)] & kDemanded)) ++totals_.prefetched_in_vain;
    ++loads_ahead_[ahead];
  }
  ++steps_;
  tokens_in_step_ = 0;
  for (auto& row : step_) row.clear();
}

OffloadCost PlecSimulation::cost(const OffloadMachine& machine) const {
  OffloadCost cost;
  const double second_a_load = machine.bytes_per_s > 0 ? machine.expert_bytes / machine.bytes_per_s : 0;
  const uint64_t misses = totals_.demands - totals_.hits;
  cost.bytes = double(misses + totals_.prefetched) * machine.expert_bytes;
  cost.stall_s = double(misses) * second_a_load;
  for (size_t n = 0; n < loads_ahead_.size(); ++n)
    cost.total_s += double(loads_ahead_[n]) * std::max(machine.layer_compute_s, double(n) * second_a_load);
  cost.total_s += cost.stall_s;
  return cost;
}

}  // namespace switchyard
