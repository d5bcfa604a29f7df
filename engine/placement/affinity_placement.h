// Which GPU holds which expert of every layer, so that few hops between layers cross GPUs (specs/analyses.md A11).
// The objective is a chain over layers. Exact where the chain programme over balanced placements is affordable, or
// where every GPU holds one expert; otherwise annealing from a seed. The result says which it was.
// Pure; called by the command line and jobs, on one thread; solvers share their work out to a pool of their own.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"

namespace switchyard {

// What is hopped. Counts may be of first choices (ExFlow) or of all pairs; their sum stays below 2^53.
struct HopCounts {
  int layers = 0, experts = 0;
  std::vector<uint64_t> transitions;  // [L - 1, E, E]: row = expert in layer l, column = expert in layer l + 1
  // Empty, or [G, E]: tokens of each home GPU by their expert in layer 0. Then the hop home -> layer 0 counts too
  // (coherent moves), and the names of the GPUs matter.
  std::vector<uint64_t> home;
  // Empty, or [L, E]: loads, for load_weight.
  std::vector<double> loads;

  std::span<const uint64_t> transition(int layer) const {
    const size_t cells = size_t(experts) * size_t(experts);
    return std::span(transitions).subspan(size_t(layer) * cells, cells);
  }
};

enum class PlacementProof {
  kTrivial,     // nothing can cross: one GPU, one layer, or a cut of 0
  kChain,       // dynamic programme over all balanced placements of each layer
  kAssignment,  // one expert a GPU: an assignment for each transition
  kNone,        // annealed: good, not proven
};
std::string_view name(PlacementProof proof);

struct PlacementOptions {
  int gpus = 1;
  // Minimised is cut + load_weight * sum over layers of the largest load of a GPU; 0: the cut alone.
  double load_weight = 0;
  uint64_t seed = 0;          // of the annealing
  int sweeps = 0;             // of the annealing: proposals per expert; 0: by size, annealing_sweeps()
  int restarts = 2;           // independent annealings, the best counts
  int threads = 0;            // 0: one per core; results do not depend on it
  double exact_limit = 2e10;  // the chain programme runs while states^2 * E * (L - 1) is at most this
};

// 20 million proposals, but at least 3,000 and at most 50,000 sweeps.
int annealing_sweeps(int layers, int experts);

struct Placement {
  int gpus = 1;
  std::vector<int> gpu;  // [L, E]
  uint64_t cut = 0;      // counts whose two experts are on different GPUs; with home, the hop from home included
  double objective = 0;  // the cut plus the weighted loads
  PlacementProof proof = PlacementProof::kNone;
  bool optimal() const { return proof != PlacementProof::kNone; }
};

// Every layer puts E / G experts on each GPU. kUsage: G does not divide E; kMalformed: sizes that disagree or counts
// that sum to 2^53 or more; kCancelled.
Result<Placement> place_by_affinity(const HopCounts& counts, const PlacementOptions& options, Task* task = nullptr);

// Nodes first (fewest hops between nodes), then inside each node its GPUs. GPU g is on node g * nodes / gpus.
struct TwoLevelPlacement {
  Placement placement;    // on GPUs; its proof is kNone unless there is one node: the stages are solved apart
  uint64_t node_cut = 0;  // hops between nodes
  PlacementProof nodes_proof = PlacementProof::kNone;  // of the first stage
  PlacementProof within_proof =
      PlacementProof::kNone;  // of the second, given the first: kNone if any node was annealed
};
// kUsage also when nodes does not divide gpus. With home, a token's home node is that of its GPU.
Result<TwoLevelPlacement> place_in_two_levels(const HopCounts& counts, int nodes, const PlacementOptions& options,
                                              Task* task = nullptr);

// Expert e of every layer on GPU e * G / E.
std::vector<int> contiguous_placement(int layers, int experts, int gpus);
// Each layer by falling load to the lightest GPU that has room. loads: [L, E].
std::vector<int> load_placement(std::span<const float> loads, int layers, int experts, int gpus);
// Balanced, each layer drawn by itself.
std::vector<int> random_placement(int layers, int experts, int gpus, uint64_t seed);

// Hops that cross GPUs in each transition, [L - 1].
std::vector<uint64_t> cuts(const HopCounts& counts, std::span<const int> gpu);
uint64_t cut(const HopCounts& counts, std::span<const int> gpu);  // the sum, and the hop from home if there is home
// Exact mean of the cut (without home) over random balanced placements: total * (1 - 1 / G).
double mean_random_cut(const HopCounts& counts, int gpus);

// Token moves of one pass. home: [L, G, E] first choices by home GPU. Vanilla expert parallelism sends every token from
// home and back in each layer: 2 * #{(t, l): gpu != home}.
uint64_t vanilla_moves(std::span<const uint64_t> home, int layers, int experts, int gpus, std::span<const int> gpu);

}  // namespace switchyard
