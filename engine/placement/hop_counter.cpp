// Counting hops, see hop_counter.h.
#include "engine/placement/hop_counter.h"

namespace switchyard {

HopCounter::HopCounter(int rows, int experts, int gpus)
    : rows_(rows),
      experts_(experts),
      gpus_(gpus),
      affinity_(rows, experts),
      load_(rows, experts),
      home_(size_t(rows) * size_t(gpus) * size_t(experts), 0) {}

Result<void> HopCounter::feed(const RoutingSlab& slab) {
  for (int r = 0; r < rows_; ++r) {
    SY_CHECK(load_.feed(r, slab.row_ids(r), slab.k));
    for (int t = 0; t < slab.tokens; ++t) {
      const ExpertId first = slab.token(r, t)[0];
      const int home = home_gpu(slab.sequence[size_t(t)], gpus_);
      if (first != kNoExpert) ++home_[(size_t(r) * size_t(gpus_) + size_t(home)) * size_t(experts_) + first];
      if (r + 1 < rows_) SY_CHECK(affinity_.feed(r, slab.token(r, t), slab.token(r + 1, t)));
    }
  }
  return {};
}

HopCounts HopCounter::counts(bool all_pairs, bool home) const {
  HopCounts counts{rows_, experts_};
  for (int r = 0; r + 1 < rows_; ++r) {
    const auto of = all_pairs ? affinity_.topk(r) : affinity_.top1(r);
    counts.transitions.insert(counts.transitions.end(), of.begin(), of.end());
  }
  if (home) counts.home.assign(home_.begin(), home_.begin() + std::ptrdiff_t(gpus_) * experts_);
  for (const float load : loads()) counts.loads.push_back(load);
  return counts;
}

std::vector<uint64_t> HopCounter::all_pairs() const {
  return counts(true, false).transitions;
}

std::vector<float> HopCounter::loads() const {
  std::vector<float> loads;
  for (int r = 0; r < rows_; ++r)
    for (const uint64_t n : load_.counts(r)) loads.push_back(float(n));
  return loads;
}

}  // namespace switchyard
