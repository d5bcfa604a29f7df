// Counts what placements are made from, over a trace: hops between layers, first choices by home GPU, loads.
// Streaming; called by the command line and jobs, on one thread.
#pragma once

#include "engine/analysis/affinity.h"
#include "engine/analysis/load.h"
#include "engine/analysis/slab.h"
#include "engine/placement/affinity_placement.h"

namespace switchyard {

// The home GPU of a token: the placement of requests is not in a trace, so sequences are dealt out in turn.
inline int home_gpu(uint32_t sequence, int gpus) {
  return int(sequence % uint32_t(gpus));
}

class HopCounter {
 public:
  HopCounter(int rows, int experts, int gpus);
  Result<void> feed(const RoutingSlab& slab);

  // all_pairs: of all k * k pairs of a token (weight 1); else of first choices. home: with the hop home -> layer 0.
  HopCounts counts(bool all_pairs, bool home) const;
  std::vector<uint64_t> all_pairs() const;                      // [L - 1, E, E]
  const std::vector<uint64_t>& homes() const { return home_; }  // [L, G, E], first choices
  std::vector<float> loads() const;                             // [L, E], all slots

 private:
  int rows_, experts_, gpus_;
  Affinity affinity_;
  Load load_;
  std::vector<uint64_t> home_;
};

}  // namespace switchyard
