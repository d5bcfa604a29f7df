// Inter-layer affinity: counts of pairs and the statistics over them.
#include "engine/analysis/affinity.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

size_t cells(int experts) { return size_t(experts) * size_t(experts); }

}  // namespace

Affinity::Affinity(int rows, int experts)
    : rows_(std::max(rows, 1)),
      experts_(experts),
      topk_(size_t(rows_ - 1) * cells(experts)),
      top1_(size_t(rows_ - 1) * cells(experts)) {}

Result<void> Affinity::feed(int row, std::span<const ExpertId> from, std::span<const ExpertId> to) {
  SY_CHECK(check_row(row, rows_ - 1));
  SY_CHECK(check_ids(row, from, 1, experts_));
  SY_CHECK(check_ids(row + 1, to, 1, experts_));
  count(row, from, to);
  return {};
}

Result<void> Affinity::feed(int row, std::span<const ExpertId> from, std::span<const ExpertId> to, int k) {
  SY_CHECK(check_row(row, rows_ - 1));
  SY_CHECK(check_ids(row, from, k, experts_));
  SY_CHECK(check_ids(row + 1, to, k, experts_));
  if (from.size() != to.size()) return fail(ErrorCode::kInternal, "two rows do not have the same tokens");
  for (size_t token = 0; token < from.size(); token += size_t(k)) count(row, from.subspan(token, k), to.subspan(token, k));
  return {};
}

void Affinity::count(int row, std::span<const ExpertId> from, std::span<const ExpertId> to) {
  uint64_t* pairs = topk_.data() + size_t(row) * cells(experts_);
  for (const ExpertId i : from) {
    if (i == kNoExpert) continue;
    for (const ExpertId j : to) {
      if (j != kNoExpert) ++pairs[size_t(i) * experts_ + j];
    }
  }
  if (!from.empty() && !to.empty() && from[0] != kNoExpert && to[0] != kNoExpert) {
    ++top1_[size_t(row) * cells(experts_) + size_t(from[0]) * experts_ + to[0]];
  }
}

void Affinity::merge(const Affinity& other) {
  std::transform(topk_.begin(), topk_.end(), other.topk_.begin(), topk_.begin(), std::plus<>());
  std::transform(top1_.begin(), top1_.end(), other.top1_.begin(), top1_.begin(), std::plus<>());
}

void Affinity::clear() {
  std::fill(topk_.begin(), topk_.end(), 0);
  std::fill(top1_.begin(), top1_.end(), 0);
}

std::span<const uint64_t> Affinity::topk(int row) const {
  return {topk_.data() + size_t(row) * cells(experts_), cells(experts_)};
}

std::span<const uint64_t> Affinity::top1(int row) const {
  return {top1_.data() + size_t(row) * cells(experts_), cells(experts_)};
}

AffinityStats affinity_stats(std::span<const uint64_t> counts, int experts) {
  AffinityStats stats;
  std::vector<double> from(experts), to(experts);
  double total = 0;
  for (int i = 0; i < experts; ++i) {
    for (int j = 0; j < experts; ++j) {
      const double count = static_cast<double>(counts[size_t(i) * experts + j]);
      from[i] += count;
      to[j] += count;
      total += count;
    }
  }
  if (total == 0) return stats;

  double mi = 0, to_entropy = 0;
  for (int i = 0; i < experts; ++i) {
    uint64_t largest = 0;
    for (int j = 0; j < experts; ++j) {
      const uint64_t count = counts[size_t(i) * experts + j];
      largest = std::max(largest, count);
      if (count > 0) mi += count / total * std::log2(count * total / (from[i] * to[j]));
    }
    stats.expected_max_p += static_cast<double>(largest) / total;
  }
  for (const double count : to) {
    if (count > 0) to_entropy -= count / total * std::log2(count / total);
  }
  stats.mi_bits = std::max(mi, 0.0);  // rounding of an exact 0
  const auto used = [](const std::vector<double>& counts) { return double(counts.size() - size_t(std::count(counts.begin(), counts.end(), 0.0))); };
  stats.chance_mi_bits = (used(from) - 1) * (used(to) - 1) / (2 * total * std::log(2.0));
  stats.uncertainty = to_entropy > 0 ? stats.mi_bits / to_entropy : 0;
  stats.marginal_max = *std::max_element(to.begin(), to.end()) / total;
  return stats;
}

std::vector<double> conditional(std::span<const uint64_t> counts, int experts) {
  std::vector<double> p(counts.size());
  for (int i = 0; i < experts; ++i) {
    const auto row = counts.subspan(size_t(i) * experts, experts);
    double total = 0;
    for (const uint64_t count : row) total += static_cast<double>(count);
    if (total == 0) continue;
    for (int j = 0; j < experts; ++j) p[size_t(i) * experts + j] = static_cast<double>(row[j]) / total;
  }
  return p;
}

std::vector<ExpertPair> strongest_pairs(std::span<const uint64_t> counts, int experts, int top) {
  std::vector<ExpertPair> pairs;
  for (size_t cell = 0; cell < counts.size(); ++cell) {
    if (counts[cell] == 0) continue;
    pairs.push_back({static_cast<ExpertId>(cell / experts), static_cast<ExpertId>(cell % experts), counts[cell]});
  }
  const size_t kept = std::min(pairs.size(), static_cast<size_t>(std::max(top, 0)));
  std::partial_sort(pairs.begin(), pairs.begin() + kept, pairs.end(), [](const ExpertPair& a, const ExpertPair& b) {
    if (a.count != b.count) return a.count > b.count;
    return a.from != b.from ? a.from < b.from : a.to < b.to;
  });
  pairs.resize(kept);
  return pairs;
}

}  // namespace switchyard
