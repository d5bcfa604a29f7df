// The sampler: published numbers of the generator, the order of the filters, and frequencies that follow the
// probabilities.
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/runtime/sampler.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using Floats = std::vector<float>;

// Random123 (github.com/DEShawResearch/random123), tests/kat_vectors, philox4x32 10 rounds.
TEST(Philox, GivesThePublishedNumbers) {
  EXPECT_THAT(philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  EXPECT_THAT(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(Uniform, UsesAllOfSeedSequenceAndToken) {
  const double u = uniform(1, 2, 3);
  EXPECT_EQ(u, uniform(1, 2, 3));
  EXPECT_NE(u, uniform(1 + (uint64_t(1) << 32), 2, 3));
  EXPECT_NE(u, uniform(1, 3, 3));
  EXPECT_NE(u, uniform(1, 2, 3 + (uint64_t(1) << 32)));
  EXPECT_EQ(uniform(0, 0, 0), (0x6627e8d5 + 0.5) / 4294967296.0);  // first word of the first vector above
}

TEST(Sample, GreedyTakesTheFirstOfTheLargest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(sample(Floats{0, 3, 3, 1}, {}, 0, 0), 1);
  EXPECT_EQ(sample(Floats{nan, 3, nan, 4, nan}, {}, 0, 0), 3);
  EXPECT_EQ(sample(Floats{nan, -5, nan}, {}, 0, 0), 1);
}

// What can come out over many tokens.
std::map<TokenId, int> counts(const Floats& logits, const Sampling& sampling, int tokens = 20000) {
  std::map<TokenId, int> out;
  for (int t = 0; t < tokens; ++t) ++out[sample(logits, sampling, 0, t)];
  return out;
}
std::vector<TokenId> support(const Floats& logits, const Sampling& sampling) {
  std::vector<TokenId> ids;
  for (const auto& [id, n] : counts(logits, sampling)) ids.push_back(id);
  return ids;
}

TEST(Sample, FiltersInTheOrderOfTransformers) {
  // softmax of these: .6439 .2369 .0871 .0321
  const Floats logits{3, 2, 1, 0};
  EXPECT_THAT(support(logits, {.greedy = false, .top_k = 2}), ElementsAre(0, 1));
  EXPECT_THAT(support(logits, {.greedy = false, .top_p = 0.64f}), ElementsAre(0));
  EXPECT_THAT(support(logits, {.greedy = false, .top_p = 0.65f}), ElementsAre(0, 1));  // the token that crosses p stays
  EXPECT_THAT(support(logits, {.greedy = false, .top_p = 0.95f}), ElementsAre(0, 1, 2));
  // top-k first: of {0, 1}, token 0 holds .7311, so p = .7 keeps it alone; over all four it would keep both.
  EXPECT_THAT(support(logits, {.greedy = false, .top_p = 0.7f, .top_k = 2}), ElementsAre(0));
  EXPECT_THAT(support(logits, {.greedy = false, .top_p = 0.7f}), ElementsAre(0, 1));
  // Temperature first: at .25 token 0 holds .9817.
  EXPECT_THAT(support(logits, {.greedy = false, .temperature = 0.25f, .top_p = 0.95f}), ElementsAre(0));
  // Ties with the k-th stay, as torch.topk's threshold keeps them.
  EXPECT_THAT(support(Floats{1, 2, 1, 1}, {.greedy = false, .top_k = 2}), ElementsAre(0, 1, 2, 3));
}

TEST(Sample, NeverChoosesNanOrMinusInfinity) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(support(Floats{nan, 0, -inf, 0, nan}, {.greedy = false, .temperature = 100}), ElementsAre(1, 3));
  EXPECT_EQ(sample(Floats{0, inf, 0}, {.greedy = false}, 0, 0), 1);
}

// Pearson's statistic with 9 degrees of freedom is below 27.9 with probability .999; the seed is fixed.
TEST(Sample, FollowsTheProbabilities) {
  const Floats logits{0, .5f, -1, 2, 1.5f, .25f, -.5f, 1, 0, .75f};
  for (const float temperature : {0.7f, 1.0f, 3.0f}) {
    std::vector<double> p;
    double sum = 0;
    for (const float logit : logits) sum += p.emplace_back(std::exp(logit / temperature));
    const int tokens = 40000;
    auto seen = counts(logits, {.greedy = false, .temperature = temperature, .seed = 7}, tokens);
    double chi = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = p[i] / sum * tokens;
      chi += (seen[TokenId(i)] - expected) * (seen[TokenId(i)] - expected) / expected;
    }
    EXPECT_LT(chi, 27.9) << temperature;
  }
}

// The plain way, with a full sort: the heap must choose the same.
TEST(Sample, EqualsInverseTransformOverTheSortedVocabulary) {
  std::mt19937_64 random(3);
  for (int turn = 0; turn < 500; ++turn) {
    Floats logits(50);
    for (float& logit : logits) logit = float(int(random() % 40)) / 8;  // with ties
    const Sampling sampling{.greedy = false, .temperature = 0.5f + float(random() % 4) / 2, .seed = random()};
    std::vector<int> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = int(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    double sum = 0, reached = 0;
    for (const float logit : logits) sum += std::exp(double(logit) / sampling.temperature);
    int wanted = order.back();
    for (const int id : order)
      if ((reached += std::exp(double(logits[id]) / sampling.temperature)) > uniform(sampling.seed, 0, turn) * sum) {
        wanted = id;
        break;
      }
    ASSERT_EQ(sample(logits, sampling, 0, turn), wanted);
  }
}

}  // namespace
}  // namespace switchyard
