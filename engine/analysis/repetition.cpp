// See repetition.h.
#include "engine/analysis/repetition.h"

#include <algorithm>

#include "engine/analysis/check_ids.h"

namespace switchyard {

Repetition::Repetition(int rows, int experts, int k) : experts_(experts), k_(k), rows_(rows) {}

Result<void> Repetition::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, int(rows_.size())));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  Row& state = rows_[row];
  for (int t = 0; t < slab.tokens; ++t) {
    const auto chosen = slab.token(row, t);
    if (state.sequence != int64_t(slab.sequence[t])) {
      state.sequence = slab.sequence[t];
      state.previous.clear();
      state.last_use.assign(experts_, -1);
    }
    if (!state.previous.empty()) {
      int shared = 0;
      for (const ExpertId id : chosen)
        shared += id != kNoExpert && std::find(state.previous.begin(), state.previous.end(), id) != state.previous.end();
      ++state.sums.pairs;
      state.sums.same_first += chosen[0] != kNoExpert && chosen[0] == state.previous[0];
      state.sums.any_shared += shared > 0;
      state.overlap += shared;
    }
    for (const ExpertId id : chosen) {
      if (id == kNoExpert) continue;
      int64_t& last = state.last_use[id];
      if (last < 0) ++state.sums.first_uses;
      else ++state.sums.reuse_distance[std::min<int64_t>(slab.position[t] - last, RepetitionStats::kDistances + 1) - 1];
      last = slab.position[t];
    }
    state.previous.assign(chosen.begin(), chosen.end());
  }
  return {};
}

RepetitionStats Repetition::stats(int row) const {
  RepetitionStats stats = rows_[row].sums;
  if (stats.pairs > 0) stats.mean_overlap = double(rows_[row].overlap) / (double(stats.pairs) * k_);
  return stats;
}

RandomRepetition random_repetition(int experts, int k) {
  double none = 1;  // C(E-k, k) / C(E, k)
  for (int i = 0; i < k; ++i) none *= std::max(0, experts - k - i) / double(experts - i);
  return {1.0 / experts, 1 - none, double(k) / experts};
}

}  // namespace switchyard
