// Placement by affinity against specs/analyses.md A11 and against full enumeration.
#include <numeric>

#include <gtest/gtest.h>

#include "engine/analysis/affinity.h"
#include "engine/placement/affinity_placement.h"
#include "engine/placement/assignment.h"
#include "tests/placement/check_data.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

HopCounts hops_of(const CheckTrace& trace, bool topk) {
  Affinity affinity(trace.layers, trace.experts);
  for (int l = 0; l + 1 < trace.layers; ++l)
    for (int t = 0; t < trace.tokens; ++t) EXPECT_TRUE(affinity.feed(l, trace.token(l, t), trace.token(l + 1, t)));
  HopCounts hops{trace.layers, trace.experts};
  for (int l = 0; l + 1 < trace.layers; ++l) {
    const auto counts = topk ? affinity.topk(l) : affinity.top1(l);
    hops.transitions.insert(hops.transitions.end(), counts.begin(), counts.end());
  }
  return hops;
}

// First choices by home GPU = sequence mod G, [L, G, E].
std::vector<uint64_t> homes_of(const CheckTrace& trace, int gpus) {
  std::vector<uint64_t> home(size_t(trace.layers) * gpus * trace.experts, 0);
  for (int l = 0; l < trace.layers; ++l)
    for (int t = 0; t < trace.tokens; ++t)
      ++home[(size_t(l) * gpus + trace.sequence[t] % gpus) * trace.experts + trace.token(l, t)[0]];
  return home;
}

HopCounts with_home(HopCounts hops, const std::vector<uint64_t>& homes, int gpus) {
  hops.home.assign(homes.begin(), homes.begin() + size_t(gpus) * hops.experts);
  return hops;
}

Placement place(const HopCounts& hops, PlacementOptions options) {
  auto placement = place_by_affinity(hops, options);
  EXPECT_TRUE(placement) << placement.error().message();
  const int per_gpu = hops.experts / options.gpus;
  for (int l = 0; l < hops.layers; ++l) {
    std::vector<int> held(options.gpus, 0);
    for (int e = 0; e < hops.experts; ++e) ++held[placement->gpu[l * hops.experts + e]];
    EXPECT_EQ(held, std::vector<int>(options.gpus, per_gpu)) << "layer " << l;
  }
  return *placement;
}

uint64_t total(const HopCounts& hops) {
  return std::accumulate(hops.transitions.begin(), hops.transitions.end(), uint64_t{0});
}

// Every balanced placement of all layers, in turn.
template <class F>
void for_all_placements(int layers, int experts, int gpus, F&& f) {
  std::vector<std::vector<int>> one;
  std::vector<int> layer(experts);
  for (int e = 0; e < experts; ++e) layer[e] = e * gpus / experts;
  do one.push_back(layer);
  while (std::next_permutation(layer.begin(), layer.end()));
  std::vector<size_t> at(layers, 0);
  for (;;) {
    std::vector<int> gpu;
    for (const size_t i : at) gpu.insert(gpu.end(), one[i].begin(), one[i].end());
    f(gpu);
    int l = 0;
    while (l < layers && ++at[l] == one.size()) at[l++] = 0;
    if (l == layers) return;
  }
}

TEST(AffinityPlacement, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : all_checks_of("placement-affinity")) {
    if (!check["input"].is_string()) continue;
    const CheckTrace& trace = trace_named(check["input"]);
    const int gpus = check["params"]["gpus"];
    const HopCounts top1 = hops_of(trace, false), topk = hops_of(trace, true);
    const auto homes = homes_of(trace, gpus);
    const HopCounts coherent = with_home(top1, homes, gpus);
    const auto contiguous = contiguous_placement(trace.layers, trace.experts, gpus);
    json got = {{"contiguous_cut", cut(top1, contiguous)},
                {"contiguous_cut_topk", cut(topk, contiguous)},
                {"contiguous_cut_per_transition", cuts(top1, contiguous)},
                {"total", total(top1)},
                {"total_topk", total(topk)},
                {"mean_cut", mean_random_cut(top1, gpus)},
                {"vanilla_moves_contiguous", vanilla_moves(homes, trace.layers, trace.experts, gpus, contiguous)},
                {"coherent_moves_contiguous", cut(coherent, contiguous)}};
    if (check["expected"].contains("optimum_cut")) {
      const Placement best = place(top1, {gpus}), best_topk = place(topk, {gpus}), least = place(coherent, {gpus});
      for (const Placement* p : {&best, &best_topk, &least}) {
        EXPECT_EQ(p->proof, PlacementProof::kChain);
        EXPECT_EQ(double(p->cut), p->objective);
      }
      EXPECT_EQ(best.cut, cut(top1, best.gpu));
      got["optimum_cut"] = best.cut;
      got["optimum_cut_topk"] = best_topk.cut;
      got["least_coherent_moves"] = least.cut;
      EXPECT_EQ(cut(coherent, least.gpu), least.cut);
    }
    if (check["expected"].contains("placements")) {
      uint64_t placements = 0, worst = 0, sum = 0;
      std::vector<uint64_t> at_optimum;
      for_all_placements(trace.layers, trace.experts, gpus, [&](const std::vector<int>& gpu) {
        const uint64_t crossing = cut(top1, gpu);
        ++placements;
        sum += crossing;
        worst = std::max(worst, crossing);
        if (crossing == got["optimum_cut"]) at_optimum.push_back(cut(coherent, gpu));
      });
      std::sort(at_optimum.begin(), at_optimum.end());
      got["placements"] = placements;
      got["worst_cut"] = worst;
      got["coherent_moves_at_optimum_cut"] = at_optimum;
      EXPECT_EQ(double(sum) / double(placements), mean_random_cut(top1, gpus));
    }
    json want = check;
    want["expected"].erase("states_per_layer");  // inside the solver
    expect_expected(want, got);
    ++compared;
  }
  EXPECT_EQ(compared, 3);
}

TEST(AffinityPlacement, MatchesTheSpecOnGivenCounts) {
  int compared = 0;
  for (const auto& check : all_checks_of("placement-affinity")) {
    if (check["input"].is_string()) continue;
    HopCounts hops{check["input"]["layers"], check["input"]["experts"]};
    for (const auto& matrix : check["input"]["transitions"])
      for (const auto& row : matrix)
        for (const auto& count : row) hops.transitions.push_back(count);
    const int gpus = check["params"]["gpus"];
    const Placement best = place(hops, {gpus});
    EXPECT_TRUE(best.optimal());
    EXPECT_EQ(best.cut, check["expected"]["optimum_cut"]);
    EXPECT_EQ(cut(hops, contiguous_placement(hops.layers, hops.experts, gpus)), check["expected"]["contiguous_cut"]);
    std::vector<int> example;
    for (const auto& layer : check["expected"]["example_placement"])
      for (const auto& gpu : layer) example.push_back(gpu);
    EXPECT_EQ(cut(hops, example), best.cut);
    ++compared;
  }
  EXPECT_EQ(compared, 5);
}

HopCounts invented(int layers, int experts, uint32_t seed, int homes = 0) {
  HopCounts hops{layers, experts};
  uint32_t state = seed;
  const auto next = [&] { return (state = state * 1664525u + 1013904223u) >> 16; };
  for (int i = 0; i < (layers - 1) * experts * experts; ++i) hops.transitions.push_back(next() % 50);
  for (int i = 0; i < homes * experts; ++i) hops.home.push_back(next() % 80);
  for (int i = 0; i < layers * experts; ++i) hops.loads.push_back(next() % 300);
  return hops;
}

// Load-aware and coherent objectives against every placement there is.
TEST(AffinityPlacement, TheChainFindsTheLeastOfAllPlacements) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    for (const double load_weight : {0.0, 0.5, 3.0}) {
      for (const int homes : {0, 2}) {
        const HopCounts hops = invented(3, 4, seed, homes);
        double least = 1e300;
        for_all_placements(3, 4, 2, [&](const std::vector<int>& gpu) {
          double objective = double(cut(hops, gpu));
          for (int l = 0; l < 3; ++l) {
            double load[2] = {0, 0};
            for (int e = 0; e < 4; ++e) load[gpu[l * 4 + e]] += hops.loads[l * 4 + e];
            objective += load_weight * std::max(load[0], load[1]);
          }
          least = std::min(least, objective);
        });
        const Placement best = place(hops, {.gpus = 2, .load_weight = load_weight, .threads = 2});
        EXPECT_EQ(best.proof, PlacementProof::kChain);
        EXPECT_DOUBLE_EQ(best.objective, least);
        const Placement annealed =
            place(hops, {.gpus = 2, .load_weight = load_weight, .sweeps = 200, .exact_limit = 0});
        EXPECT_EQ(annealed.proof, PlacementProof::kNone);
        EXPECT_GE(annealed.objective, least * (1 - 1e-12));
        EXPECT_LE(annealed.objective, least * 1.02);
      }
    }
  }
}

TEST(AffinityPlacement, OneExpertAGpuIsAnAssignment) {
  for (const uint32_t seed : {4u, 5u, 6u}) {
    for (const int homes : {0, 4}) {
      const HopCounts hops = invented(3, 4, seed, homes);
      uint64_t least = UINT64_MAX;
      for_all_placements(3, 4, 4, [&](const std::vector<int>& gpu) { least = std::min(least, cut(hops, gpu)); });
      const Placement best = place(hops, {4});
      EXPECT_EQ(best.proof, PlacementProof::kAssignment);
      EXPECT_EQ(best.cut, least);
    }
  }
}

// E = 8, G = 4, L = 12: the annealing reaches what the chain proves, whatever the number of threads.
TEST(AffinityPlacement, AnnealingComesCloseToTheOptimumAndRepeats) {
  const HopCounts hops = invented(12, 8, 7);
  const Placement best = place(hops, {.gpus = 4});
  EXPECT_EQ(best.proof, PlacementProof::kChain);
  PlacementOptions annealing{.gpus = 4, .seed = 11, .sweeps = 1500, .threads = 1, .exact_limit = 0};
  const Placement annealed = place(hops, annealing);
  EXPECT_GE(annealed.cut, best.cut);
  EXPECT_LE(double(annealed.cut), 1.01 * double(best.cut));
  annealing.threads = 3;
  EXPECT_EQ(place(hops, annealing).gpu, annealed.gpu);
}

TEST(AffinityPlacement, NodesComeFirstThenTheirGpus) {
  const HopCounts hops = invented(4, 8, 9);
  const auto two = place_in_two_levels(hops, 2, {.gpus = 4});
  ASSERT_TRUE(two) << two.error().message();
  std::vector<int> node;
  for (const int gpu : two->placement.gpu) node.push_back(gpu / 2);
  const Placement on_nodes = place(hops, {.gpus = 2});
  EXPECT_EQ(cut(hops, node), two->node_cut);
  EXPECT_EQ(two->node_cut, on_nodes.cut);
  EXPECT_EQ(two->placement.cut, cut(hops, two->placement.gpu));
  EXPECT_GE(two->placement.cut, place(hops, {.gpus = 4}).cut);
  EXPECT_FALSE(two->placement.optimal());
  EXPECT_EQ(two->nodes_proof, PlacementProof::kChain);
  EXPECT_EQ(two->within_proof, PlacementProof::kChain);
  // Inside the nodes nothing can be improved: every balanced choice of GPUs in the nodes as they are, layer by layer.
  const auto one_node = place_in_two_levels(hops, 1, {.gpus = 4});
  ASSERT_TRUE(one_node);
  EXPECT_EQ(one_node->placement.cut, place(hops, {.gpus = 4}).cut);
  EXPECT_TRUE(one_node->placement.optimal());
}

TEST(AffinityPlacement, LoadsAloneArePackedEvenly) {
  // 9 + 1 | 6 + 4: heaviest first to the lighter GPU with room.
  const std::vector<float> loads = {1, 9, 4, 6};
  EXPECT_EQ(load_placement(loads, 1, 4, 2), (std::vector<int>{0, 0, 1, 1}));
}

TEST(AffinityPlacement, RandomPlacementsAreBalancedAndFollowTheSeed) {
  const auto a = random_placement(5, 12, 3, 1), b = random_placement(5, 12, 3, 1), c = random_placement(5, 12, 3, 2);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  for (int l = 0; l < 5; ++l)
    for (int g = 0; g < 3; ++g) EXPECT_EQ(std::count(a.begin() + l * 12, a.begin() + (l + 1) * 12, g), 4);
}

TEST(AffinityPlacement, RefusesWhatCannotFit) {
  const auto refused = [](const HopCounts& hops, PlacementOptions options) {
    const auto placement = place_by_affinity(hops, options);
    return placement ? 0 : int(placement.error().code);
  };
  EXPECT_EQ(refused(invented(3, 8, 1), {.gpus = 3}), 2);
  EXPECT_EQ(refused(invented(3, 8, 1), {.gpus = 0}), 2);
  HopCounts short_of = invented(3, 8, 1);
  short_of.transitions.pop_back();
  EXPECT_EQ(refused(short_of, {.gpus = 2}), 4);
  HopCounts huge = invented(3, 8, 1);
  huge.transitions[0] = uint64_t(1) << 53;
  EXPECT_EQ(refused(huge, {.gpus = 2}), 4);
  HopCounts single = invented(1, 4096, 1);
  EXPECT_EQ(refused(single, {.gpus = 64}), 0);  // nothing to cross, however many placements
  const auto cancelled = [](double exact_limit) {
    Task task;
    task.cancel();
    const auto placement = place_by_affinity(invented(4, 8, 1), {.gpus = 2, .exact_limit = exact_limit}, &task);
    return placement ? 0 : int(placement.error().code);
  };
  EXPECT_EQ(cancelled(2e10), 130);
  EXPECT_EQ(cancelled(0), 130);
}

TEST(Assignment, FindsTheBestOfAllPermutations) {
  uint32_t state = 3;
  for (int n = 1; n <= 6; ++n) {
    for (int round = 0; round < 20; ++round) {
      std::vector<double> gain(size_t(n) * n);
      for (double& g : gain) g = double((state = state * 1664525u + 1013904223u) >> 28) - 7;
      std::vector<int> order(n);
      std::iota(order.begin(), order.end(), 0);
      double best = -1e300;
      const auto sum = [&](const std::vector<int>& column_of) {
        double s = 0;
        for (int r = 0; r < n; ++r) s += gain[size_t(r) * n + column_of[r]];
        return s;
      };
      do best = std::max(best, sum(order));
      while (std::next_permutation(order.begin(), order.end()));
      EXPECT_DOUBLE_EQ(sum(best_assignment(gain, n)), best);
    }
  }
}

}  // namespace
}  // namespace switchyard::testing
