// Carving: the mask arithmetic of specs/gating-checks.json, the strongest units by their definition, and sums of activity.
#include <gtest/gtest.h>

#include "engine/analysis/carving.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

TEST(Carving, MasksFollowTheirCases) {
  const auto checks = test::gating_checks("carve_masks");
  ASSERT_EQ(checks.size(), 4u);
  for (const auto& check : checks) {
    const auto masks = check["inputs"]["masks"].get<std::vector<UnitMask>>();
    const Carving got = carve(masks);
    EXPECT_EQ(got.residual, check["expected"]["residual"].get<UnitMask>()) << check["id"];
    EXPECT_EQ(got.experts, check["expected"]["experts"].get<std::vector<UnitMask>>()) << check["id"];
  }
  EXPECT_TRUE(carve({}).experts.empty());
}

TEST(Carving, KeepsTheStrongestUnitsTiesToTheLower) {
  EXPECT_EQ(strongest_units(std::vector<double>{1, 3, 2, 3, 2}, 3), (UnitMask{0, 1, 1, 1, 0}));
  EXPECT_EQ(strongest_units(std::vector<double>{1, 1, 1}, 1), (UnitMask{1, 0, 0}));
  EXPECT_EQ(strongest_units(std::vector<double>{1, 2}, 5), (UnitMask{1, 1}));
}

TEST(Carving, ActivityIsTheMeanOfTheAbsoluteUnits) {
  UnitActivity activity;
  activity.add(1, std::vector<float>{1, -2, 0.5f});
  activity.add(1, std::vector<float>{-3, 2, 0});
  EXPECT_EQ(activity.tokens(1), 2u);
  EXPECT_EQ(activity.mean(1), (std::vector<double>{2, 2, 0.25}));
  EXPECT_TRUE(activity.mean(0).empty());
  EXPECT_TRUE(activity.mean(7).empty());
}

}  // namespace
}  // namespace switchyard
