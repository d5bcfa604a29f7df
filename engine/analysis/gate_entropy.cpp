// Routing entropy: sums over tokens in double precision.
#include "engine/analysis/gate_entropy.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/analysis/check_ids.h"

namespace switchyard {

GateEntropy::GateEntropy(int rows, int experts)
    : rows_(rows), experts_(experts), prob_sum_(size_t(rows) * experts), entropy_sum_(rows), top1_sum_(rows), squared_lse_sum_(rows), tokens_(rows) {}

Result<void> GateEntropy::feed(int row, std::span<const float> logits, std::span<const uint8_t> mask) {
  SY_CHECK(check_row(row, rows_));
  if (logits.size() % size_t(experts_) != 0) {
    return fail(ErrorCode::kMalformed,
                std::to_string(logits.size()) + " logits are not whole tokens of " + std::to_string(experts_) + " experts",
                "routing row " + std::to_string(row));
  }
  double* sums = prob_sum_.data() + size_t(row) * experts_;
  std::vector<double> weights(experts_);
  for (size_t first = 0; first < logits.size(); first += experts_) {
    if (!mask.empty() && mask[first / size_t(experts_)] == 0) continue;
    const auto z = logits.subspan(first, experts_);
    if (std::any_of(z.begin(), z.end(), [](float value) { return std::isnan(value); })) continue;
    const double top = *std::max_element(z.begin(), z.end());
    double total = 0, weighted = 0;
    for (int e = 0; e < experts_; ++e) {
      weights[e] = std::exp(z[e] - top);
      total += weights[e];
      if (weights[e] > 0) weighted += weights[e] * (z[e] - top);
    }
    for (int e = 0; e < experts_; ++e) sums[e] += weights[e] / total;
    entropy_sum_[row] += std::log(total) - weighted / total;  // H = lse - sum p z
    top1_sum_[row] += 1 / total;
    const double lse = top + std::log(total);
    squared_lse_sum_[row] += lse * lse;
    ++tokens_[row];
  }
  return {};
}

void GateEntropy::merge(const GateEntropy& other) {
  std::transform(prob_sum_.begin(), prob_sum_.end(), other.prob_sum_.begin(), prob_sum_.begin(), std::plus<>());
  std::transform(entropy_sum_.begin(), entropy_sum_.end(), other.entropy_sum_.begin(), entropy_sum_.begin(), std::plus<>());
  std::transform(top1_sum_.begin(), top1_sum_.end(), other.top1_sum_.begin(), top1_sum_.begin(), std::plus<>());
  std::transform(squared_lse_sum_.begin(), squared_lse_sum_.end(), other.squared_lse_sum_.begin(), squared_lse_sum_.begin(), std::plus<>());
  std::transform(tokens_.begin(), tokens_.end(), other.tokens_.begin(), tokens_.begin(), std::plus<>());
}

GateEntropyStats GateEntropy::stats(int row) const {
  GateEntropyStats stats;
  stats.tokens = tokens_[row];
  if (stats.tokens == 0) return stats;
  const double tokens = static_cast<double>(stats.tokens);
  stats.mean_entropy = entropy_sum_[row] / tokens;
  stats.mean_top1_prob = top1_sum_[row] / tokens;
  stats.z_loss = squared_lse_sum_[row] / tokens;
  for (const double sum : prob_sum(row)) {
    const double p = sum / tokens;
    if (p > 0) stats.entropy_of_mean -= p * std::log(p);
  }
  stats.mutual_information = stats.entropy_of_mean - stats.mean_entropy;
  return stats;
}

}  // namespace switchyard
