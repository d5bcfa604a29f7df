// Both backends against transformers in fp32: the demo model and the goldens of tests/goldens
// (expected.json of each says how it was made). Limits: issue 3, point 7.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

// Largest logit difference to transformers in fp32.
double limit(const std::string& backend_name) {
  return backend_name == "reference" ? 2e-4 : 2e-3;
}

void expect_routing(const nlohmann::json& layer, int moe_layer, const Output& output, double weight_limit,
                    double& largest) {
  for (size_t t = 0; t < output.frames.size(); ++t) {
    const RoutingFrame& frame = output.frames[t];
    const auto weights = layer.at("weights").at(t).get<std::vector<float>>();
    largest = std::max(largest, largest_difference(frame.weights(moe_layer).first(weights.size()), weights));
    // Slots of nearly equal weight may stand in either order, so sets are compared.
    auto want = layer.at("experts").at(t).get<std::vector<ExpertId>>();
    std::vector<ExpertId> got(frame.used_ids(moe_layer).begin(), frame.used_ids(moe_layer).end());
    std::sort(want.begin(), want.end());
    std::sort(got.begin(), got.end());
    if (std::fabs(frame.layer(moe_layer).stats.margin) >= kTie) {
      ASSERT_EQ(got, want) << "token " << t << ", MoE layer " << moe_layer;
    }
  }
  EXPECT_LE(largest, weight_limit);
}

class Transformers : public ::testing::TestWithParam<std::string> {};

TEST_P(Transformers, DemoPromptsGiveTheSameNumbers) {
  const ModelPlan& plan = checkpoint("demo").plan;
  double logits = 0, router_logits = 0, weights = 0, nll = 0;
  const auto want_all = expected("demo");
  ASSERT_EQ(want_all.at("prompts").size(), 14u);
  for (const auto& [name, want] : want_all.at("prompts").items()) {
    SCOPED_TRACE(name);
    const auto ids = want.at("ids").get<std::vector<TokenId>>();
    Sequence sequence("demo", GetParam());
    const Output output = sequence.feed(ids);
    logits = std::max(
        logits, largest_difference(last_row(output, plan.vocab), want.at("last_logits").get<std::vector<float>>()));
    for (size_t row = 0; row < want.at("routing").size(); ++row) {
      const auto& layer = want["routing"][row];
      ASSERT_EQ(layer.at("layer").get<int>(), plan.moe_layers[row]);
      expect_routing(layer, int(row), output, limit(GetParam()), weights);
      router_logits = std::max(router_logits, largest_difference(output.frames.back().logits(int(row)),
                                                                 layer.at("logits_last").get<std::vector<float>>()));
    }
    double sum = 0;
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      const auto row = std::span<const float>(output.logits).subspan(t * size_t(plan.vocab), size_t(plan.vocab));
      double total = 0;
      for (const float z : row) total += std::exp(double(z));
      sum += std::log(total) - double(row[ids[t + 1]]);
    }
    nll = std::max(nll, std::fabs(sum / double(ids.size() - 1) - want.at("mean_nll").get<double>()));
    EXPECT_EQ(sequence.greedy(output, 48), want.at("greedy_ids").get<std::vector<TokenId>>());
  }
  EXPECT_LE(logits, limit(GetParam()));
  EXPECT_LE(router_logits, limit(GetParam()));
  EXPECT_LE(nll, limit(GetParam()));
  std::cout << GetParam() << " against transformers on the demo: logits " << logits << ", router logits "
            << router_logits << ", weights " << weights << ", mean nll " << nll << "\n";
}

TEST_P(Transformers, GoldensGiveTheSameNumbers) {
  for (const std::string& golden : goldens()) {
    // The same weights in another form have the numbers of the plain form.
    const bool clothed = golden.ends_with("_sharded") || golden.ends_with("_packed");
    const auto want_all = expected(clothed ? golden.substr(0, golden.rfind('_')) : golden);
    ASSERT_EQ(want_all.at("prompts").size(), 2u);
    double logits = 0, router_logits = 0, weights = 0;
    for (const auto& want : want_all.at("prompts")) {
      SCOPED_TRACE(golden);
      const auto ids = want.at("ids").get<std::vector<TokenId>>();
      Sequence sequence(golden, GetParam());
      const Output output = sequence.feed(ids);
      std::vector<float> all;
      for (const auto& row : want.at("logits")) {
        const auto values = row.get<std::vector<float>>();
        all.insert(all.end(), values.begin(), values.end());
      }
      logits = std::max(logits, largest_difference(output.logits, all));
      for (size_t row = 0; row < want.at("routing").size(); ++row) {
        const auto& layer = want["routing"][row];
        ASSERT_EQ(layer.at("layer").get<int>(), checkpoint(golden).plan.moe_layers.at(row));
        expect_routing(layer, int(row), output, limit(GetParam()), weights);
        for (size_t t = 0; t < ids.size(); ++t) {
          router_logits =
              std::max(router_logits, largest_difference(output.frames[t].logits(int(row)),
                                                         layer.at("logits").at(t).get<std::vector<float>>()));
        }
      }
      EXPECT_EQ(sequence.greedy(output, int(want.at("greedy_ids").size())),
                want.at("greedy_ids").get<std::vector<TokenId>>());
    }
    EXPECT_LE(logits, limit(GetParam())) << golden;
    EXPECT_LE(router_logits, limit(GetParam())) << golden;
    std::cout << GetParam() << " against transformers on " << golden << ": logits " << logits << ", router logits "
              << router_logits << ", weights " << weights << "\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Transformers, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::testing
