// The gradient lens on the cases of specs/gating-checks.json (torch autograd of the straight-through estimate made them),
// and what a text's summary has to say of them.
#include <cmath>

#include <gtest/gtest.h>

#include "engine/analysis/gate_gradient.h"
#include "engine/routing/adaptation.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

struct Case {
  std::vector<float> p, a;
  std::vector<uint8_t> selected;
  explicit Case(const nlohmann::json& check) : a(check["inputs"]["a"].get<std::vector<float>>()), selected(a.size()) {
    const auto z = check["inputs"]["logits"].get<std::vector<double>>();
    double sum = 0;
    for (const double logit : z) sum += std::exp(logit);
    for (const double logit : z) p.push_back(float(std::exp(logit) / sum));
    for (const auto& id : check["expected"]["ids"]) selected[id.get<size_t>()] = 1;
  }
};

TEST(GateGradient, AgreesWithEveryCheck) {
  const auto checks = test::gating_checks("dense_mixer");
  ASSERT_EQ(checks.size(), 5u);
  for (const auto& check : checks) {
    const Case c(check);
    std::vector<double> dense(c.p.size()), sparse(c.p.size());
    for (const bool renormalised : {false, true}) {
      gate_gradient(c.p, c.a, c.selected, renormalised, dense, sparse);
      const auto& expected = check["expected"];
      for (size_t e = 0; e < dense.size(); ++e) {
        EXPECT_NEAR(dense[e], expected[renormalised ? "dense_renorm" : "dense_raw"][e].get<double>(), 1e-6) << check["id"] << " " << e;
        EXPECT_NEAR(sparse[e], expected[renormalised ? "sparse_renorm" : "sparse_raw"][e].get<double>(), 1e-6) << check["id"] << " " << e;
      }
    }
  }
}

// The worked case of the specification: by the dense gradient the loss would have less of expert 2, by the sparse one
// more; of those that did not run it would raise expert 1.
TEST(GateLens, SaysWhichExpertTheLossWouldLike) {
  const Case c(test::gating_checks("dense_mixer")[0]);
  GateTerms terms{.scores = c.p, .gains = c.a, .selected = c.selected};
  for (int again = 0; again < 2; ++again) {  // the same token three times
    terms.scores.insert(terms.scores.end(), c.p.begin(), c.p.end());
    terms.gains.insert(terms.gains.end(), c.a.begin(), c.a.end());
    terms.selected.insert(terms.selected.end(), c.selected.begin(), c.selected.end());
  }
  const GateLens lens = gate_lens(terms, 3);
  ASSERT_EQ(lens.tokens.size(), 3u);
  EXPECT_EQ(lens.tokens[0].expert, 1);
  EXPECT_NEAR(lens.tokens[0].dense, -0.598575, 1e-6);
  EXPECT_NEAR(lens.tokens[0].sparse, -0.325607, 1e-6);
  EXPECT_EQ(lens.wanted, (std::vector<uint32_t>{0, 3, 0}));
  EXPECT_EQ(lens.flips, 3u);  // expert 2
  EXPECT_NEAR(lens.dense[0], 3 * 0.368626, 1e-5);
  EXPECT_NEAR(lens.sparse[2], 3 * -0.119784, 1e-5);
  // (.368626 * .445391 + .598575 * .325607 - .229949 * .119784) / (|dense| |sparse|)
  EXPECT_NEAR(lens.cosine, 0.3315425 / (0.7396355 * 0.5645693), 1e-4);
}

TEST(GateLens, WantsNobodyWhereOnlyLossesWouldGrow) {
  const GateTerms terms{.scores = {0.5f, 0.5f}, .gains = {-1, 1}, .selected = {1, 0}};
  const GateLens lens = gate_lens(terms, 2);
  EXPECT_EQ(lens.tokens[0].expert, kNoExpert);
  EXPECT_EQ(lens.wanted, (std::vector<uint32_t>{0, 0}));
}

}  // namespace
}  // namespace switchyard
