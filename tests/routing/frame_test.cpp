// RoutingFrame: what a backend records comes out in slot order, at every capture level.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/routing/frame.h"

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

}  // namespace
}  // namespace switchyard
