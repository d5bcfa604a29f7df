// Expert load: counts and the statistics over them.
#include "engine/analysis/load.h"

#include <algorithm>
#include <cmath>

#include "engine/analysis/check_ids.h"
#include "engine/base/philox.h"

namespace switchyard {

LoadStats load_stats(std::span<const uint64_t> counts) {
  LoadStats stats;
  const double experts = static_cast<double>(counts.size());
  for (const uint64_t count : counts) {
    stats.total += count;
    stats.dead += count == 0;
  }
  if (stats.total == 0) return stats;

  std::vector<uint64_t> rising(counts.begin(), counts.end());
  std::sort(rising.begin(), rising.end());
  const double total = static_cast<double>(stats.total);
  const double mean = total / experts;
  double squares = 0, ranked = 0;
  for (size_t i = 0; i < rising.size(); ++i) {
    const double x = static_cast<double>(rising[i]);
    squares += (x - mean) * (x - mean);
    ranked += static_cast<double>(i + 1) * x;
    if (x > 0) stats.entropy -= x / total * std::log(x / total);
    stats.nearly_dead += x < 0.1 * mean;
  }
  stats.max_vio = static_cast<double>(rising.back()) / mean - 1;
  stats.min_vio = 1 - static_cast<double>(rising.front()) / mean;
  stats.cv = std::sqrt(squares / experts) / mean;
  stats.gini = 2 * ranked / (experts * total) - (experts + 1) / experts;
  stats.effective_experts = std::exp(stats.entropy);
  return stats;
}

BalanceLosses balance_losses(std::span<const uint64_t> counts, std::span<const uint64_t> first_choices, std::span<const double> prob_sum,
                             uint64_t tokens, int k) {
  BalanceLosses losses;
  const double all = double(tokens), experts = double(counts.size());
  for (size_t e = 0; e < counts.size(); ++e) {
    losses.per_layer += experts * double(counts[e]) / all * prob_sum[e] / all;
    losses.switch_form += experts * double(first_choices[e]) / all * prob_sum[e] / all;
  }
  losses.normalised = losses.per_layer / k;
  return losses;
}

double pooled_balance_loss(std::span<const std::span<const uint64_t>> counts, std::span<const std::span<const double>> prob_sum, uint64_t tokens) {
  if (counts.empty() || tokens == 0) return 0;
  const double scale = 1 / (double(counts.size()) * double(tokens));
  double loss = 0;
  for (size_t e = 0; e < counts[0].size(); ++e) {
    double f = 0, p = 0;
    for (size_t row = 0; row < counts.size(); ++row) {
      f += double(counts[row][e]) * scale;
      p += prob_sum[row][e] * scale;
    }
    loss += double(counts[0].size()) * f * p;
  }
  return loss;
}

std::optional<double> random_max_vio(int experts, int k, uint64_t tokens) {
  constexpr uint64_t kMostTokens = 1'000'000, kDraws = 2'000'000;
  if (tokens == 0 || tokens > kMostTokens || k < 1 || k > experts) return std::nullopt;
  const uint64_t windows = std::clamp<uint64_t>(kDraws / (tokens * uint64_t(k)), 8, 256);
  std::vector<uint64_t> counts(size_t(experts), 0);
  std::vector<int> chosen;
  double sum = 0;
  for (uint64_t w = 0; w < windows; ++w) {
    std::fill(counts.begin(), counts.end(), 0);
    for (uint64_t t = 0; t < tokens; ++t) {
      // Floyd's sampling of k of E without replacement (Bentley and Floyd, CACM 30:9, 1987).
      chosen.clear();
      for (int last = experts - k; last < experts; ++last) {
        const auto word = philox4x32({uint32_t(t), uint32_t(w), uint32_t(last), 1}, {uint32_t(experts), uint32_t(k)})[0];
        const int drawn = int(unit_interval(word) * (last + 1));
        chosen.push_back(std::find(chosen.begin(), chosen.end(), drawn) == chosen.end() ? drawn : last);
      }
      for (const int expert : chosen) ++counts[size_t(expert)];
    }
    sum += load_stats(counts).max_vio;
  }
  return sum / double(windows);
}

Load::Load(int rows, int experts)
    : rows_(rows), experts_(experts), counts_(size_t(rows) * experts), top1_(size_t(rows) * experts) {}

Result<void> Load::feed(int row, std::span<const ExpertId> ids, int k) {
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(check_ids(row, ids, k, experts_));
  uint64_t* counts = counts_.data() + size_t(row) * experts_;
  uint64_t* top1 = top1_.data() + size_t(row) * experts_;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == kNoExpert) continue;
    ++counts[ids[i]];
    if (i % size_t(k) == 0) ++top1[ids[i]];
  }
  return {};
}

Result<void> Load::remove(int row, std::span<const ExpertId> ids, int k) {
  Load taken(1, experts_);
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(taken.feed(0, ids, k));
  const size_t first = size_t(row) * experts_;
  for (size_t e = 0; e < size_t(experts_); ++e) {
    if (counts_[first + e] < taken.counts_[e] || top1_[first + e] < taken.top1_[e]) {
      return fail(ErrorCode::kInternal, "expert " + std::to_string(e) + " would leave the window more often than it came in",
                  "routing row " + std::to_string(row));
    }
  }
  for (size_t e = 0; e < size_t(experts_); ++e) {
    counts_[first + e] -= taken.counts_[e];
    top1_[first + e] -= taken.top1_[e];
  }
  return {};
}

Result<void> Load::add(int row, std::span<const uint64_t> counts) {
  SY_CHECK(check_row(row, rows_));
  if (counts.size() != size_t(experts_))
    return fail(ErrorCode::kMalformed, std::to_string(counts.size()) + " counts for " + std::to_string(experts_) + " experts", "routing row " + std::to_string(row));
  for (size_t e = 0; e < counts.size(); ++e) counts_[size_t(row) * experts_ + e] += counts[e];
  return {};
}

void Load::merge(const Load& other) {
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::plus<>());
  std::transform(top1_.begin(), top1_.end(), other.top1_.begin(), top1_.begin(), std::plus<>());
}

void Load::clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  std::fill(top1_.begin(), top1_.end(), 0);
}

}  // namespace switchyard
