// The reading of one token, by hand.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/analysis/logit_lens.h"

namespace switchyard {
namespace {

// specs/analyses.md A19: logits [2,1,0] -> [1,2,0] have KL .420512.
TEST(LogitLens, WorkedNumbers) {
  const std::vector<float> model = {2, 1, 0}, lens = {1, 2, 0};
  const LensReading reading = read_lens(model, lens);
  EXPECT_NEAR(reading.kl, 0.420512, 1e-6);
  EXPECT_EQ(reading.first, 1);
  EXPECT_EQ(reading.rank, 1);
  EXPECT_NEAR(reading.probability, std::exp(1) / (std::exp(1) + std::exp(2) + 1), 1e-7);
  const LensReading same = read_lens(model, model);
  EXPECT_EQ(same.kl, 0);
  EXPECT_EQ(same.rank, 0);
  const LensPlace place{0, 1, 0, {reading, same}};
  EXPECT_EQ(place.agreement(), 0.5);
  EXPECT_NEAR(place.mean_kl(), 0.210256, 1e-6);
}

}  // namespace
}  // namespace switchyard
