// Expert load and imbalance (specs/analyses.md A1). Streaming and mergeable; no files.
// Called by views, the command line and the trace recorder; no thread owns it.
#pragma once

#include <cstdint>
#include <optional>
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

// Auxiliary losses of training, from whole-trace sums (A1). Three scalings are in use and do not compare: an even load
// gives 1 for `normalised` and `switch_form`, k for `per_layer`.
struct BalanceLosses {
  double normalised = 0;   // E sum_e q_e P_e, q = n / (N k)
  double per_layer = 0;    // E sum_e f_e P_e, f = n / N
  double switch_form = 0;  // E sum_e (n1 / N) P_e, first choices only
};
// counts, first_choices, prob_sum: [E]; tokens N > 0, k slots.
BalanceLosses balance_losses(std::span<const uint64_t> counts, std::span<const uint64_t> first_choices, std::span<const double> prob_sum,
                             uint64_t tokens, int k);
// As transformers computes it: f and P are meant over layers before they are multiplied. [L] spans of [E].
double pooled_balance_loss(std::span<const std::span<const uint64_t>> counts, std::span<const std::span<const double>> prob_sum, uint64_t tokens);

// MaxVio of a window of `tokens` tokens that choose k of E experts at random, all alike: the mean over seeded draws, fewer
// for longer windows. Few tokens are uneven by chance alone. Above 1e6 tokens nothing, where it is next to 0.
std::optional<double> random_max_vio(int experts, int k, uint64_t tokens);

class Load {
 public:
  Load(int rows, int experts);
  // ids: [tokens, k] of one routing row, first choice first, empty slots kNoExpert. An id that the model
  // does not have is an error; then nothing is counted.
  Result<void> feed(int row, std::span<const ExpertId> ids, int k);
  // Takes tokens that were fed before out again (a sliding window). Removing more than was fed is an error.
  Result<void> remove(int row, std::span<const ExpertId> ids, int k);
  // [E] counts of a row that somebody else made; first choices are not known then.
  Result<void> add(int row, std::span<const uint64_t> counts);
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
