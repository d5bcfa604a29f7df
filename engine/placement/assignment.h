// The best one-to-one assignment (Hungarian method with potentials, O(n^3)).
// Pure; used by the placements of experts on GPUs.
#pragma once

#include <span>
#include <vector>

namespace switchyard {

// gain: [n, n], finite. Gives the column of each row such that the sum of gains is largest; among equal sums the
// choice depends on the input alone.
std::vector<int> best_assignment(std::span<const double> gain, int n);

}  // namespace switchyard
