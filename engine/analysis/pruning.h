// Criteria for pruning and merging experts, and the long tail (specs/analyses.md A15, A16). Sums are streaming and
// mergeable; no files. Rows may be fed from different threads.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

// Sums over the tokens X_e that chose the expert; g is the weight as applied, or divided by the token's sum.
struct Saliency {
  uint64_t frequency = 0;    // |X_e|
  double seer_soft = 0;      // sum g
  double ean_sum = 0;        // sum |f_e(x)|
  double weighted_ean = 0;   // sum g |f_e(x)|
  double easy_ep = 0;        // sum max(0, 1 - cos(block in, block out)) g |f_e(x)|
  double ean_mean() const { return frequency == 0 ? 0 : ean_sum / double(frequency); }
  double reap() const { return frequency == 0 ? 0 : weighted_ean / double(frequency); }
};

class ExpertSaliency {
 public:
  // renormalise: REAP since March 2026 divides g by its sum over the token's experts.
  ExpertSaliency(int rows, int experts, bool renormalise = true)
      : rows_(rows), experts_(experts), renormalise_(renormalise), sums_(size_t(rows) * experts) {}
  // slab.weights must be there; without out_norm (or block_cos) the sums that need them stay 0.
  Result<void> feed(const RoutingSlab& slab, int row);
  void merge(const ExpertSaliency& other);  // of the same shape
  std::span<const Saliency> row(int row) const { return {sums_.data() + size_t(row) * experts_, size_t(experts_)}; }

 private:
  int rows_, experts_;
  bool renormalise_;
  std::vector<Saliency> sums_;
};

// The experts left out when the `keep` highest scores stay (ties: the lower id stays), rising ids.
std::vector<ExpertId> pruned_set(std::span<const double> scores, int keep);
// |a n b| / |a u b|; two empty sets: 1.
double set_jaccard(std::span<const ExpertId> a, std::span<const ExpertId> b);
// [n]: place of each in rising order, from 0; ties share their mean.
std::vector<double> mean_ranks(std::span<const double> x);
// Spearman's rank correlation, ties share their mean rank; 0 where a side does not vary.
double rank_correlation(std::span<const double> a, std::span<const double> b);

// Smallest number of experts whose loads, largest first, sum to at least percent / 100 of all; 0 without load.
int experts_for_share(std::span<const uint64_t> counts, int percent);

// REAP's super experts: [row, expert] with max_act above max(quantile of all values, a tenth of the largest), in the
// first int(share of rows) rows. max_act: [L, E]. Quantile by linear interpolation.
struct SuperExperts {
  double quantile = 0, threshold = 0;
  std::vector<std::pair<int, ExpertId>> experts;
};
SuperExperts super_experts(std::span<const float> max_act, int rows, double percentile, double first_rows_share);

// NAEE: change of the layer's output when one expert is left out (its logit -inf, weights renormalised), summed over
// blocks of tokens. outputs, logits: [T, E] (outputs: one number per token and expert, or use `width` numbers each:
// [T, E, width]); blocks: first token of each block, and T.
std::vector<double> naee_losses(std::span<const double> outputs, std::span<const double> logits, int experts, int k, int width,
                                std::span<const int> blocks);

// sum f_i W_i / sum f_i over the members; weights: [E][n].
std::vector<double> merged_weights(std::span<const double> f, std::span<const std::vector<double>> weights, std::span<const int> members);

}  // namespace switchyard
