// Affinity placement: its one entry, baselines and counts, see affinity_placement.h.
#include "engine/placement/affinity_placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "engine/base/philox.h"
#include "engine/placement/affinity_solvers.h"
#include "engine/placement/eplb.h"

namespace switchyard {
namespace {

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53

tl::unexpected<Error> sizes(std::string what) {
  return fail(ErrorCode::kMalformed, std::move(what));
}

Result<void> check(const HopCounts& c, const PlacementOptions& o) {
  if (c.layers < 1 || c.experts < 1) return sizes("a placement needs at least one layer and one expert.");
  if (o.gpus < 1 || c.experts % o.gpus != 0)
    return fail(ErrorCode::kUsage,
                std::to_string(c.experts) + " experts do not divide evenly over " + std::to_string(o.gpus) + " GPUs.",
                "", "Give a divisor of the number of experts as --gpus.");
  const size_t cells = size_t(c.experts) * size_t(c.experts);
  if (c.transitions.size() != size_t(c.layers - 1) * cells)
    return sizes(std::to_string(c.transitions.size()) + " transition counts are not " + std::to_string(c.layers - 1) +
                 " matrices of " + std::to_string(c.experts) + " x " + std::to_string(c.experts) + ".");
  if (!c.home.empty() && c.home.size() != size_t(o.gpus) * size_t(c.experts))
    return sizes("home counts need to be GPUs x experts.");
  if (o.load_weight != 0 && c.loads.size() != size_t(c.layers) * size_t(c.experts))
    return sizes("a placement by load needs a load for every layer and expert.");
  double total = 0;
  for (const uint64_t n : c.transitions) total += double(n);
  for (const uint64_t n : c.home) total += double(n);
  if (total >= kExactIntegers)
    return sizes("the counts sum to 2^53 or more, where sums would be rounded; divide all of them by one number.");
  return {};
}

// E! / ((E/G)!)^G, or infinity.
double states(int experts, int gpus) {
  double ways = 1;
  for (int e = 0, per = experts / gpus; e < experts; ++e) ways *= double(e + 1) / double(e % per + 1);
  return ways;
}

// E = G: each transition is an assignment, independent of the others because names can be carried along the chain.
Placement place_one_each(const HopCounts& c, int gpus) {
  Placement placement{gpus, std::vector<int>(size_t(c.layers) * size_t(c.experts))};
  const size_t e = size_t(c.experts);
  std::iota(placement.gpu.begin(), placement.gpu.begin() + c.experts, 0);
  std::vector<double> gain(e * e);
  if (!c.home.empty()) {
    for (size_t g = 0; g < e; ++g)
      for (size_t i = 0; i < e; ++i) gain[i * e + g] = double(c.home[g * e + i]);
    const auto gpu = best_assignment(gain, c.experts);
    std::copy(gpu.begin(), gpu.end(), placement.gpu.begin());
  }
  for (int l = 0; l + 1 < c.layers; ++l) {
    const auto counts = c.transition(l);
    std::copy(counts.begin(), counts.end(), gain.begin());
    const auto follower = best_assignment(gain, c.experts);
    for (size_t i = 0; i < e; ++i)
      placement.gpu[size_t(l + 1) * e + size_t(follower[i])] = placement.gpu[size_t(l) * e + i];
  }
  placement.proof = PlacementProof::kAssignment;
  return placement;
}

void settle(const HopCounts& counts, const PlacementOptions& options, Placement& placement) {
  placement.cut = cut(counts, placement.gpu);
  placement.objective = double(placement.cut) + options.load_weight * sum_of_largest_loads(counts, placement);
}

}  // namespace

std::string_view name(PlacementProof proof) {
  switch (proof) {
    case PlacementProof::kTrivial:
      return "trivial";
    case PlacementProof::kChain:
      return "chain";
    case PlacementProof::kAssignment:
      return "assignment";
    case PlacementProof::kNone:
      break;
  }
  return "none";
}

double sum_of_largest_loads(const HopCounts& counts, const Placement& placement) {
  if (counts.loads.empty()) return 0;
  double sum = 0;
  std::vector<double> load(size_t(placement.gpus));
  for (int l = 0; l < counts.layers; ++l) {
    std::fill(load.begin(), load.end(), 0.0);
    for (int e = 0; e < counts.experts; ++e) {
      const size_t cell = size_t(l) * size_t(counts.experts) + size_t(e);
      load[size_t(placement.gpu[cell])] += counts.loads[cell];
    }
    sum += *std::max_element(load.begin(), load.end());
  }
  return sum;
}

Result<Placement> place_by_affinity(const HopCounts& counts, const PlacementOptions& options, Task* task) {
  SY_CHECK(check(counts, options));
  const bool by_load = options.load_weight != 0 && options.gpus != counts.experts;
  Placement placement{options.gpus, contiguous_placement(counts.layers, counts.experts, options.gpus)};
  const double states_per_layer = states(counts.experts, options.gpus);
  const double work = states_per_layer * states_per_layer * counts.experts * std::max(1, counts.layers - 1);
  if (options.gpus == 1 || (counts.layers == 1 && counts.home.empty() && !by_load)) {
    placement.proof = PlacementProof::kTrivial;
  } else if (options.gpus == counts.experts) {
    placement = place_one_each(counts, options.gpus);
  } else if (work <= options.exact_limit) {
    SY_TRY(placement, place_by_chain(counts, options, int64_t(std::llround(states_per_layer)), task));
  } else {
    SY_TRY(placement, place_by_annealing(counts, options, task));
    if (!by_load && cut(counts, placement.gpu) == 0) placement.proof = PlacementProof::kTrivial;
  }
  settle(counts, options, placement);
  return placement;
}

Result<TwoLevelPlacement> place_in_two_levels(const HopCounts& counts, int nodes, const PlacementOptions& options,
                                              Task* task) {
  SY_CHECK(check(counts, options));
  if (nodes < 1 || options.gpus % nodes != 0)
    return fail(ErrorCode::kUsage,
                std::to_string(options.gpus) + " GPUs do not divide evenly over " + std::to_string(nodes) + " nodes.",
                "", "Give a multiple of --nodes as --gpus.");
  const size_t experts = size_t(counts.experts);
  const int gpus_a_node = options.gpus / nodes, experts_a_node = counts.experts / nodes;
  HopCounts between = counts;
  between.home.clear();
  for (size_t g = 0; g < counts.home.size() / experts; ++g) {
    if (g % size_t(gpus_a_node) == 0) between.home.resize(between.home.size() + experts, 0);
    for (size_t e = 0; e < experts; ++e)
      between.home[g / size_t(gpus_a_node) * experts + e] += counts.home[g * experts + e];
  }
  PlacementOptions stage = options;
  stage.gpus = nodes;
  SY_TRY(const Placement on_nodes, place_by_affinity(between, stage, task));

  TwoLevelPlacement out;
  out.placement = {options.gpus, std::vector<int>(on_nodes.gpu.size())};
  out.node_cut = on_nodes.cut;
  out.nodes_proof = on_nodes.proof;
  out.within_proof = PlacementProof::kTrivial;
  stage.gpus = gpus_a_node;
  for (int node = 0; node < nodes; ++node) {
    std::vector<int> here;  // [L, E / nodes]: the node's experts
    for (size_t i = 0; i < on_nodes.gpu.size(); ++i)
      if (on_nodes.gpu[i] == node) here.push_back(int(i % experts));
    const auto expert = [&](int layer, int i) {
      return size_t(here[size_t(layer) * size_t(experts_a_node) + size_t(i)]);
    };
    HopCounts inside{counts.layers, experts_a_node};
    for (int l = 0; l < counts.layers; ++l) {
      for (int i = 0; i < experts_a_node; ++i) {
        if (!counts.loads.empty()) inside.loads.push_back(counts.loads[size_t(l) * experts + expert(l, i)]);
        if (l + 1 == counts.layers) continue;
        for (int j = 0; j < experts_a_node; ++j)
          inside.transitions.push_back(counts.transition(l)[expert(l, i) * experts + expert(l + 1, j)]);
      }
    }
    if (!counts.home.empty()) {
      for (int g = node * gpus_a_node; g < (node + 1) * gpus_a_node; ++g)
        for (int i = 0; i < experts_a_node; ++i) inside.home.push_back(counts.home[size_t(g) * experts + expert(0, i)]);
    }
    SY_TRY(const Placement on_gpus, place_by_affinity(inside, stage, task));
    if (!on_gpus.optimal())
      out.within_proof = PlacementProof::kNone;
    else if (out.within_proof == PlacementProof::kTrivial)
      out.within_proof = on_gpus.proof;
    for (int l = 0; l < counts.layers; ++l)
      for (int i = 0; i < experts_a_node; ++i)
        out.placement.gpu[size_t(l) * experts + expert(l, i)] =
            node * gpus_a_node + on_gpus.gpu[size_t(l) * size_t(experts_a_node) + size_t(i)];
  }
  if (nodes == 1) out.placement.proof = out.within_proof;
  settle(counts, options, out.placement);
  return out;
}

std::vector<int> contiguous_placement(int layers, int experts, int gpus) {
  std::vector<int> gpu(size_t(layers) * size_t(experts));
  for (size_t i = 0; i < gpu.size(); ++i) gpu[i] = int(i % size_t(experts) * size_t(gpus) / size_t(experts));
  return gpu;
}

std::vector<int> load_placement(std::span<const float> loads, int layers, int experts, int gpus) {
  std::vector<int> gpu;
  for (int l = 0; l < layers; ++l) {
    const auto packed = balanced_packing(loads.subspan(size_t(l) * size_t(experts), size_t(experts)), gpus);
    gpu.insert(gpu.end(), packed.begin(), packed.end());
  }
  return gpu;
}

std::vector<int> random_placement(int layers, int experts, int gpus, uint64_t seed) {
  std::vector<int> gpu = contiguous_placement(layers, experts, gpus);
  Dice dice(seed, 0);
  for (int l = 0; l < layers; ++l) {
    const auto row = std::span(gpu).subspan(size_t(l) * size_t(experts), size_t(experts));
    for (size_t i = row.size(); i > 1; --i) std::swap(row[i - 1], row[dice.below(uint32_t(i))]);
  }
  return gpu;
}

std::vector<uint64_t> cuts(const HopCounts& counts, std::span<const int> gpu) {
  std::vector<uint64_t> out(size_t(counts.layers - 1), 0);
  const size_t experts = size_t(counts.experts);
  for (size_t l = 0; l < out.size(); ++l) {
    const auto transition = counts.transition(int(l));
    for (size_t i = 0; i < experts; ++i)
      for (size_t j = 0; j < experts; ++j)
        if (gpu[l * experts + i] != gpu[(l + 1) * experts + j]) out[l] += transition[i * experts + j];
  }
  return out;
}

uint64_t cut(const HopCounts& counts, std::span<const int> gpu) {
  uint64_t sum = 0;
  for (const uint64_t crossing : cuts(counts, gpu)) sum += crossing;
  for (size_t i = 0; i < counts.home.size(); ++i)
    if (gpu[i % size_t(counts.experts)] != int(i / size_t(counts.experts))) sum += counts.home[i];
  return sum;
}

double mean_random_cut(const HopCounts& counts, int gpus) {
  double total = 0;
  for (const uint64_t n : counts.transitions) total += double(n);
  return total * (1.0 - 1.0 / gpus);
}

uint64_t vanilla_moves(std::span<const uint64_t> home, int layers, int experts, int gpus, std::span<const int> gpu) {
  uint64_t away = 0;
  for (int l = 0; l < layers; ++l)
    for (int g = 0; g < gpus; ++g)
      for (int e = 0; e < experts; ++e)
        if (gpu[size_t(l) * size_t(experts) + size_t(e)] != g)
          away += home[(size_t(l) * size_t(gpus) + size_t(g)) * size_t(experts) + size_t(e)];
  return 2 * away;
}

}  // namespace switchyard
