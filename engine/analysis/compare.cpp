// Edit effects and routing shift, see compare.h.
#include "engine/analysis/compare.h"
#include "engine/analysis/quantile.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchyard {
namespace {

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

size_t first_largest(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// p ln(p / q) with 0 ln 0 = 0.
double divergence_term(double p, double log_p, double log_q) {
  return p > 0 ? p * (log_p - log_q) : 0;
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, TokenId target) {
  return log_sum_exp(logits) - logits[static_cast<size_t>(target)];
}

PositionEffect effect_at(std::span<const float> base, std::span<const float> edited, TokenId target) {
  const double base_lse = log_sum_exp(base), edited_lse = log_sum_exp(edited);
  PositionEffect effect;
  for (size_t i = 0; i < base.size(); ++i) {
    const double log_p = base[i] - base_lse, log_q = edited[i] - edited_lse;
    const double p = std::exp(log_p), q = std::exp(log_q);
    const double log_middle = std::log((p + q) / 2);
    effect.kl += divergence_term(p, log_p, log_q);
    effect.kl_reversed += divergence_term(q, log_q, log_p);
    effect.js += (divergence_term(p, log_p, log_middle) + divergence_term(q, log_q, log_middle)) / 2;
    effect.tv += std::abs(p - q) / 2;
  }
  effect.nll_base = base_lse - base[static_cast<size_t>(target)];
  effect.nll_edited = edited_lse - edited[static_cast<size_t>(target)];
  effect.top1_flip = first_largest(base) != first_largest(edited);
  return effect;
}

void EditEffect::merge(const EditEffect& other) {
  positions_.insert(positions_.end(), other.positions_.begin(), other.positions_.end());
}

double EditEffect::mean(double PositionEffect::*field) const {
  if (positions_.empty()) return 0;
  double sum = 0;
  for (const PositionEffect& position : positions_) sum += position.*field;
  return sum / static_cast<double>(positions_.size());
}

double EditEffect::top1_flip_rate() const {
  if (positions_.empty()) return 0;
  const auto flips = std::count_if(positions_.begin(), positions_.end(), [](const auto& p) { return p.top1_flip; });
  return static_cast<double>(flips) / static_cast<double>(positions_.size());
}

double EditEffect::kl_percentile(double percent) const {
  if (positions_.empty()) return 0;
  std::vector<double> sorted;
  for (const PositionEffect& position : positions_) sorted.push_back(position.kl);
  std::sort(sorted.begin(), sorted.end());
  return quantile(sorted, percent / 100);
}

std::vector<size_t> EditEffect::worst_positions(size_t top) const {
  std::vector<size_t> order(positions_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return positions_[a].kl > positions_[b].kl; });
  order.resize(std::min(top, order.size()));
  return order;
}

double perplexity(double mean_nll) {
  return std::exp(mean_nll);
}

Result<void> RoutingShift::feed(int row, std::span<const ExpertId> base, std::span<const ExpertId> other) {
  if (row < 0 || row >= rows())
    return fail(ErrorCode::kUsage, "routing row " + std::to_string(row) + " of " + std::to_string(rows()) + ".");
  if (base.empty()) return fail(ErrorCode::kUsage, "a decision without experts has no overlap.");
  const auto shared = std::count_if(
      base.begin(), base.end(), [&](ExpertId id) { return std::find(other.begin(), other.end(), id) != other.end(); });
  const auto all = static_cast<double>(base.size() + other.size()) - static_cast<double>(shared);
  Row& sums = rows_[static_cast<size_t>(row)];
  ++sums.tokens;
  sums.overlap += static_cast<double>(shared) / static_cast<double>(base.size());
  sums.jaccard += static_cast<double>(shared) / all;
  return {};
}

void RoutingShift::merge(const RoutingShift& other) {
  for (size_t row = 0; row < rows_.size(); ++row) {
    rows_[row].tokens += other.rows_[row].tokens;
    rows_[row].overlap += other.rows_[row].overlap;
    rows_[row].jaccard += other.rows_[row].jaccard;
  }
}

double RoutingShift::overlap(int row) const {
  const Row& sums = rows_[static_cast<size_t>(row)];
  return sums.tokens == 0 ? 1 : sums.overlap / static_cast<double>(sums.tokens);
}

double RoutingShift::jaccard(int row) const {
  const Row& sums = rows_[static_cast<size_t>(row)];
  return sums.tokens == 0 ? 1 : sums.jaccard / static_cast<double>(sums.tokens);
}

Result<void> Saturation::feed(int row, std::span<const ExpertId> base, std::span<const ExpertId> other) {
  if (row < 0 || row >= int(rows_.size()) || base.size() != other.size() || base.size() % size_t(k_) != 0)
    return fail(ErrorCode::kInternal, "routing row " + std::to_string(row) + ": the two sides do not have the same tokens.");
  Row& sums = rows_[row];
  for (size_t token = 0; token < base.size(); token += k_) {
    const auto a = base.subspan(token, k_), b = other.subspan(token, k_);
    if (a[0] == kNoExpert) continue;
    uint64_t shared = 0, chosen = 0;
    for (int j = 0; j < k_; ++j) {
      // The pairs that j adds: its own id against the first j + 1 of the other side, and the other way round.
      for (int i = 0; i <= j; ++i) shared += (a[j] != kNoExpert && a[j] == b[i]) + (i < j && b[j] != kNoExpert && b[j] == a[i]);
      sums.shared[j] += shared;
      chosen += (a[j] != kNoExpert) + (b[j] != kNoExpert);
    }
    sums.jaccard += double(shared) / double(chosen - shared);
    ++sums.tokens;
  }
  return {};
}

double Saturation::overlap(int row, int j) const {
  const Row& sums = rows_[row];
  return sums.tokens == 0 ? 0 : double(sums.shared[j - 1]) / (double(sums.tokens) * j);
}

double Saturation::jaccard(int row) const { return rows_[row].tokens == 0 ? 0 : rows_[row].jaccard / double(rows_[row].tokens); }

}  // namespace switchyard
