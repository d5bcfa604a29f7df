// A predictive expert cache, inspired by the PLEC of ExpertFlow (specs/analyses.md A9; its own rules where the source
// is not specific, all written down here). All layers share `slots`; a step is a token, or several that run together.
//
// Before a step runs, the demand of every layer is forecast by A10(a): for each token the k experts with the largest
// sum of P(to | from) over its experts of the layer before; layer 0 is known, later layers are forecast from
// forecasts. Each layer's quota is its share of the distinct experts forecast, by largest remainder, never above E.
// Then, layer by layer:
//  1. from the experts that the layer before really chose, this layer is forecast again; forecast experts that are not
//     resident are loaded ahead, most often forecast first (layer 0: none);
//  2. demands that are resident are hits; the others are loaded while the layer waits.
// A load takes a free slot. Else, while the layer holds less than its quota: the least recently used expert of a layer
// above its quota. Else the least recently used of its own that it does not want (forecast while it loads ahead,
// demanded afterwards). Else a slot that a layer finished in this step has freed (its least recently used). Else a
// forecast is given up, and a miss passes through without staying.
//
// Streaming; called by the command line and jobs, on one thread. Sequences start with an empty cache.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"
#include "engine/placement/cache_simulation.h"

namespace switchyard {

struct PlecTotals {
  uint64_t demands = 0, hits = 0;                   // distinct experts of each step and layer
  uint64_t prefetched = 0;                          // loaded ahead
  uint64_t prefetched_in_vain = 0;                  // of them not demanded by the layer and step they were loaded for
  std::vector<uint64_t> layer_demands, layer_hits;  // [L]
};

class PlecSimulation {
 public:
  // topk: [L - 1, E, E] counts of all pairs (Affinity::topk), from this trace or another. slots: of the whole model.
  PlecSimulation(int rows, int experts, int slots, int step_tokens, std::span<const uint64_t> topk);
  Result<void> feed(const RoutingSlab& slab);
  void finish();

  const PlecTotals& totals() const { return totals_; }
  uint64_t steps() const { return steps_; }
  // A9: every layer of every step takes max(compute, what was loaded ahead for it), and waits for its misses.
  OffloadCost cost(const OffloadMachine& machine) const;

 private:
  void run_step();
  void forecast(int row, std::span<const ExpertId> from, std::span<ExpertId> to);
  void share_slots();
  bool take_slot(int row);
  int oldest(int row, bool spare_wanted) const;
  bool load(int row, int expert);
  void evict(int row, int expert);
  size_t cell(int row, int expert) const { return size_t(row) * size_t(experts_) + size_t(expert); }

  int rows_, experts_, slots_, step_tokens_, k_ = 0;
  std::vector<double> conditional_;          // [L - 1, E, E]
  std::vector<std::vector<ExpertId>> step_;  // [L]: ids of the step's tokens
  int tokens_in_step_ = 0;
  bool open_ = false;
  uint32_t sequence_ = 0;
  // Cache: resident since when it was last used (0: not resident), per cell.
  std::vector<uint64_t> used_;
  std::vector<uint8_t> wanted_;    // [E], of the layer in hand
  std::vector<int> held_, quota_;  // [L]
  int resident_ = 0;
  uint64_t clock_ = 0, steps_ = 0;
  std::vector<uint64_t> loads_ahead_;  // layers of steps that loaded n experts ahead, by n
  PlecTotals totals_;
};

}  // namespace switchyard
