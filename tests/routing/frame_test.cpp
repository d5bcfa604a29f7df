// RoutingFrame: what a backend records comes out in slot order, at every capture level.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/routing/frame.h"
#include "tests/routing/test_plan.h"

namespace switchyard {
namespace {

using testing::ElementsAre;

Decision decision_of(int k_used) {
  Decision decision;
  decision.k_used = k_used;
  decision.stats = {1, 2, 3, 4};
  decision.changed = 1;
  return decision;
}

const std::vector<float> kLogits{4, 3, 2, 1, 0};

TEST(RoutingFrame, SortsSlotsByFallingWeightThenLowerId) {
  RoutingFrame frame(2, 5, 4, CaptureLevel::kLogits);
  frame.record(1, decision_of(3), std::vector<ExpertId>{4, 2, 1}, std::vector<float>{.25f, .5f, .25f},
               std::vector<SlotKind>{SlotKind::kForced, SlotKind::kRouted, SlotKind::kRouted}, kLogits);
  EXPECT_THAT(frame.ids(1), ElementsAre(2, 1, 4, kNoExpert));
  EXPECT_THAT(frame.used_ids(1), ElementsAre(2, 1, 4));
  EXPECT_THAT(frame.weights(1), ElementsAre(.5f, .25f, .25f, 0));
  EXPECT_EQ(frame.kinds(1)[2], SlotKind::kForced);
  EXPECT_THAT(frame.logits(1), ElementsAre(4, 3, 2, 1, 0));
  EXPECT_EQ(frame.layer(1).k_used, 3);
  EXPECT_EQ(frame.layer(1).changed, 1);
  EXPECT_EQ(frame.layer(1).stats.margin, 3);
  EXPECT_THAT(frame.ids(0), ElementsAre(kNoExpert, kNoExpert, kNoExpert, kNoExpert));  // its neighbour is untouched
}

TEST(RoutingFrame, PutsSlotsThatDoNotRunLast) {
  RoutingFrame frame(1, 5, 3, CaptureLevel::kWeights);
  frame.record(0, decision_of(3), std::vector<ExpertId>{0, 1, 2}, std::vector<float>{.7f, .2f, .1f},
               std::vector<SlotKind>{SlotKind::kDropped, SlotKind::kRouted, SlotKind::kRouted}, {});
  EXPECT_THAT(frame.ids(0), ElementsAre(1, 2, 0));
}

TEST(RoutingFrame, HoldsWhatItsCaptureLevelSays) {
  for (const CaptureLevel level : {CaptureLevel::kOff, CaptureLevel::kIds, CaptureLevel::kWeights, CaptureLevel::kLogits}) {
    RoutingFrame frame(1, 5, 2, level);
    frame.record(0, decision_of(2), std::vector<ExpertId>{3, 1}, std::vector<float>{.4f, .6f}, std::vector<SlotKind>(2), kLogits);
    EXPECT_EQ(frame.weights(0).size(), level >= CaptureLevel::kWeights ? 2u : 0u);
    EXPECT_EQ(frame.logits(0).size(), level >= CaptureLevel::kLogits ? 5u : 0u);
    EXPECT_EQ(frame.layer(0).k_used, level == CaptureLevel::kOff ? 0 : 2);
    if (level != CaptureLevel::kOff) {
      EXPECT_THAT(frame.ids(0), ElementsAre(1, 3));  // the order needs no recorded weights
    }
  }
}

TEST(RoutingFrame, FlagsReplacedNan) {
  RoutingFrame frame(1, 2, 1, CaptureLevel::kIds);
  Decision decision = decision_of(1);
  decision.had_nan = true;
  frame.record(0, decision, std::vector<ExpertId>{0}, std::vector<float>{1}, std::vector<SlotKind>(1), {});
  EXPECT_EQ(frame.header().flags, FrameFlags::kNan);
}

// Rows under a layer path: written down by hand from the order of execution.
TEST(DecisionRows, ARepeatedLayerHasARowForEachPass) {
  const ModelPlan plan = test::small_plan();  // rows 0, 1, 2 in layers 1, 2, 3
  const Recipe recipe{.path = {.passes = {1, 3, 0, 2}}};
  EXPECT_THAT(decision_rows(plan, recipe),
              ElementsAre(DecisionRow{0, 1, "layer 1"}, DecisionRow{3, 1, "layer 1 · pass 2"}, DecisionRow{6, 1, "layer 1 · pass 3"},
                          DecisionRow{2, 3, "layer 3"}, DecisionRow{5, 3, "layer 3 · pass 2"}));
  EXPECT_EQ(make_frame(plan, recipe, CaptureLevel::kIds).rows(), 9);
  EXPECT_TRUE(leaves_rows_out(plan, recipe));
  EXPECT_FALSE(leaves_rows_out(plan, {.path = {.passes = {0, 1, 1, 2}}})) << "layer 0 has no router";
  EXPECT_FALSE(leaves_rows_out(plan, {}));
}

// In each pass of its layer a router makes as many decisions as its scheme asks for.
TEST(DecisionRows, PassesOfTheLayerHoldThoseOfTheScheme) {
  const ModelPlan plan = test::small_plan();
  Recipe recipe{.path = {.passes = {1, 2, 1, 2}}};
  recipe.layers.resize(3);
  recipe.layers[0].scheme = make_scheme({"chain_of_experts", {{"iterations", 2.0}}}).value();
  recipe.layers[2].scheme = make_scheme({"union_of_experts", {}}).value();
  EXPECT_THAT(decision_rows(plan, recipe),
              ElementsAre(DecisionRow{0, 1, "layer 1"}, DecisionRow{3, 1, "layer 1 · pass 2"}, DecisionRow{6, 1, "layer 1 · pass 3"},
                          DecisionRow{9, 1, "layer 1 · pass 4"}, DecisionRow{1, 2, "layer 2"}, DecisionRow{2, 3, "layer 3"},
                          DecisionRow{5, 3, "layer 3 · slices"}, DecisionRow{8, 3, "layer 3 · pass 2"}, DecisionRow{11, 3, "layer 3 · pass 2 · slices"}));
  EXPECT_EQ(decision_row(3, 0, recipe.layer(0), 1, 1), 9) << "the second decision of the second pass";
  EXPECT_EQ(decision_row(3, 2, recipe.layer(2), 1, 0), 8);
}

// jetmoe: both routers of a layer decide, then both decide again.
TEST(DecisionRows, RoutersOfOneLayerRepeatTogether) {
  ModelPlan plan;
  MixtureAttentionSpec attention;
  attention.router.experts = 4;
  MoeSpec moe;
  moe.router.experts = 4;
  plan.layers.resize(2);
  for (LayerPlan& layer : plan.layers) layer.sublayers = {{.op = attention}, {.op = moe}};
  number_rows(plan);
  std::vector<std::string> names;
  for (const DecisionRow& row : decision_rows(plan, {.path = {.passes = {2, 1}}})) names.push_back(row.name);
  EXPECT_THAT(names, ElementsAre("layer 0 attention", "layer 0", "layer 0 attention · pass 2", "layer 0 · pass 2", "layer 1 attention", "layer 1"));
}

}  // namespace
}  // namespace switchyard
