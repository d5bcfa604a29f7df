// EPLB against specs/analyses.md A12 (README of the original, and cases computed by two separate programs).
#include <gtest/gtest.h>

#include "engine/placement/eplb.h"
#include "engine/placement/eplb_staleness.h"
#include "tests/placement/check_data.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

struct Loads {
  std::vector<float> values;
  int layers = 0, experts = 0;
};

Loads loads_of(const json& rows) {
  Loads loads{{}, int(rows.size()), int(rows[0].size())};
  for (const auto& row : rows)
    for (const auto& value : row) loads.values.push_back(value);
  return loads;
}

json rows_of(const std::vector<int>& values, int width) {
  json rows = json::array();
  for (size_t i = 0; i < values.size(); i += size_t(width))
    rows.push_back(std::vector<int>(values.begin() + i, values.begin() + i + width));
  return rows;
}

TEST(Eplb, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : all_checks_of("eplb")) {
    const Loads loads = loads_of(check["input"]["loads"]);
    const auto& p = check["params"];
    const auto plan =
        plan_eplb(loads.values, loads.layers, loads.experts, {p["replicas"], p["groups"], p["nodes"], p["gpus"]});
    ASSERT_TRUE(plan) << plan.error().message();
    json got = {{"policy", plan->hierarchical ? "hierarchical" : "global"},
                {"physical_to_logical", rows_of(plan->physical_to_logical, p["replicas"])},
                {"logical_count", rows_of(plan->logical_count, loads.experts)}};
    for (int l = 0; l < loads.layers; ++l) {
      const auto on_gpus =
          gpu_loads(*plan, l, std::span(loads.values).subspan(size_t(l) * loads.experts, loads.experts));
      got["gpu_load"].push_back(on_gpus);
      got["balancedness"].push_back(balancedness(on_gpus));
    }
    expect_expected(check, got);
    ++compared;
  }
  EXPECT_EQ(compared, 10);
}

TEST(Eplb, ContiguousExpertsAreTheBaseline) {
  const auto check = all_checks_of("contiguous-balancedness").at(0);
  const Loads loads = loads_of(check["input"]["loads"]);
  const int gpus = check["params"]["gpus"];
  std::vector<int> gpu_of(loads.experts);
  for (int e = 0; e < loads.experts; ++e) gpu_of[e] = e * gpus / loads.experts;
  json got;
  for (int l = 0; l < loads.layers; ++l)
    got["balancedness"].push_back(balancedness(
        gpu_loads(gpu_of, gpus, std::span(loads.values).subspan(size_t(l) * loads.experts, loads.experts))));
  expect_expected(check, got);
}

// Four equal loads on two nodes, doubled: every expert has its two copies, numbered in the order they were made.
TEST(Eplb, KnowsTheSlotsOfAnExpert) {
  const std::vector<float> loads = {1, 1, 1, 1};
  const auto plan = plan_eplb(loads, 1, 4, {8, 2, 2, 4});
  ASSERT_TRUE(plan);
  for (int e = 0; e < 4; ++e) {
    const auto slots = plan->slots_of(0, e);
    ASSERT_EQ(slots.size(), 2u);
    for (int copy = 0; copy < 2; ++copy) {
      EXPECT_EQ(plan->physical_to_logical[slots[copy]], e);
      EXPECT_EQ(plan->copy[slots[copy]], copy);
    }
  }
}

// A plan of one window scored on another: the hot expert moved, so its two copies are idle and the other is alone.
TEST(Eplb, AStalePlanIsScoredOnOtherLoads) {
  const std::vector<float> planned = {6, 1, 1}, later = {1, 1, 6};
  const auto plan = plan_eplb(planned, 1, 3, {4, 1, 1, 2});
  ASSERT_TRUE(plan);
  // Shares 3 3 1 1: GPU 0 = {0, 1}, GPU 1 = {0, 2}.
  EXPECT_EQ(gpu_loads(*plan, 0, planned), (std::vector<double>{4, 4}));
  EXPECT_EQ(gpu_loads(*plan, 0, later), (std::vector<double>{1.5, 6.5}));
}

// The same loads as windows: 6 1 1, then 1 1 6, then 1 1 6 again. By hand, balancedness of window 1 under the plan of
// window 0: mean 4, max 6.5; under its own: 4 of 4; of window 2 under that of window 1, the same. Of all together
// (8 3 13) expert 2 has two copies of 6.5, packed as {0, 1} and {2, 2}: 1 1 6 lies on them as 2 and 6.
TEST(Eplb, StalenessScoresEachPlanOnTheNextWindow) {
  const std::vector<float> windows = {6, 1, 1, 1, 1, 6, 1, 1, 6};
  const auto aged = eplb_staleness(windows, 1, 3, {4, 1, 1, 2});
  ASSERT_TRUE(aged);
  EXPECT_EQ(aged->windows, 3);
  EXPECT_EQ(aged->previous, (std::vector<double>{4 / 6.5, 1}));
  EXPECT_EQ(aged->own, (std::vector<double>{1, 1}));
  EXPECT_EQ(aged->whole, (std::vector<double>{4.0 / 6, 4.0 / 6}));
  EXPECT_TRUE(aged->contiguous.empty()) << "2 GPUs do not divide 3 experts";
  EXPECT_EQ(aged->by_window(aged->previous), aged->previous);
  EXPECT_DOUBLE_EQ(aged->by_layer(aged->previous)[0], (4 / 6.5 + 1) / 2);
  EXPECT_EQ(eplb_staleness(std::span(windows).first(3), 1, 3, {4, 1, 1, 2}).error().code, ErrorCode::kUsage);
  Task task;
  task.cancel();
  EXPECT_EQ(eplb_staleness(windows, 1, 3, {4, 1, 1, 2}, &task).error().code, ErrorCode::kCancelled);
}

TEST(Eplb, RefusesNumbersThatCannotFit) {
  const std::vector<float> loads(12, 1.0f);
  const auto code = [&](EplbShape shape) {
    const auto plan = plan_eplb(loads, 1, 12, shape);
    return plan ? 0 : int(plan.error().code);
  };
  EXPECT_EQ(code({11, 4, 2, 11}), 2);  // fewer replicas than experts
  EXPECT_EQ(code({16, 4, 2, 6}), 2);   // GPUs do not divide replicas
  EXPECT_EQ(code({16, 4, 3, 8}), 2);   // nodes do not divide GPUs
  EXPECT_EQ(code({16, 8, 2, 8}), 2);   // groups do not divide experts
  EXPECT_EQ(code({0, 0, 0, 0}), 2);
  EXPECT_EQ(code({16, 5, 2, 8}), 0);  // global: groups are ignored
  const std::vector<float> negative = {1, -1};
  ASSERT_FALSE(plan_eplb(negative, 1, 2, {2, 1, 1, 1}));
  EXPECT_EQ(int(plan_eplb(negative, 1, 2, {2, 1, 1, 1}).error().code), 4);
}

}  // namespace
}  // namespace switchyard::testing
