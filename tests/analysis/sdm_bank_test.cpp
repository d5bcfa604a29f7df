// The exemplar bank of the sdm scheme, by hand: inputs on a line at one router of four experts.
#include <algorithm>

#include <gtest/gtest.h>

#include "engine/analysis/sdm_bank.h"
#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

const ModelPlan& plan() {
  static const ModelPlan one = [] {
    ModelPlan plan;
    plan.hidden = 1;
    plan.layers.resize(1);
    MoeSpec moe;
    moe.router.experts = 4;
    plan.layers[0].sublayers.emplace_back();
    plan.layers[0].sublayers[0].op = moe;
    number_rows(plan);
    return plan;
  }();
  return one;
}

void add(SdmBankBuilder& builder, float at, ExpertId expert, bool calibrates, int domain = 0) {
  builder.add(0, {&at, 1}, expert, domain, calibrates);
}

TEST(SdmBank, KeepsWhatCalibrationSpeaksFor) {
  SdmBankBuilder builder(plan(), 100, BankLabels::kOwn, 0);
  for (const float at : {0.0f, 1.0f, 2.0f}) add(builder, at, 0, false);
  for (const float at : {10.0f, 11.0f}) add(builder, at, 1, false);
  add(builder, 5, 2, false);     // no calibration point of expert 2: dropped
  add(builder, 0.25f, 0, true);  // nearest 0: distance 1/4
  add(builder, 2.5f, 0, true);   // nearest 2: distance 1/2
  add(builder, 12, 1, true);     // nearest 11: distance 1
  add(builder, 1.75f, 1, true);  // nearest 2, of expert 0: q = 0, left out
  const auto built = builder.build();
  ASSERT_TRUE(built.has_value()) << built.error().message();
  const SdmBank& bank = built->file.layers.at(0).bank;
  EXPECT_EQ(bank.exemplars.values, (std::vector<float>{0, 1, 2, 10, 11}));
  EXPECT_EQ(bank.labels, (std::vector<ExpertId>{0, 0, 0, 1, 1}));
  EXPECT_EQ(bank.predictions, bank.labels);
  ASSERT_EQ(bank.classes.size(), 2u);
  EXPECT_EQ(bank.classes[0].distances, (std::vector<float>{0.25f, 0.5f}));
  EXPECT_EQ(bank.classes[1].distances, (std::vector<float>{1}));
  EXPECT_EQ(built->rows[0].exemplars, 5);
  EXPECT_EQ(built->rows[0].points, 3);
  EXPECT_EQ(built->rows[0].left_out, 1);
  EXPECT_EQ(built->rows[0].classes_dropped, 1);
}

// The label is what the domain chooses most often: expert 1 in domain 0 (three of five), expert 3 in domain 7.
TEST(SdmBank, TakesTheDomainsExpertAsTheLabel) {
  SdmBankBuilder builder(plan(), 100, BankLabels::kDomain, 0);
  add(builder, 0, 1, false), add(builder, 1, 0, false), add(builder, 2, 1, false);
  add(builder, 9, 3, false, 7);
  add(builder, 2.5f, 1, true), add(builder, 3, 0, true);
  add(builder, 9.5f, 3, true, 7);
  const auto built = builder.build();
  ASSERT_TRUE(built.has_value()) << built.error().message();
  const SdmBank& bank = built->file.layers.at(0).bank;
  EXPECT_EQ(bank.labels, (std::vector<ExpertId>{1, 1, 1, 3}));
  EXPECT_EQ(bank.predictions, (std::vector<ExpertId>{1, 0, 1, 3}));
  // The point at 3 was routed to 0: its nearest exemplar (2) does not say 0, so it is left out.
  EXPECT_EQ(built->rows[0].left_out, 1);
  EXPECT_EQ(bank.classes[0].distances, (std::vector<float>{0.5f}));
}

TEST(SdmBank, HoldsASampleOfTheTokensAndRefusesToBeEmpty) {
  SdmBankBuilder builder(plan(), 10, BankLabels::kOwn, 3);
  for (int i = 0; i < 1000; ++i) add(builder, float(i), 0, false);
  add(builder, 0.5f, 0, true);
  const auto built = builder.build();
  ASSERT_TRUE(built.has_value());
  EXPECT_EQ(built->rows[0].exemplars, 10);
  const auto& values = built->file.layers.at(0).bank.exemplars.values;
  EXPECT_GT(*std::max_element(values.begin(), values.end()), 100);  // not the first ten

  SdmBankBuilder empty(plan(), 10, BankLabels::kOwn, 0);
  add(empty, 1, 0, false);
  EXPECT_FALSE(empty.build().has_value());
}

}  // namespace
}  // namespace switchyard
