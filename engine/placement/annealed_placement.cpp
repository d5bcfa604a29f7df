// Placement by annealing where no exact way is affordable: swaps of two experts of a layer, and the best new names of
// the GPUs for all layers from one on. The seed decides; threads only share out the restarts.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "engine/base/thread_pool.h"
#include "engine/placement/affinity_solvers.h"

namespace switchyard {
namespace {

constexpr int kSweepsBetweenRelabels = 50;
constexpr double kCooling = 1e-3;  // last temperature over the first

class Annealing {
 public:
  Annealing(const HopCounts& counts, const PlacementOptions& options, std::span<const double> from_to,
            std::span<const double> to_from, uint32_t stream)
      : counts_(counts),
        layers_(size_t(counts.layers)),
        experts_(size_t(counts.experts)),
        gpus_(size_t(options.gpus)),
        load_weight_(options.load_weight),
        forward_(from_to),
        backward_(to_from),
        dice_(options.seed, stream),
        gpu_(random_placement(counts.layers, counts.experts, options.gpus,
                              options.seed + 0x9E3779B97F4A7C15u * (stream + 1))) {
    rebuild();
  }

  // False when cancelled.
  bool run(int sweeps, Task* task, std::atomic<int>& done, int of) {
    const double first = typical_change();
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      if (task) {
        if (task->cancelled()) return false;
        task->report(double(done.fetch_add(1) + 1) / of, "annealing the placement");
      }
      const double temperature = first * std::pow(kCooling, double(sweep) / std::max(1, sweeps - 1));
      for (size_t i = 0; i < layers_ * experts_; ++i) propose(temperature);
      if (sweep % kSweepsBetweenRelabels == kSweepsBetweenRelabels - 1) relabel();
    }
    relabel();
    while (descend()) relabel();
    return true;
  }

  const std::vector<int>& placement() const { return gpu_; }

 private:
  // gain_[l][g][e]: hops kept with both neighbouring layers if expert e of layer l were on GPU g.
  double& gain(size_t l, size_t g, size_t e) { return gain_[(l * gpus_ + g) * experts_ + e]; }
  int& gpu(size_t l, size_t e) { return gpu_[l * experts_ + e]; }
  const double* row(std::span<const double> counts, size_t l, size_t e) const {
    return counts.data() + (l * experts_ + e) * experts_;
  }

  void rebuild() {
    gain_.assign(layers_ * gpus_ * experts_, 0.0);
    for (size_t i = 0; i < counts_.home.size(); ++i) gain_[i] += double(counts_.home[i]);  // [G, E] of layer 0
    for (size_t l = 0; l + 1 < layers_; ++l) {
      for (size_t e = 0; e < experts_; ++e) {
        add(&gain(l + 1, size_t(gpu(l, e)), 0), row(forward_, l, e));
        add(&gain(l, size_t(gpu(l + 1, e)), 0), row(backward_, l, e));
      }
    }
    load_.assign(layers_ * gpus_, 0.0);
    if (load_weight_ == 0) return;
    for (size_t i = 0; i < counts_.loads.size(); ++i) load_[i / experts_ * gpus_ + size_t(gpu_[i])] += counts_.loads[i];
  }
  void add(double* to, const double* from) const {
    for (size_t e = 0; e < experts_; ++e) to[e] += from[e];
  }

  // What swapping experts i and j of layer l adds to the hops kept, less the weighted loads.
  double change(size_t l, size_t i, size_t j) {
    const size_t a = size_t(gpu(l, i)), b = size_t(gpu(l, j));
    const double hops = gain(l, b, i) + gain(l, a, j) - gain(l, a, i) - gain(l, b, j);
    if (load_weight_ == 0) return hops;
    const double moved = counts_.loads[l * experts_ + i] - counts_.loads[l * experts_ + j];
    double before = 0, after = 0;
    for (size_t g = 0; g < gpus_; ++g) {
      const double load = load_[l * gpus_ + g];
      before = std::max(before, load);
      after = std::max(after, load + (g == b ? moved : g == a ? -moved : 0.0));
    }
    return hops - load_weight_ * (after - before);
  }

  void swap(size_t l, size_t i, size_t j) {
    const size_t a = size_t(gpu(l, i)), b = size_t(gpu(l, j));
    if (l + 1 < layers_) shift(l + 1, a, b, row(forward_, l, i), row(forward_, l, j));
    if (l > 0) shift(l - 1, a, b, row(backward_, l - 1, i), row(backward_, l - 1, j));
    if (load_weight_ != 0) {
      const double moved = counts_.loads[l * experts_ + i] - counts_.loads[l * experts_ + j];
      load_[l * gpus_ + a] -= moved;
      load_[l * gpus_ + b] += moved;
    }
    std::swap(gpu(l, i), gpu(l, j));
  }
  // A neighbour's expert with counts `from_a` went from GPU a to b, one with `from_b` from b to a.
  void shift(size_t l, size_t a, size_t b, const double* from_a, const double* from_b) {
    double* at_a = &gain(l, a, 0);
    double* at_b = &gain(l, b, 0);
    for (size_t e = 0; e < experts_; ++e) {
      const double moved = from_a[e] - from_b[e];
      at_a[e] -= moved;
      at_b[e] += moved;
    }
  }

  struct Proposal {
    size_t layer, i, j;
  };
  bool draw(Proposal& p) {
    p = {dice_.below(uint32_t(layers_)), dice_.below(uint32_t(experts_)), dice_.below(uint32_t(experts_))};
    return gpu(p.layer, p.i) != gpu(p.layer, p.j);
  }

  double typical_change() {
    double sum = 0;
    int seen = 0;
    Proposal p;
    for (int i = 0; i < 2000; ++i) {
      if (!draw(p)) continue;
      sum += std::abs(change(p.layer, p.i, p.j));
      ++seen;
    }
    return seen > 0 && sum > 0 ? sum / seen : 1.0;
  }

  void propose(double temperature) {
    Proposal p;
    if (!draw(p)) return;
    const double better = change(p.layer, p.i, p.j);
    if (better >= 0 || std::log(dice_.unit()) < better / temperature) swap(p.layer, p.i, p.j);
  }

  // Every swap once; true if one was better.
  bool descend() {
    bool better = false;
    for (size_t l = 0; l < layers_; ++l) {
      for (size_t i = 0; i < experts_; ++i) {
        for (size_t j = i + 1; j < experts_; ++j) {
          if (gpu(l, i) == gpu(l, j) || change(l, i, j) <= 1e-6 * (1 + load_weight_)) continue;
          swap(l, i, j);
          better = true;
        }
      }
    }
    return better;
  }

  // For each layer, the names of the GPUs from it on that keep most of the hops into it.
  void relabel() {
    bool changed = false;
    std::vector<double> kept(gpus_ * gpus_);  // [old name, new name]
    for (size_t l = counts_.home.empty() ? 1 : 0; l < layers_; ++l) {
      std::fill(kept.begin(), kept.end(), 0.0);
      if (l == 0) {
        for (size_t i = 0; i < counts_.home.size(); ++i)
          kept[size_t(gpu(0, i % experts_)) * gpus_ + i / experts_] += double(counts_.home[i]);
      } else {
        for (size_t i = 0; i < experts_; ++i) {
          const double* counts = row(forward_, l - 1, i);
          const size_t from = size_t(gpu(l - 1, i));
          for (size_t j = 0; j < experts_; ++j) kept[size_t(gpu(l, j)) * gpus_ + from] += counts[j];
        }
      }
      const auto name = best_assignment(kept, int(gpus_));
      double better = 0;
      for (size_t g = 0; g < gpus_; ++g) better += kept[g * gpus_ + size_t(name[g])] - kept[g * gpus_ + g];
      if (better <= 0) continue;
      changed = true;
      for (size_t i = l * experts_; i < gpu_.size(); ++i) gpu_[i] = name[size_t(gpu_[i])];
    }
    if (changed) rebuild();
  }

  const HopCounts& counts_;
  size_t layers_, experts_, gpus_;
  double load_weight_;
  std::span<const double> forward_, backward_;  // [L - 1, E, E]: by the earlier, by the later expert
  Dice dice_;
  std::vector<int> gpu_;
  std::vector<double> gain_, load_;
};

}  // namespace

int annealing_sweeps(int layers, int experts) {
  return int(std::clamp<int64_t>(20'000'000 / (int64_t(layers) * experts), 3000, 50'000));
}

Result<Placement> place_by_annealing(const HopCounts& counts, const PlacementOptions& options, Task* task) {
  const size_t experts = size_t(counts.experts);
  const std::vector<double> forward(counts.transitions.begin(), counts.transitions.end());
  std::vector<double> backward(forward.size());
  for (size_t i = 0; i < forward.size(); ++i) {
    const size_t l = i / (experts * experts), from = i / experts % experts, to = i % experts;
    backward[(l * experts + to) * experts + from] = forward[i];
  }
  const int restarts = std::max(1, options.restarts), sweeps = options.sweeps > 0 ? options.sweeps : annealing_sweeps(counts.layers, counts.experts);
  std::vector<Placement> found(static_cast<size_t>(restarts));
  std::atomic<bool> cancelled{false};
  std::atomic<int> done{0};
  ThreadPool pool(options.threads);
  pool.run(restarts, [&](int restart, int) {
    Annealing annealing(counts, options, forward, backward, uint32_t(restart));
    if (!annealing.run(sweeps, task, done, restarts * sweeps)) {
      cancelled = true;
      return;
    }
    Placement& placement = found[size_t(restart)];
    placement = {options.gpus, annealing.placement()};
    placement.objective =
        double(cut(counts, placement.gpu)) + options.load_weight * sum_of_largest_loads(counts, placement);
  });
  if (cancelled) return fail(ErrorCode::kCancelled, "the placement was cancelled.");
  return *std::min_element(found.begin(), found.end(),
                           [](const Placement& a, const Placement& b) { return a.objective < b.objective; });
}

}  // namespace switchyard
