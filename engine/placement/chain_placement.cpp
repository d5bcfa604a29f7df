// The exact placement: best sum over the chain of layers, one state for each balanced placement of a layer.
// A placement is split into its first and last half of the experts: what a placement keeps of the hops from the layer
// before is a sum of two table entries, and placements with the same first half are neighbours.
#include <algorithm>
#include <atomic>
#include <limits>
#include <map>

#include "engine/base/thread_pool.h"
#include "engine/placement/affinity_solvers.h"

namespace switchyard {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// All ways to put `experts` experts on GPUs with at most `room` each, [ways, experts], and how many each GPU got.
struct Halves {
  int experts = 0;
  std::vector<uint8_t> gpu;
  std::vector<std::vector<uint8_t>> held;
  size_t ways() const { return held.size(); }
  std::span<const uint8_t> way(size_t i) const { return std::span(gpu).subspan(i * size_t(experts), size_t(experts)); }
};

void enumerate(Halves& out, std::vector<uint8_t>& way, std::vector<uint8_t>& held, uint8_t room) {
  if (int(way.size()) == out.experts) {
    out.gpu.insert(out.gpu.end(), way.begin(), way.end());
    out.held.push_back(held);
    return;
  }
  for (size_t g = 0; g < held.size(); ++g) {
    if (held[g] == room) continue;
    way.push_back(uint8_t(g));
    ++held[g];
    enumerate(out, way, held, room);
    --held[g];
    way.pop_back();
  }
}

Halves halves_of(int experts, int gpus, int room) {
  Halves out{experts};
  std::vector<uint8_t> way, held(size_t(gpus), 0);
  enumerate(out, way, held, uint8_t(room));
  return out;
}

// The balanced placements of one layer, those with the same first half together.
class States {
 public:
  States(int experts, int gpus, int64_t count)
      : experts_(experts),
        count_(size_t(count)),
        first_(halves_of(experts / 2, gpus, experts / gpus)),
        last_(halves_of(experts - experts / 2, gpus, experts / gpus)) {
    std::map<std::vector<uint8_t>, std::vector<size_t>> by_need;
    for (size_t i = 0; i < last_.ways(); ++i) by_need[last_.held[i]].push_back(i);
    std::map<std::vector<uint8_t>, size_t> start_of;
    for (const auto& [held, ways] : by_need) {
      start_of[held] = order_.size();
      order_.insert(order_.end(), ways.begin(), ways.end());
    }
    size_t state = 0;
    for (const auto& held : first_.held) {
      std::vector<uint8_t> need(held.size());
      for (size_t g = 0; g < held.size(); ++g) need[g] = uint8_t(experts / gpus - held[g]);
      const size_t ways = by_need.at(need).size();
      runs_.push_back({state, start_of.at(need), ways});
      state += ways;
    }
  }

  size_t count() const { return count_; }

  std::vector<uint8_t> placement(size_t state) const {
    size_t run = 0;
    while (run + 1 < runs_.size() && runs_[run + 1].state <= state) ++run;
    std::vector<uint8_t> gpu(first_.way(run).begin(), first_.way(run).end());
    const auto last = last_.way(order_[runs_[run].last + state - runs_[run].state]);
    gpu.insert(gpu.end(), last.begin(), last.end());
    return gpu;
  }

  // best[state] = max(best[state], value + sum over e of gain[gpu of e][e]); gain: [G, E]. scratch grows as needed.
  void raise(std::span<const double> gain, double value, std::span<double> best, std::vector<double>& scratch) const {
    scratch.resize(last_.ways());
    const size_t half = size_t(first_.experts);
    for (size_t i = 0; i < last_.ways(); ++i) scratch[i] = sum(gain, last_.way(order_[i]), half);
    for (size_t run = 0; run < runs_.size(); ++run) {
      const double base = value + sum(gain, first_.way(run), 0);
      const double* last = scratch.data() + runs_[run].last;
      double* out = best.data() + runs_[run].state;
      for (size_t i = 0; i < runs_[run].ways; ++i) out[i] = std::max(out[i], base + last[i]);
    }
  }

  // f(state, placement) for all states in order.
  template <class F>
  void for_each(size_t begin, size_t end, F&& f) const {
    std::vector<uint8_t> gpu(static_cast<size_t>(experts_));
    for (size_t run = 0; run < runs_.size(); ++run) {
      const size_t from = std::max(begin, runs_[run].state), to = std::min(end, runs_[run].state + runs_[run].ways);
      if (from >= to) continue;
      std::copy(first_.way(run).begin(), first_.way(run).end(), gpu.begin());
      for (size_t state = from; state < to; ++state) {
        const auto last = last_.way(order_[runs_[run].last + state - runs_[run].state]);
        std::copy(last.begin(), last.end(), gpu.begin() + first_.experts);
        f(state, std::span<const uint8_t>(gpu));
      }
    }
  }

 private:
  struct Run {
    size_t state, last, ways;  // first state, place of its last halves in order_, number of states
  };
  double sum(std::span<const double> gain, std::span<const uint8_t> way, size_t offset) const {
    double sum = 0;
    for (size_t e = 0; e < way.size(); ++e) sum += gain[way[e] * size_t(experts_) + offset + e];
    return sum;
  }

  int experts_;
  size_t count_;
  Halves first_, last_;
  std::vector<size_t> order_;  // last halves by how many each GPU got
  std::vector<Run> runs_;
};

class Chain {
 public:
  Chain(const HopCounts& counts, const PlacementOptions& options, int64_t states)
      : counts_(counts),
        gpus_(size_t(options.gpus)),
        experts_(size_t(counts.experts)),
        load_weight_(options.load_weight),
        states_(counts.experts, options.gpus, states),
        pool_(options.threads),
        best_(size_t(counts.layers), std::vector<double>(states_.count(), 0.0)) {}

  Result<Placement> solve(Task* task) {
    start();
    for (int l = 0; l + 1 < counts_.layers; ++l) {
      if (task) task->report(double(l) / counts_.layers, "placing experts");
      SY_CHECK(step(l, task));
    }
    return trace_back();
  }

 private:
  void start() {
    if (!counts_.home.empty()) {
      std::vector<double> gain(counts_.home.begin(), counts_.home.end()), scratch;
      std::fill(best_[0].begin(), best_[0].end(), kNever);
      states_.raise(gain, 0, best_[0], scratch);
    }
    charge_loads(0);
  }

  void charge_loads(int layer) {
    if (load_weight_ == 0) return;
    const auto loads = std::span(counts_.loads).subspan(size_t(layer) * experts_, experts_);
    std::vector<double> on(gpus_);
    states_.for_each(0, states_.count(), [&](size_t state, std::span<const uint8_t> gpu) {
      std::fill(on.begin(), on.end(), 0.0);
      for (size_t e = 0; e < experts_; ++e) on[gpu[e]] += loads[e];
      best_[size_t(layer)][state] -= load_weight_ * *std::max_element(on.begin(), on.end());
    });
  }

  // From layer l to l + 1: every state of l raises every state of l + 1.
  Result<void> step(int layer, Task* task) {
    constexpr int kParts = 64;
    const auto counts = counts_.transition(layer);
    std::vector<std::vector<double>> raised(size_t(pool_.threads()), std::vector<double>(states_.count(), kNever));
    std::atomic<bool> stopped{false};
    pool_.run(kParts, [&](int part, int worker) {
      if (task && task->cancelled()) stopped = true;
      if (stopped) return;
      std::vector<double> gain(gpus_ * experts_), scratch;
      const RowRange range = split_rows(int64_t(states_.count()), kParts, part);
      states_.for_each(size_t(range.begin), size_t(range.end), [&](size_t state, std::span<const uint8_t> gpu) {
        std::fill(gain.begin(), gain.end(), 0.0);
        for (size_t i = 0; i < experts_; ++i) {
          double* row = gain.data() + gpu[i] * experts_;
          for (size_t j = 0; j < experts_; ++j) row[j] += double(counts[i * experts_ + j]);
        }
        states_.raise(gain, best_[size_t(layer)][state], raised[size_t(worker)], scratch);
      });
    });
    if (stopped) return fail(ErrorCode::kCancelled, "the placement was cancelled.");
    std::vector<double>& next = best_[size_t(layer) + 1];
    next = std::move(raised[0]);
    for (size_t w = 1; w < raised.size(); ++w)
      for (size_t s = 0; s < next.size(); ++s) next[s] = std::max(next[s], raised[w][s]);
    charge_loads(layer + 1);
    return {};
  }

  Placement trace_back() const {
    Placement placement{int(gpus_), std::vector<int>(size_t(counts_.layers) * experts_)};
    placement.proof = PlacementProof::kChain;
    size_t state = size_t(std::max_element(best_.back().begin(), best_.back().end()) - best_.back().begin());
    for (int l = counts_.layers - 1; l >= 0; --l) {
      const auto gpu = states_.placement(state);
      std::copy(gpu.begin(), gpu.end(), placement.gpu.begin() + l * counts_.experts);
      if (l > 0) state = best_before(l - 1, gpu);
    }
    return placement;
  }

  // The state of `layer` from which `next`, the placement of the layer after it, is reached best.
  size_t best_before(int layer, std::span<const uint8_t> next) const {
    const auto counts = counts_.transition(layer);
    std::vector<double> kept(gpus_ * experts_, 0.0);
    for (size_t i = 0; i < experts_; ++i)
      for (size_t j = 0; j < experts_; ++j) kept[next[j] * experts_ + i] += double(counts[i * experts_ + j]);
    size_t best = 0;
    double most = kNever;
    states_.for_each(0, states_.count(), [&](size_t state, std::span<const uint8_t> gpu) {
      double sum = best_[size_t(layer)][state];
      for (size_t e = 0; e < experts_; ++e) sum += kept[gpu[e] * experts_ + e];
      if (sum > most) {
        most = sum;
        best = state;
      }
    });
    return best;
  }

  const HopCounts& counts_;
  size_t gpus_, experts_;
  double load_weight_;
  States states_;
  ThreadPool pool_;
  std::vector<std::vector<double>> best_;  // [L][states]: hops kept up to this layer, less the weighted loads
};

}  // namespace

Result<Placement> place_by_chain(const HopCounts& counts, const PlacementOptions& options, int64_t states, Task* task) {
  return Chain(counts, options, states).solve(task);
}

}  // namespace switchyard
