// The stages of gating schemes as device code: they compile for a GPU as they stand. Compiled only, by
// check_device.sh; what they compute there is a matter of the cuda backend's tests.
#include "engine/routing/stages.h"

namespace switchyard {

__global__ void gate(Stages stages, RouterInput in, std::span<float> z, std::span<float> scores, std::span<ExpertId> ids,
                     std::span<float> weights, int* used) {
  stages::edit_by_scheme(stages, nullptr, in, z);
  const auto sums = stages::score_by_scheme(stages, z, scores);
  const double entropy = stages::normalised_entropy(stages.entropy, stages.q, stages.eps, scores);
  *used = stages.selector == Selector::kTable
              ? stages::select_from_table(nullptr, stages, in.token, stages.k, z, ids)
              : stages::kept(stages, scores, ids.first(stages::select(z, stages.k_max, ids)), entropy);
  stages::weigh_by_rule(stages.weights, 1.0f, z, scores, ids.first(*used), weights.first(*used));
  const DecisionStats stats = stages::stats_of(sums, z, ids.first(*used));
  weights[0] += 0 * stats.entropy + 0 * float(stages::random_at(stages.seed, in, in.index, 0));
  if (stages.source == LogitSource::kCosine) stages::to_cosines(in, {}, z);
}

}  // namespace switchyard
