// NAEE's search: the worked numbers of specs/analyses.md A15, and greedy against all sets.
#include <gtest/gtest.h>

#include <random>

#include "engine/analysis/naee.h"

namespace switchyard {
namespace {

RouterSpec router(int experts, int k) {
  RouterSpec spec;
  spec.experts = experts, spec.experts_per_token = k, spec.score = ScoreFn::kSoftmaxTopK;
  return spec;
}

// Two tokens, scalar outputs [1,2,4] with logits [2,1,0] and [3,-1,2] with [0,1,2]; k = 2.
TEST(Naee, WorkedNumbers) {
  NaeeSearch together(router(3, 2), 1), apart(router(3, 2), 1);
  together.add_block(std::vector<float>{2, 1, 0, 0, 1, 2}, std::vector<float>{1, 2, 4, 3, -1, 2});
  apart.add_block(std::vector<float>{2, 1, 0}, std::vector<float>{1, 2, 4});
  apart.add_block(std::vector<float>{0, 1, 2}, std::vector<float>{3, -1, 2});
  const double one_block[] = {1.268941, 0.930262, 1.117410}, block_each[] = {1.268941, 1.014695, 1.117410};
  for (size_t e = 0; e < 3; ++e) {
    std::vector<uint8_t> dropped(3);
    dropped[e] = 1;
    EXPECT_NEAR(together.loss(dropped), one_block[e], 1e-6);
    EXPECT_NEAR(apart.loss(dropped), block_each[e], 1e-6);
  }
  const auto found = together.choose(2, 100);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->dropped, std::vector<ExpertId>{1});
  EXPECT_NEAR(found->loss, 0.930262, 1e-6);
  EXPECT_TRUE(found->exhaustive);
  EXPECT_EQ(found->tried, 3u);
  EXPECT_EQ(together.choose(1, 100).error().code, ErrorCode::kUsage);
  EXPECT_EQ(together.choose(3, 100).error().code, ErrorCode::kUsage);
}

TEST(Naee, AllSetsAreNeverWorseThanOneByOne) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 20; ++trial) {
    NaeeSearch search(router(8, 2), 3);
    for (int block = 0; block < 3; ++block) {
      std::vector<float> logits(5 * 8), outputs(5 * 8 * 3);
      for (float& z : logits) z = 2 * normal(random);
      for (float& y : outputs) y = normal(random);
      search.add_block(logits, outputs);
    }
    const auto all = search.choose(4, 70), greedy = search.choose(4, 69);
    ASSERT_TRUE(all && greedy);
    EXPECT_TRUE(all->exhaustive);
    EXPECT_EQ(all->tried, 70u);  // 8 over 4
    EXPECT_FALSE(greedy->exhaustive);
    EXPECT_EQ(greedy->tried, 8u + 7 + 6 + 5);
    EXPECT_EQ(greedy->dropped.size(), 4u);
    EXPECT_LE(all->loss, greedy->loss + 1e-12);
    std::vector<uint8_t> dropped(8);
    for (const ExpertId e : greedy->dropped) dropped[e] = 1;
    EXPECT_EQ(search.loss(dropped), greedy->loss);
  }
}

TEST(Naee, KnowsNoSelectionBias) {
  RouterSpec spec = router(8, 2);
  spec.has_select_bias = true;
  EXPECT_EQ(NaeeSearch(spec, 1).choose(4, 1).error().code, ErrorCode::kUsage);
}

}  // namespace
}  // namespace switchyard
