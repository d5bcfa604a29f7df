// A leaf-spine network under expert-parallel traffic (specs/analyses.md A13): packet spraying, single paths with the
// cuts that level every spine, and ECMP hashing. Each leaf has one link up to and one down from every spine.
// Pure; called by the command line and views.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

// n equal flows over S spines: floor(n / S) whole ones each; the other r = n mod S are cut into S / gcd(r, S) parts.
struct EqualSplit {
  double load_each = 0;  // in flows
  int64_t whole_flows_each = 0;
  int64_t parts_per_cut_flow = 1;
  int64_t extra_flows = 0;  // beyond n
};
EqualSplit split_equal_flows(int64_t flows, int64_t spines);

// n equal flows, each hashed to one of S spines on its own.
struct EcmpLoad {
  double expected_max = 0;    // flows on the fullest spine
  double p_best_max = 0;      // P(max = ceil(n / S))
  std::vector<double> p_max;  // [n + 1]
  bool exact = true;          // false: from `trials` draws by seed
};
// Exact for n <= 128 and S <= 1024, Monte Carlo beyond. Both at least 1.
EcmpLoad ecmp_equal_flows(int flows, int spines, uint64_t seed = 0, int trials = 100'000);

struct Flow {
  int from = 0, to = 0;  // leaves, different
  double size = 0;       // bytes, or any unit
};
// Loads of the links, [leaves, S] each.
struct LinkLoads {
  std::vector<double> up, down;
  int64_t extra_flows = 0;  // made by cuts
  double largest() const;
};
// Every flow spread over all spines.
LinkLoads spray(std::span<const Flow> flows, int leaves, int spines);
// Each pair of leaves by itself: largest flow first to the emptiest spine (LPT) as long as it stays within an equal
// share; what does not fit is cut and fills the gaps, widest first. Every link carries what spraying puts on it, with
// at most S - 1 extra flows a pair.
LinkLoads split_paths(std::span<const Flow> flows, int leaves, int spines);
// LPT without cuts.
LinkLoads whole_paths(std::span<const Flow> flows, int leaves, int spines);
// Each flow on the spine that the draw number `draw` of the seed gives it.
LinkLoads ecmp(std::span<const Flow> flows, int leaves, int spines, uint64_t seed, uint32_t draw);
// The largest link loads of `draws` draws, rising: over the link capacity, the distribution of the completion time.
std::vector<double> ecmp_largest(std::span<const Flow> flows, int leaves, int spines, uint64_t seed, int draws);

// A flow for every pair of GPUs on different leaves with traffic; matrix: [G, G]. GPU g is on leaf g * leaves / G.
std::vector<Flow> flows_of(std::span<const uint64_t> matrix, int gpus, int leaves, double item_bytes);
// Population std / mean of the sizes: 0 is what the split for equal flows assumes. 0 flows: 0.
double flow_cv(std::span<const Flow> flows);

}  // namespace switchyard
