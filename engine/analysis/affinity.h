// Inter-layer affinity (specs/analyses.md A10): how often expert i of one routing row is followed by
// expert j of the next for the same token. Streaming and mergeable; no files.
// Called by views, the command line and the trace recorder; no thread owns it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

struct ExpertPair { ExpertId from = 0, to = 0; uint64_t count = 0; };

struct AffinityStats {
  double mi_bits = 0;         // mutual information of the two, from the given counts
  double chance_mi_bits = 0;  // what independent choices would show with so few tokens, to first order (Miller 1955)
  double uncertainty = 0;     // MI / H(to); 0 where H(to) is 0
  double expected_max_p = 0;  // sum_i p(i) max_j P(j | i)
  double marginal_max = 0;    // max_j p(j): what expected_max_p is without knowing i
};

class Affinity {
 public:
  Affinity(int rows, int experts);  // rows - 1 transitions
  // ids of one token in rows `row` and `row + 1`, slot order (first choice first), empty slots kNoExpert.
  // An id that the model does not have is an error; then nothing is counted.
  Result<void> feed(int row, std::span<const ExpertId> from, std::span<const ExpertId> to);
  // The same of many tokens: [tokens, k] each.
  Result<void> feed(int row, std::span<const ExpertId> from, std::span<const ExpertId> to, int k);
  void merge(const Affinity& other);  // of the same shape
  void clear();

  int transitions() const { return rows_ - 1; }
  int experts() const { return experts_; }
  // [E, E] row-major: row = from, column = to.
  std::span<const uint64_t> topk(int row) const;  // all pairs of a token, weight 1
  std::span<const uint64_t> top1(int row) const;  // first choices only

 private:
  void count(int row, std::span<const ExpertId> from, std::span<const ExpertId> to);
  int rows_, experts_;
  std::vector<uint64_t> topk_, top1_;
};

// counts: [E, E]. All zero: every statistic is 0.
AffinityStats affinity_stats(std::span<const uint64_t> counts, int experts);
// P(to | from) in place of counts; rows without counts are 0.
std::vector<double> conditional(std::span<const uint64_t> counts, int experts);
// Falling count, then lower from, then lower to; pairs with count 0 are left out.
std::vector<ExpertPair> strongest_pairs(std::span<const uint64_t> counts, int experts, int top);

}  // namespace switchyard
