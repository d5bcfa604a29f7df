// Capacity, traffic, leaf-spine and token schedules against specs/analyses.md A9, A13, A14 and small brute force.
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "engine/placement/affinity_placement.h"
#include "engine/placement/capacity_simulation.h"
#include "engine/placement/leaf_spine.h"
#include "engine/placement/token_schedule.h"
#include "engine/placement/traffic.h"
#include "tests/placement/check_data.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

// The tokens of one sequence as a trace of their own.
CheckTrace only_sequence(const CheckTrace& trace, uint32_t sequence) {
  CheckTrace part = trace;
  const auto range = std::equal_range(trace.sequence.begin(), trace.sequence.end(), sequence);
  const size_t first = size_t(range.first - trace.sequence.begin()), tokens = size_t(range.second - range.first);
  const auto cut = [&](auto& values, size_t width) {
    values = {values.begin() + std::ptrdiff_t(first * width),
              values.begin() + std::ptrdiff_t((first + tokens) * width)};
  };
  part.tokens = int(tokens);
  for (auto& ids : part.ids) cut(ids, size_t(trace.k));
  for (auto& logits : part.logits) cut(logits, size_t(trace.experts));
  cut(part.token_ids, 1);
  cut(part.sequence, 1);
  cut(part.position, 1);
  cut(part.domain, 1);
  part.out_norm.clear();
  part.block_cos.clear();
  return part;
}

CapacitySimulation capacity_of(const CheckTrace& trace, const CapacityOptions& options, int slab_tokens = 1 << 20) {
  CapacitySimulation simulation(trace.layers, trace.experts, options);
  SlabTrace(trace).walk(slab_tokens, [&](const RoutingSlab& slab, int row) {
    if (row != 0) return;
    EXPECT_TRUE(simulation.feed(slab));
  });
  simulation.finish();
  return simulation;
}

template <class T>
json list(std::span<const T> values) {
  return std::vector<T>(values.begin(), values.end());
}
uint64_t sum(std::span<const uint64_t> values) {
  return std::accumulate(values.begin(), values.end(), uint64_t{0});
}

TEST(Capacity, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : all_checks_of("capacity")) {
    const CheckTrace& trace = trace_named(check["input"]);
    CapacityOptions options;
    options.factor = check["params"]["capacity_factor"];
    options.fill = parse_fill_order(check["params"]["fill"].get<std::string>()).value();
    const CapacitySimulation all = capacity_of(trace, options, 37);
    json got = {{"capacity", list(all.last_capacities())},
                {"drops", list(all.drops())},
                {"total", sum(all.drops())},
                {"drops_by_position", list(all.drops_by_position())}};
    json by_layer = json::array(), by_sequence;
    for (int l = 0; l < trace.layers; ++l) by_layer.push_back(json::array());
    for (int s = 0; s < trace.sequences; ++s) {
      const CapacitySimulation one = capacity_of(only_sequence(trace, uint32_t(s)), options);
      by_sequence.push_back(sum(one.drops()));
      for (int l = 0; l < trace.layers; ++l) by_layer[l].push_back(one.drops()[l]);
    }
    got["drops_by_sequence"] = by_sequence;
    if (check["input"] == "MT1") got["drops"] = by_layer;
    uint64_t weighted = 0;
    const auto at = all.drops_by_position();
    for (size_t p = 0; p < at.size(); ++p) weighted += p * at[p];
    got["sum_position_times_drops"] = weighted;
    got["drops_by_position_first_32"] = list(at.first(std::min<size_t>(32, at.size())));
    expect_expected(check, got);
    EXPECT_EQ(sum(all.drops_by_domain()), sum(all.drops()));
    EXPECT_EQ(sum(all.demands()), uint64_t(trace.layers) * trace.tokens * trace.k);
    ++compared;
  }
  EXPECT_EQ(compared, 14);
}

TEST(Capacity, IsRoundedAsAsked) {
  CapacityOptions options{.factor = 1.25};
  EXPECT_EQ(group_capacity(options, 2, 11, 4), 6);  // 6.875
  options.rounding = CapacityRounding::kCeil;
  EXPECT_EQ(group_capacity(options, 2, 11, 4), 7);
  options.rounding = CapacityRounding::kEven;
  EXPECT_EQ(group_capacity(options, 2, 9, 4), 4);  // 5.625
  options.min_capacity = 5;
  EXPECT_EQ(group_capacity(options, 2, 9, 4), 5);
  EXPECT_EQ(parse_capacity_rounding("ceil").value(), CapacityRounding::kCeil);
  EXPECT_EQ(parse_capacity_rounding("up").error().code, ErrorCode::kUsage);
  EXPECT_EQ(parse_fill_order("bpr").error().code, ErrorCode::kUsage);
}

// Groups of three tokens, two experts, k = 1, capacity floor(1 * 3 / 2) = 1; weights of the first choice in brackets.
//   token   0      1      2    | 3      4      5    | 6      7
//   expert  0(.5)  0(.9)  1(.7)| 1(.6)  1(.8)  1(.7)| 0(.5)  1(.5)
//   by rank keeps 0, 2 | 3 | 6, 7 -> drops 1 | 4, 5 | -      by weight keeps 1, 2 | 4 | 6, 7 -> drops 0 | 3, 5 | -
// The last group has two tokens: capacity 1 as well.
TEST(Capacity, MatchesTheTableMadeByHand) {
  const std::vector<ExpertId> ids = {0, 0, 1, 1, 1, 1, 0, 1};
  const std::vector<float> weights = {.5f, .9f, .7f, .6f, .8f, .7f, .5f, .5f};
  const std::vector<uint32_t> sequence(8, 0), position = {0, 1, 2, 3, 4, 5, 6, 7};
  RoutingSlab slab;
  slab.tokens = 8;
  slab.rows = slab.k = 1;
  slab.experts = 2;
  slab.ids = ids;
  slab.sequence = sequence;
  slab.position = position;
  const auto drops = [&](FillOrder fill) {
    CapacitySimulation simulation(1, 2, {.fill = fill, .group_tokens = 3});
    EXPECT_TRUE(simulation.feed(slab));
    simulation.finish();
    EXPECT_EQ(simulation.groups(), 3u);
    return std::vector<uint64_t>(simulation.drops_by_position().begin(), simulation.drops_by_position().end());
  };
  CapacitySimulation blind(1, 2, {.fill = FillOrder::kPrioritised});
  EXPECT_EQ(blind.feed(slab).error().code, ErrorCode::kUsage);
  slab.weights = weights;
  EXPECT_EQ(drops(FillOrder::kRankMajor), (std::vector<uint64_t>{0, 1, 0, 0, 1, 1, 0, 0}));
  EXPECT_EQ(drops(FillOrder::kTokenMajor), (std::vector<uint64_t>{0, 1, 0, 0, 1, 1, 0, 0}));
  EXPECT_EQ(drops(FillOrder::kPrioritised), (std::vector<uint64_t>{1, 0, 0, 1, 0, 1, 0, 0}));
}

json square(std::span<const uint64_t> matrix, int n) {
  json rows = json::array();
  for (int i = 0; i < n; ++i) rows.push_back(list(matrix.subspan(size_t(i) * n, n)));
  return rows;
}

std::vector<int> homes_of(const RoutingSlab& slab, int gpus) {
  std::vector<int> home;
  for (const uint32_t s : slab.sequence) home.push_back(int(s) % gpus);
  return home;
}

TEST(Traffic, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : all_checks_of("traffic")) {
    const CheckTrace& trace = trace_named(check["input"]);
    const int gpus = check["params"]["gpus"], layer = check["params"]["layer"];
    const ExpertPlaces places(contiguous_placement(trace.layers, trace.experts, gpus), trace.layers, trace.experts,
                              gpus);
    Traffic first(places, gpus / 2), second(places, gpus / 2);
    int piece = 0;
    SlabTrace(trace).walk(11, [&](const RoutingSlab& slab, int row) {
      if (row != layer) return;
      EXPECT_TRUE((piece++ % 2 ? second : first).feed(slab, row, homes_of(slab, gpus)));
    });
    first.merge(second);
    const auto pairs = first.pairs(layer), tokens = first.tokens(layer);
    expect_expected(check, {{"M", square(pairs, gpus)},
                            {"Md", square(tokens, gpus)},
                            {"recv", received(pairs, gpus)},
                            {"recv_dedup", received(tokens, gpus)},
                            {"max_in_or_out_pairs", busiest_port(pairs, gpus)}});
    EXPECT_EQ(sum(pairs), uint64_t(trace.tokens) * trace.k);
    EXPECT_LE(sum(first.node_tokens(layer)), sum(tokens));
    EXPECT_GE(sum(first.node_tokens(layer)), uint64_t(trace.tokens));
    ++compared;
  }
  EXPECT_EQ(compared, 7);
}

// Four GPUs on two nodes; one token at home on GPU 0 chooses experts on GPUs 2, 3 and 1: three pairs, three GPUs, but
// the second node gets it once.
TEST(Traffic, ANodeGetsATokenOnce) {
  const std::vector<ExpertId> ids = {2, 3, 1};
  const std::vector<uint32_t> sequence = {0};
  RoutingSlab slab;
  slab.tokens = slab.rows = 1;
  slab.k = 3;
  slab.experts = 4;
  slab.ids = ids;
  slab.sequence = slab.position = sequence;
  Traffic traffic(ExpertPlaces(contiguous_placement(1, 4, 4), 1, 4, 4), 2);
  ASSERT_TRUE(traffic.feed(slab, 0, std::vector<int>{0}));
  EXPECT_EQ(square(traffic.tokens(0), 4)[0], (json{0, 1, 1, 1}));
  EXPECT_EQ(square(traffic.node_tokens(0), 2), (json{{1, 1}, {0, 0}}));
  // alpha-beta: GPU 0 sends 3 items of 100 bytes at 1000 bytes/s, and 3 latencies of 10 ms.
  EXPECT_DOUBLE_EQ(all_to_all_seconds(traffic.pairs(0), 4, 100, {1000, 0.01}), 0.3 + 0.03);
  EXPECT_EQ(traffic.feed(slab, 0, std::vector<int>{4}).error().code, ErrorCode::kMalformed);
  Traffic odd(ExpertPlaces(contiguous_placement(1, 4, 4), 1, 4, 4), 3);
  EXPECT_EQ(odd.feed(slab, 0, std::vector<int>{0}).error().code, ErrorCode::kUsage);
}

// Expert 0 has a copy on each GPU: its tokens go to them in turn.
TEST(Traffic, CopiesTakeTokensInTurn) {
  const std::vector<float> loads = {6, 1, 1};
  const auto plan = plan_eplb(loads, 1, 3, {4, 1, 1, 2});
  ASSERT_TRUE(plan);
  const std::vector<ExpertId> ids = {0, 0, 0, 1, 2};
  const std::vector<uint32_t> sequence(5, 0);
  RoutingSlab slab;
  slab.tokens = 5;
  slab.rows = slab.k = 1;
  slab.experts = 3;
  slab.ids = ids;
  slab.sequence = slab.position = sequence;
  Traffic traffic{ExpertPlaces(*plan)};
  ASSERT_TRUE(traffic.feed(slab, 0, std::vector<int>(5, 0)));
  // GPU 0 = {0, 1}, GPU 1 = {0, 2}: two of three tokens of expert 0 and that of 1 stay.
  EXPECT_EQ(square(traffic.pairs(0), 2), (json{{3, 2}, {0, 0}}));
}

TEST(LeafSpine, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : all_checks_of("spine")) {
    const int flows = check["input"]["flows"], spines = check["input"]["spines"];
    const EqualSplit split = split_equal_flows(flows, spines);
    const EcmpLoad ecmp = ecmp_equal_flows(flows, spines);
    EXPECT_TRUE(ecmp.exact);
    expect_expected(check, {{"load_each", split.load_each},
                            {"whole_flows_each", split.whole_flows_each},
                            {"parts_per_cut_flow", split.parts_per_cut_flow},
                            {"extra_flows", split.extra_flows},
                            {"ecmp_expected_max", ecmp.expected_max},
                            {"ecmp_p_best_max", ecmp.p_best_max}});
    EXPECT_NEAR(std::accumulate(ecmp.p_max.begin(), ecmp.p_max.end(), 0.0), 1.0, 1e-12);
    ++compared;
  }
  EXPECT_EQ(compared, 7);
}

// All 3^7 ways to hash seven flows to three spines.
TEST(LeafSpine, EcmpIsTheCountOverAllHashes) {
  std::vector<double> share(8, 0);
  for (int code = 0; code < 2187; ++code) {
    int on[3] = {0, 0, 0}, rest = code;
    for (int f = 0; f < 7; ++f, rest /= 3) ++on[rest % 3];
    share[*std::max_element(on, on + 3)] += 1.0 / 2187;
  }
  const EcmpLoad ecmp = ecmp_equal_flows(7, 3);
  for (int m = 0; m <= 7; ++m) EXPECT_NEAR(ecmp.p_max[m], share[m], 1e-12) << m;
}

// 129 flows are drawn; the exact mean for 128 on the same spines is close, and a seed repeats.
TEST(LeafSpine, ManyFlowsAreDrawnBySeed) {
  const EcmpLoad exact = ecmp_equal_flows(128, 8), drawn = ecmp_equal_flows(129, 8, 5, 20'000),
                 again = ecmp_equal_flows(129, 8, 5, 20'000);
  EXPECT_FALSE(drawn.exact);
  EXPECT_EQ(drawn.p_max, again.p_max);
  EXPECT_NE(drawn.p_max, ecmp_equal_flows(129, 8, 6, 20'000).p_max);
  // Standard deviation of the maximum is below 3, so the mean of 20,000 draws is within 0.1 of its expectation; one
  // flow more moves that by less than 0.3.
  EXPECT_NEAR(drawn.expected_max, exact.expected_max, 0.4);
}

TEST(LeafSpine, CutPathsCarryWhatSprayingDoes) {
  // Leaf pair (0, 1): 5 3 2 2 on 3 spines, 4 each; pair (1, 0): 6 equal flows on 3; pair (2, 1): one flow.
  std::vector<Flow> flows = {{0, 1, 5}, {0, 1, 3}, {0, 1, 2}, {0, 1, 2}, {2, 1, 7}};
  for (int i = 0; i < 6; ++i) flows.push_back({1, 0, 1.5});
  const LinkLoads sprayed = spray(flows, 3, 3), cut = split_paths(flows, 3, 3), whole = whole_paths(flows, 3, 3);
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(cut.up[i], sprayed.up[i], 1e-9);
    EXPECT_NEAR(cut.down[i], sprayed.down[i], 1e-9);
  }
  EXPECT_EQ(sprayed.up[0], 4.0);
  EXPECT_NEAR(sprayed.down[3], 12.0 / 3 + 7.0 / 3, 1e-12);
  // (0, 1): 3, 2 and 2 stay whole, 5 fills the gaps of 2, 2 and 1; (1, 0): none is cut; (2, 1): into three parts.
  EXPECT_EQ(cut.extra_flows, 2 + 0 + 2);
  EXPECT_EQ(whole.extra_flows, 0);
  EXPECT_EQ(whole.up[0], 5.0);  // LPT: 5 | 3 2 | 2
  EXPECT_EQ(whole.up[1] + whole.up[2], 7.0);
  EXPECT_GE(whole.largest(), cut.largest());
  const auto largest = ecmp_largest(flows, 3, 3, 1, 50);
  EXPECT_TRUE(std::is_sorted(largest.begin(), largest.end()));
  EXPECT_GE(largest.front(), sprayed.largest() - 1e-9);
  EXPECT_LT(largest.front(), largest.back());
}

TEST(LeafSpine, FlowsComeFromTheTrafficBetweenLeaves) {
  const std::vector<uint64_t> matrix = {1,      2, 3, 0, /**/ 4, 5, 6, 7,
                                        /**/ 8, 9, 1, 2, /**/ 3, 4, 5, 6};  // 4 GPUs, 2 leaves
  const auto flows = flows_of(matrix, 4, 2, 10);
  ASSERT_EQ(flows.size(), 7u);  // eight pairs between the leaves, one without traffic
  EXPECT_EQ(flows[0].size, 30.0);
  EXPECT_EQ(flows[0].to, 1);
  double up = 0, down = 0;
  for (const Flow& flow : flows) (flow.from == 0 ? up : down) += flow.size;
  EXPECT_EQ(up, 160.0);
  EXPECT_EQ(down, 240.0);
  EXPECT_EQ(flow_cv(std::vector<Flow>{{0, 1, 1}, {0, 1, 3}}), 0.5);
}

std::vector<int> ints(const json& values) {
  return values;
}

TEST(TokenSchedule, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : all_checks_of("token-schedule")) {
    const CheckTrace& trace = trace_named(check["input"]);
    const SlabTrace slabs(trace);
    const auto& p = check["params"];
    TokenPaths all(trace.layers, trace.experts);
    ASSERT_TRUE(all.add(slabs.whole()));
    json got;
    if (p.contains("batches")) {
      int cost = 0;
      for (const auto& batch : p["batches"]) cost += batch_cost(all, ints(batch));
      got["cost"] = cost;
    }
    if (p.contains("pairs"))
      for (const auto& pair : p["pairs"]) got["hamming"].push_back(hamming(all.of(pair[0]), all.of(pair[1])));
    if (p.contains("tokens")) {
      const auto tokens = ints(p["tokens"]);
      TokenPaths some(trace.layers, trace.experts);
      ASSERT_TRUE(some.add(slabs.whole(), tokens));
      const std::vector<int> even = {0, 2, 4, 6}, odd = {1, 3, 5, 7};
      const Schedule best = split_batch(some);
      EXPECT_TRUE(best.optimal);
      got["first_split_cost"] = split_in_order(some).cost;
      got["interleaved_cost"] = batch_cost(some, even) + batch_cost(some, odd);
      got["optimum_cost"] = best.cost;
      for (const int t : best.first) got["optimum_batch_with_token_0"].push_back(tokens[t]);
    }
    expect_expected(check, got);
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

// MT1: tokens {0, 1, 8, 9} split best into {0, 1}, {8, 9} (14); the other splits cost 21.
TEST(TokenSchedule, FindsTheBestSplitOfMt1) {
  TokenPaths paths(3, 4);
  const SlabTrace slabs(mt1());
  ASSERT_TRUE(paths.add(slabs.whole(), std::vector<int>{0, 8, 1, 9}));
  const Schedule best = split_batch(paths);
  EXPECT_EQ(best.cost, 14);
  EXPECT_EQ(best.first, (std::vector<int>{0, 2}));
  EXPECT_EQ(best.second, (std::vector<int>{1, 3}));
}

// Two kinds of tokens with paths of their own, shuffled: beyond the exact limit the clusters are found as well.
TEST(TokenSchedule, ManyTokensAreClusteredAndNeverWorseThanInOrder) {
  std::vector<ExpertId> ids;
  for (int t = 0; t < 40; ++t) {
    const int kind = (t * 7 % 40) % 2;
    ids.push_back(ExpertId(4 * kind + t % 3));
    ids.push_back(ExpertId(4 * kind + 3));
  }
  const std::vector<uint32_t> sequence(40, 0);
  RoutingSlab slab;
  slab.tokens = 40;
  slab.rows = 1;
  slab.k = 2;
  slab.experts = 8;
  slab.ids = ids;
  slab.sequence = slab.position = sequence;
  TokenPaths paths(1, 8);
  ASSERT_TRUE(paths.add(slab));
  const Schedule split = split_batch(paths);
  EXPECT_FALSE(split.optimal);
  EXPECT_EQ(split.cost, 8);
  EXPECT_EQ(split_in_order(paths).cost, 16);
  EXPECT_EQ(split.first.size(), 20u);
  EXPECT_EQ(split.second.size(), 20u);

  TokenPaths syn_paths(4, 16);
  std::vector<int> tokens(64);
  std::iota(tokens.begin(), tokens.end(), 100);
  ASSERT_TRUE(syn_paths.add(SlabTrace(syn()).whole(), tokens));
  EXPECT_LE(split_batch(syn_paths).cost, split_in_order(syn_paths).cost);
}

TEST(UniqueExperts, MatchTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : all_checks_of("unique-experts")) {
    const CheckTrace& trace = trace_named(check["input"]);
    UniqueExperts unique(trace.layers, trace.experts, check["params"]["batch_tokens"]);
    SlabTrace(trace).walk(13, [&](const RoutingSlab& slab, int row) {
      if (row != 0) return;
      EXPECT_TRUE(unique.feed(slab));
    });
    unique.finish();
    expect_expected(check, {{"batches", unique.batches()}, {"sum_unique", list(unique.sum_unique())}});
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

}  // namespace
}  // namespace switchyard::testing
