// The rules of router adaptation on the cases of specs/gating-checks.json.
#include <cmath>
#include <string_view>

#include <gtest/gtest.h>

#include "engine/routing/adaptation.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

using test::gating_checks;

TEST(Adaptation, ConfidenceFollowsItsFormula) {
  const auto checks = gating_checks("rewire_confidence");
  ASSERT_EQ(checks.size(), 4u);
  for (const auto& check : checks) {
    const double want = check["expected"]["c"];
    EXPECT_NEAR(rewire_confidence(check["inputs"]["logits"].get<std::vector<float>>(), check["params"]["k"]), want,
                2e-6 * std::max(1.0, std::abs(want)))
        << check["id"];
  }
}

TEST(Adaptation, BiasRuleAmplifiesWhatIsUsed) {
  const auto checks = gating_checks("condenser_bias_rule");
  ASSERT_EQ(checks.size(), 5u);
  for (const auto& check : checks) {
    auto bias = check["inputs"]["bias"].get<std::vector<double>>();
    condenser_bias_rule(check["inputs"]["usage"].get<std::vector<double>>(), check["params"]["gamma"], bias);
    for (size_t e = 0; e < bias.size(); ++e) EXPECT_NEAR(bias[e], check["expected"]["bias"][e].get<double>(), 1e-9) << check["id"];
  }
}

TEST(Adaptation, PrototypesMoveTowardsTheirTokens) {
  const auto checks = gating_checks("ema_prototypes");
  ASSERT_EQ(checks.size(), 3u);
  for (const auto& check : checks) {
    std::vector<float> hidden;
    std::vector<double> prototypes;
    size_t width = 0;
    for (const auto& row : check["inputs"]["hidden"])
      for (const auto& value : row) hidden.push_back(value), width = row.size();
    for (const auto& row : check["inputs"]["prototypes"])
      for (const auto& value : row) prototypes.push_back(value);
    const auto ids = ema_prototypes(hidden, width, check["params"]["eta"], prototypes);
    EXPECT_EQ(nlohmann::json(ids), check["expected"]["ids"]) << check["id"];
    size_t at = 0;
    for (const auto& row : check["expected"]["prototypes"])
      for (const auto& value : row) EXPECT_NEAR(prototypes[at++], value.get<double>(), 2e-6) << check["id"];
  }
}

// The textbook pairs, in letters, and the empty path.
TEST(Adaptation, EditDistanceIsThatOfLevenshtein) {
  const auto distance = [](std::string_view a, std::string_view b) {
    return edit_distance(std::vector<ExpertId>(a.begin(), a.end()), std::vector<ExpertId>(b.begin(), b.end()));
  };
  EXPECT_EQ(distance("kitten", "sitting"), 3u);
  EXPECT_EQ(distance("saturday", "sunday"), 3u);
  EXPECT_EQ(distance("abcd", "bcda"), 2u);  // shifted by one: not four replacements
  EXPECT_EQ(distance("", "abc"), 3u);
  EXPECT_EQ(distance("abc", "abc"), 0u);
}

// Minimises a quadratic; the first step is lr in every coordinate, whatever the gradient's size.
TEST(Adaptation, AdamStepsByTheRateAndConverges) {
  Adam adam(2);
  std::vector<double> x{5, -3};
  const std::vector<double> first{1000, -0.001};
  adam.step(first, 0.1, x);
  EXPECT_NEAR(x[0], 4.9, 1e-6);
  EXPECT_NEAR(x[1], -2.9, 1e-4);
  Adam again(2);
  for (int step = 0; step < 2000; ++step) {
    const std::vector<double> gradient{2 * (x[0] - 1), 2 * (x[1] + 2)};
    again.step(gradient, 0.02, x);
  }
  EXPECT_NEAR(x[0], 1, 1e-2);
  EXPECT_NEAR(x[1], -2, 1e-2);
}

}  // namespace
}  // namespace switchyard
