// Expert load and imbalance (specs/analyses.md A1). Streaming and mergeable; no files.
// Called by views, the command line and the trace recorder; no thread owns it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

struct LoadStats {
  uint64_t total = 0;            // decisions counted
  double max_vio = 0;            // max / mean - 1
  double min_vio = 0;            // 1 - min / mean
  double cv = 0;                 // population std / mean
  double gini = 0;
  double entropy = 0;            // nats, of the load distribution
  double effective_experts = 0;  // e^entropy
  int dead = 0;                  // experts never chosen
  int nearly_dead = 0;           // below a tenth of the mean, the dead ones too
};
// counts: [E]. All zero: every statistic is 0 and dead = E.
LoadStats load_stats(std::span<const uint64_t> counts);

class Load {
 public:
  Load(int rows, int experts);
  // ids: [tokens, k] of one routing row, first choice first, empty slots kNoExpert. An id that the model
  // does not have is an error; then nothing is counted.
  Result<void> feed(int row, std::span<const ExpertId> ids, int k);
  // Takes tokens that were fed before out again (a sliding window). Removing more than was fed is an error.
  Result<void> remove(int row, std::span<const ExpertId> ids, int k);
  void merge(const Load& other);  // of the same shape
  void clear();

  int rows() const { return rows_; }
  int experts() const { return experts_; }
  std::span<const uint64_t> counts(int row) const { return {counts_.data() + size_t(row) * experts_, size_t(experts_)}; }
  std::span<const uint64_t> first_choice_counts(int row) const { return {top1_.data() + size_t(row) * experts_, size_t(experts_)}; }
  LoadStats stats(int row) const { return load_stats(counts(row)); }

 private:
  int rows_, experts_;
  std::vector<uint64_t> counts_, top1_;
};

}  // namespace switchyard
