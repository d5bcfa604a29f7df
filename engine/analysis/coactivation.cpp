// Co-activation: counts of pairs inside one routing row.
#include "engine/analysis/coactivation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

// f(N_ij, N_i, N_j) for every pair i != j.
template <class F>
std::vector<double> over_pairs(std::span<const uint64_t> counts, int experts, F&& f) {
  std::vector<double> out(counts.size(), std::numeric_limits<double>::quiet_NaN());
  const auto of = [&](int i) { return double(counts[size_t(i) * experts + i]); };
  for (int i = 0; i < experts; ++i)
    for (int j = 0; j < experts; ++j)
      if (i != j) out[size_t(i) * experts + j] = f(double(counts[size_t(i) * experts + j]), of(i), of(j));
  return out;
}

}  // namespace

Coactivation::Coactivation(int rows, int experts, Pairs pairs)
    : rows_(rows), experts_(experts), pairs_(pairs), counts_(size_t(rows) * experts * experts) {}

Result<void> Coactivation::feed(int row, std::span<const ExpertId> ids, int k) {
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(check_ids(row, ids, k, experts_));
  uint64_t* pairs = counts_.data() + size_t(row) * experts_ * experts_;
  for (size_t token = 0; token < ids.size(); token += k) {
    const auto chosen = ids.subspan(token, k);
    for (size_t a = 0; a < chosen.size(); ++a) {
      const ExpertId i = chosen[a];
      if (i == kNoExpert) continue;
      const bool all = pairs_ == Pairs::kAll;
      const size_t last = all ? chosen.size() : std::min(a + 2, chosen.size());
      for (size_t b = all || a == 0 ? 0 : a - 1; b < last; ++b) {
        const ExpertId j = chosen[b];
        if (j != kNoExpert) ++pairs[size_t(i) * experts_ + j];
      }
    }
  }
  return {};
}

void Coactivation::merge(const Coactivation& other) {
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::plus<>());
}

std::vector<double> coactivation_rate(std::span<const uint64_t> counts, int experts) {
  return over_pairs(counts, experts, [](double ij, double i, double) { return ij / i; });
}

std::vector<double> coactivation_jaccard(std::span<const uint64_t> counts, int experts) {
  return over_pairs(counts, experts, [](double ij, double i, double j) { return ij / (i + j - ij); });
}

std::vector<double> coactivation_pmi(std::span<const uint64_t> counts, int experts, uint64_t tokens) {
  return over_pairs(counts, experts, [tokens](double ij, double i, double j) {
    return ij > 0 ? std::log(double(tokens) * ij / (i * j)) : std::numeric_limits<double>::quiet_NaN();
  });
}

std::vector<uint64_t> pairs_above_diagonal(std::span<const uint64_t> counts, int experts) {
  std::vector<uint64_t> out(counts.begin(), counts.end());
  for (int i = 0; i < experts; ++i) std::fill_n(out.begin() + size_t(i) * experts, i + 1, 0);
  return out;
}

}  // namespace switchyard
