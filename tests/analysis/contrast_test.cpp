// Contrastive profiles: the cases of specs/gating-checks.json, Benjamini-Hochberg by its definition, and intervals that
// cover what was put in.
#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "engine/analysis/contrast.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

using test::gating_checks;

TEST(Contrast, DifferencesAndZFollowTheirFormulas) {
  const auto checks = gating_checks("routing_difference");
  ASSERT_EQ(checks.size(), 4u);
  for (const auto& check : checks) {
    const auto got = routing_difference(check["inputs"]["counts_a"].get<std::vector<uint64_t>>(), check["params"]["n_a"],
                                        check["inputs"]["counts_b"].get<std::vector<uint64_t>>(), check["params"]["n_b"]);
    for (size_t e = 0; e < got.rd.size(); ++e) {
      EXPECT_NEAR(got.rd[e], check["expected"]["rd"][e].get<double>(), 1e-9) << check["id"];
      EXPECT_NEAR(got.z[e], check["expected"]["z"][e].get<double>(), 1e-9) << check["id"];
    }
  }
}

TEST(Contrast, EffectSizeFollowsItsFormula) {
  const auto checks = gating_checks("effect_size");
  ASSERT_EQ(checks.size(), 4u);
  for (const auto& check : checks)
    EXPECT_NEAR(effect_size(check["inputs"]["a"].get<std::vector<double>>(), check["inputs"]["b"].get<std::vector<double>>()),
                check["expected"]["d"].get<double>(), 1e-9)
        << check["id"];
}

TEST(Contrast, AdjustedValuesAreTheSmallestLevelThatRejects) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<double> p(1 + random() % 30);
    for (double& v : p) v = std::uniform_real_distribution<double>(0, 1)(random) * (random() % 2 ? 0.01 : 1);
    const auto q = benjamini_hochberg(p);
    for (size_t i = 0; i < p.size(); ++i) {
      // By the definition: at level q_i the procedure rejects hypothesis i, just below it does not.
      const auto rejects = [&](double level) {
        std::vector<double> sorted = p;
        std::sort(sorted.begin(), sorted.end());
        double cut = -1;
        for (size_t rank = 0; rank < sorted.size(); ++rank)
          if (sorted[rank] <= level * double(rank + 1) / double(sorted.size())) cut = sorted[rank];
        return p[i] <= cut;
      };
      EXPECT_TRUE(rejects(q[i] * (1 + 1e-9)));
      if (q[i] < 1) {
        EXPECT_FALSE(rejects(q[i] * (1 - 1e-6)));
      }
    }
  }
  EXPECT_NEAR(two_sided_p(1.959963984540054), 0.05, 1e-12);
}

ContrastProfile profile(std::mt19937& random, int texts, double rate_a, double rate_b) {
  ContrastProfile out(1, 4);
  for (int text = 0; text < texts; ++text)
    for (const int side : {0, 1}) {
      out.begin_text(side);
      // Texts differ among themselves, so tokens of one text hang together.
      const double rate = std::clamp((side ? rate_b : rate_a) + std::normal_distribution<double>(0, 0.1)(random), 0.0, 1.0);
      for (int token = 0; token < 50; ++token) {
        out.count_token();
        const ExpertId id = std::uniform_real_distribution<double>(0, 1)(random) < rate ? 0 : 1 + random() % 3;
        EXPECT_TRUE(out.feed(0, std::vector<ExpertId>{id}).has_value());
      }
    }
  return out;
}

TEST(Contrast, IntervalsCoverTheTruthAboutNineteenTimesOfTwenty) {
  std::mt19937 random(9);
  int covered = 0, trials = 200;
  for (int trial = 0; trial < trials; ++trial) {
    const auto result = profile(random, 30, 0.5, 0.35).result(300, uint64_t(trial));
    const auto zero = std::find_if(result.begin(), result.end(), [](const auto& one) { return one.expert == 0; });
    covered += zero->low <= 0.15 && 0.15 <= zero->high;
  }
  EXPECT_GT(covered, trials * 0.88);
  EXPECT_LT(covered, trials);
}

TEST(Contrast, SwappingTheSidesNegatesAndTheDifferencesOfARowAddUpToNothing) {
  std::mt19937 random(3), again(3);
  const auto a = profile(random, 5, 0.8, 0.2).result(0);
  ContrastProfile other(1, 4);
  {
    ContrastProfile one = profile(again, 5, 0.8, 0.2);
    EXPECT_EQ(one.tokens(0), 250u);
    EXPECT_EQ(one.texts(1), 5u);
  }
  double sum = 0;
  for (const ExpertContrast& one : a) {
    sum += one.rd;
    EXPECT_EQ(one.low, one.rd);
    EXPECT_LE(std::abs(one.rd), 1);
    EXPECT_GE(one.q, one.p - 1e-15);
  }
  EXPECT_NEAR(sum, 0, 1e-12);
  EXPECT_EQ(a.front().expert, 0);
  EXPECT_LT(a.front().q, 1e-6);
  EXPECT_FALSE(other.feed(0, std::vector<ExpertId>{4}).has_value());
}

}  // namespace
}  // namespace switchyard
