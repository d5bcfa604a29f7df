// Co-activation: counts of pairs inside one routing row.
#include "engine/analysis/coactivation.h"

#include <algorithm>
#include <functional>

#include "engine/analysis/check_ids.h"

namespace switchyard {

Coactivation::Coactivation(int rows, int experts)
    : rows_(rows), experts_(experts), counts_(size_t(rows) * experts * experts) {}

Result<void> Coactivation::feed(int row, std::span<const ExpertId> ids, int k) {
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(check_ids(row, ids, k, experts_));
  uint64_t* pairs = counts_.data() + size_t(row) * experts_ * experts_;
  for (size_t token = 0; token < ids.size(); token += k) {
    const auto chosen = ids.subspan(token, k);
    for (const ExpertId i : chosen) {
      if (i == kNoExpert) continue;
      for (const ExpertId j : chosen) {
        if (j != kNoExpert) ++pairs[size_t(i) * experts_ + j];
      }
    }
  }
  return {};
}

void Coactivation::merge(const Coactivation& other) {
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::plus<>());
}

}  // namespace switchyard
