// The solvers behind place_by_affinity(); its own pieces only. Counts were checked.
#pragma once

#include <cstdint>

#include "engine/base/philox.h"
#include "engine/placement/affinity_placement.h"
#include "engine/placement/assignment.h"

namespace switchyard {

// A stream of random numbers that a seed and a stream number name.
class Dice {
 public:
  Dice(uint64_t seed, uint32_t stream) : key_{uint32_t(seed), uint32_t(seed >> 32)}, stream_(stream) {}
  uint32_t word() {
    if (left_ == 0) {
      words_ = philox4x32({uint32_t(block_), uint32_t(block_ >> 32), stream_, 0}, key_);
      ++block_;
      left_ = 4;
    }
    return words_[size_t(--left_)];
  }
  // 0 .. n - 1; the bias of the multiplication is below n / 2^32.
  uint32_t below(uint32_t n) { return uint32_t((uint64_t(word()) * n) >> 32); }
  double unit() { return unit_interval(word()); }

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> words_{};
  uint64_t block_ = 0;
  uint32_t stream_;
  int left_ = 0;
};

double sum_of_largest_loads(const HopCounts& counts, const Placement& placement);

// states: balanced placements of one layer.
Result<Placement> place_by_chain(const HopCounts& counts, const PlacementOptions& options, int64_t states, Task* task);
Result<Placement> place_by_annealing(const HopCounts& counts, const PlacementOptions& options, Task* task);

}  // namespace switchyard
