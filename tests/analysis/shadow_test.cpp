// Shadow comparison: the canonical vector of specs/gating.md, section 0, by hand, and what must hold always.
#include "engine/analysis/shadow.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "engine/routing/edit.h"
#include "tests/routing/test_plan.h"

namespace switchyard::testing {
namespace {

// One layer of 4 experts, top-2 renormalised; an expert is three matrices of 2 x 8: 96 operations a token.
ModelPlan plan_of_z() {
  ModelPlan plan;
  plan.layers.resize(1);
  MoeSpec moe;
  moe.router = {.experts = 4, .experts_per_token = 2, .renorm = Renorm::kSum};
  const auto matrix = [](const char* name) { return TensorRef{.name = name, .rows = 2, .cols = 8}; };
  moe.experts.assign(4, FfnWeights{.gate = matrix("gate"), .up = matrix("up"), .down = matrix("down")});
  plan.layers[0].sublayers.push_back({.op = moe});
  number_rows(plan);
  return plan;
}

const std::vector<float> kZ = {2, 1, 0.5f, 0};

GateDifference against_native(const ModelPlan& plan, const Edit& edit, GateShift* shift = nullptr) {
  Recipe recipe;
  apply(edit, plan, recipe);
  ShadowRouter router(plan, {});
  GateDecision base, other;
  router.decide(0, nullptr, {.logits = kZ}, base);
  router.decide(0, recipe.layer(0), {.logits = kZ}, other);
  GateShift own(plan);
  return (shift ? *shift : own).feed(0, base, other);
}

TEST(Shadow, DecidesTheCanonicalVectorAsTheSpecificationSays) {
  const ModelPlan plan = plan_of_z();
  ShadowRouter router(plan, {});
  GateDecision decision;
  router.decide(0, nullptr, {.logits = kZ}, decision);
  decision.distribute();
  EXPECT_EQ(decision.runs, (std::vector<uint8_t>{1, 1, 0, 0}));
  EXPECT_NEAR(decision.weights[0], 0.731059, 1e-6);
  EXPECT_NEAR(decision.probabilities[2], 0.129250, 1e-6);
  EXPECT_NEAR(decision.entropy, 1.109767, 1e-6);
  EXPECT_EQ(decision.executed, 2);
}

// Expert 1 masked: {0, 2} with .817574 and .182426 (gating.md); the rest with Python's math, by the definitions.
TEST(Shadow, OfAMutedExpert) {
  const GateDifference d = against_native(plan_of_z(), Mute{{}, {1}});
  EXPECT_NEAR(d.jaccard, 1.0 / 3, 1e-12);
  EXPECT_NEAR(d.weight_l1, 0.817574 - 0.731059 + 0.268941 + 0.182426, 2e-6);
  EXPECT_TRUE(std::isinf(d.kl));
  EXPECT_NEAR(d.js, 0.0802222796, 5e-7);
  EXPECT_EQ(d.extra_experts, 0);
  EXPECT_EQ(d.extra_flops, 0);
}

// tau = 2: p = [.408701 .247890 .193057 .150353] (gating.md).
TEST(Shadow, OfATemperature) {
  const GateDifference d = against_native(plan_of_z(), Temperature{{}, 2});
  EXPECT_EQ(d.jaccard, 1);
  EXPECT_NEAR(d.weight_l1, 2 * (0.7310585786 - 0.6224593312), 1e-6);
  EXPECT_NEAR(d.kl, 0.0668848110, 5e-7);
  EXPECT_NEAR(d.js, 0.0169904697, 5e-7);
}

TEST(Shadow, OfFewerAndMoreExperts) {
  const ModelPlan plan = plan_of_z();
  GateShift shift(plan);
  const GateDifference one = against_native(plan, TopK{{}, 1}, &shift);
  EXPECT_EQ(one.jaccard, 0.5);
  EXPECT_NEAR(one.weight_l1, 2 * 0.268941, 1e-6);
  EXPECT_EQ(one.kl, 0);
  EXPECT_EQ(one.extra_experts, -1);
  EXPECT_EQ(one.extra_flops, -2 * 3 * 16);
  const GateDifference four = against_native(plan, TopK{{}, 4}, &shift);
  EXPECT_EQ(four.extra_experts, 2);
  EXPECT_EQ(four.extra_flops, 2 * 2 * 3 * 16);
  EXPECT_EQ(shift.tokens(0), 2u);
  EXPECT_EQ(shift.mean(0).extra_experts, 0.5);
  EXPECT_EQ(shift.mean(0).jaccard, 0.5);
  EXPECT_EQ(shift.first_diverging_row(), 0);
  EXPECT_EQ(std::vector<int64_t>(shift.moved(0).begin(), shift.moved(0).end()), (std::vector<int64_t>{0, -1, 1, 1}));
}

TEST(Shadow, NullAndDroppedSlotsDoNotRun) {
  GateDecision all, some;
  const std::vector<ExpertId> ids = {3, 0, 1};
  const std::vector<float> weights = {0.5f, 0.3f, 0.2f};
  const std::vector<SlotKind> kinds = {SlotKind::kRouted, SlotKind::kDropped, SlotKind::kNull};
  all.set(ids, weights, {}, kZ);
  some.set(ids, weights, kinds, kZ);
  const GateDifference d = difference(all, some, {10, 4});
  EXPECT_NEAR(d.jaccard, 1.0 / 3, 1e-12);
  EXPECT_NEAR(d.weight_l1, 0.5, 1e-7);
  EXPECT_EQ(d.extra_experts, -2);
  EXPECT_EQ(d.extra_flops, -20);
  EXPECT_EQ(difference(all, some, {10, 1}).extra_flops, -10) << "experts 1 to 3 are identities";
  GateDecision none;
  none.set({}, {}, {}, kZ);
  EXPECT_EQ(difference(none, none, {10, 4}).jaccard, 1);
  EXPECT_EQ(difference(none, all, {10, 4}).jaccard, 0);
}

TEST(Shadow, EqualRecipesDifferInNothing) {
  const ModelPlan plan = test::small_plan();
  ShadowRouter router(plan, {});
  std::mt19937 random(7);
  std::normal_distribution<float> logit(0, 3);
  GateShift fed(plan), skipped(plan);
  for (int t = 0; t < 200; ++t)
    for (int row = 0; row < 3; ++row) {
      std::vector<float> logits(size_t(plan.routed(row).router.experts));
      for (float& z : logits) z = logit(random);
      GateDecision a, b;
      router.decide(row, nullptr, {.logits = logits}, a);
      router.decide(row, nullptr, {.logits = logits}, b);
      EXPECT_EQ(fed.feed(row, a, b), GateDifference{});
      skipped.feed_equal(row);
    }
  for (int row = 0; row < 3; ++row) {
    EXPECT_EQ(fed.mean(row), GateDifference{});
    EXPECT_EQ(skipped.mean(row), GateDifference{});
    EXPECT_EQ(skipped.tokens(row), 200u);
  }
  EXPECT_EQ(fed.first_diverging_row(), -1);
}

// Bounds and symmetries over random edits; parts merged in any order give the whole.
TEST(Shadow, HoldsItsBoundsAndMerges) {
  const ModelPlan plan = test::small_plan();
  ShadowRouter router(plan, {});
  std::mt19937 random(11);
  std::normal_distribution<float> logit(0, 2);
  GateShift whole(plan), parts[2] = {GateShift(plan), GateShift(plan)};
  for (int t = 0; t < 400; ++t) {
    Recipe recipe;
    apply(Bias{{}, {ExpertId(random() % 6)}, logit(random)}, plan, recipe);
    apply(TopK{{}, int(1 + random() % 4)}, plan, recipe);
    if (t % 3 == 0) apply(Mute{{}, {ExpertId(random() % 6)}}, plan, recipe);
    for (int row = 0; row < 3; ++row) {
      std::vector<float> logits(size_t(plan.routed(row).router.experts));
      for (float& z : logits) z = logit(random);
      GateDecision base, other;
      router.decide(row, nullptr, {.logits = logits}, base);
      router.decide(row, recipe.layer(row), {.logits = logits}, other);
      const GateDifference there = whole.feed(row, base, other), back = difference(other, base, {1, 8});
      parts[t % 2].feed(row, base, other);
      EXPECT_GE(there.jaccard, 0);
      EXPECT_LE(there.jaccard, 1);
      EXPECT_LE(there.weight_l1, 2 + 1e-5);  // both sums are 1
      EXPECT_GE(there.kl, 0);
      EXPECT_LE(there.js, std::log(2.0) + 1e-12);
      EXPECT_LE(there.js, (there.kl + back.kl) / 4 + 1e-12);  // Lin 1991
      EXPECT_EQ(there.jaccard, back.jaccard);
      EXPECT_EQ(there.extra_experts, -back.extra_experts);
      EXPECT_NEAR(there.js, back.js, 1e-12);
      EXPECT_NEAR(there.weight_l1, back.weight_l1, 1e-12);
    }
  }
  parts[1].merge(parts[0]);
  for (int row = 0; row < 3; ++row) {
    EXPECT_EQ(parts[1].tokens(row), whole.tokens(row));
    EXPECT_NEAR(parts[1].mean(row).jaccard, whole.mean(row).jaccard, 1e-12);
    EXPECT_NEAR(parts[1].mean(row).js, whole.mean(row).js, 1e-12);
    EXPECT_TRUE(std::ranges::equal(parts[1].moved(row), whole.moved(row)));
  }
}

TEST(Shadow, RefusesModelsWhoseTokensAreCoupled) {
  ModelPlan plan = test::small_plan();
  EXPECT_EQ(ShadowRouter::unavailable(plan), "");
  std::get<MoeSpec>(plan.layers[2].sublayers[0].op).router.capacity = Capacity::kPerSequence;
  EXPECT_NE(ShadowRouter::unavailable(plan), "");
}

}  // namespace
}  // namespace switchyard::testing
