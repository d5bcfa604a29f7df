// adapt(): the exact gradient against finite differences of another backend's loss, its invariants, and what every
// method leaves behind: edits that give the loss it names.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "engine/backend/differentiable.h"
#include "engine/runtime/adapt.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct Demo {
  Checkpoint checkpoint = *open_checkpoint("demo");
  std::shared_ptr<const WeightStore> weights = *WeightStore::open(checkpoint);
  std::vector<TokenId> ids;
  Demo() {
    const auto tokenizer = Tokenizer::load(checkpoint);
    ids = *(*tokenizer)->encode("def router(tokens):\n    return [expert for expert in tokens]\n");
  }
  std::unique_ptr<Backend> backend(const char* name) const {
    auto made = make_backend(name, checkpoint, weights, {.threads = 1});
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message());
    return std::move(*made);
  }
};
const Demo& demo() {
  static const Demo one;
  return one;
}

// Mean next-token loss in one forward pass.
double loss_of(Backend& backend, const std::vector<TokenId>& ids, const Recipe& recipe) {
  const auto cache = backend.new_cache(int(ids.size()));
  const size_t vocab = size_t(demo().checkpoint.plan.vocab);
  std::vector<float> logits(ids.size() * vocab);
  ForwardRequest request{.tokens = ids, .cache = cache.get(), .recipe = &recipe};
  request.rows = LogitRows::kAll;
  request.logits = logits;
  EXPECT_TRUE(backend.forward(request).has_value());
  double sum = 0;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const auto row = std::span(logits).subspan(t * vocab, vocab);
    const double max = *std::max_element(row.begin(), row.end());
    double total = 0;
    for (const float z : row) total += std::exp(z - max);
    sum += std::log(total) + max - row[size_t(ids[t + 1])];
  }
  return sum / double(ids.size() - 1);
}

Recipe with_bias(int row, int expert, float value) {
  const ModelPlan& plan = demo().checkpoint.plan;
  Recipe recipe;
  apply(Bias{{{plan.moe_layers[row]}}, {ExpertId(expert)}, value}, plan, recipe);
  return recipe;
}

#ifdef SWITCHYARD_WITH_REFERENCE
TEST(BiasGradient, IsTheSlopeOfTheLossOfTheOtherBackend) {
  const auto reference = demo().backend("reference"), cpu = demo().backend("cpu");
  auto* differentiable = dynamic_cast<Differentiable*>(reference.get());
  ASSERT_NE(differentiable, nullptr);
  const auto found = differentiable->bias_gradient(demo().ids, {}, nullptr);
  ASSERT_TRUE(found.has_value()) << found.error().message();
  EXPECT_NEAR(found->loss, loss_of(*cpu, demo().ids, {}), 1e-4);
  int compared = 0;
  for (const int row : {0, 3, 7}) {
    const std::vector<float>& gradient = found->by_row[row];
    // Renormalised weights: what one selected expert gains the others lose.
    EXPECT_NEAR(std::accumulate(gradient.begin(), gradient.end(), 0.0), 0, 1e-5);
    for (int expert = 0; expert < 32; expert += 3) {
      constexpr float kStep = 2e-3f;
      const double up = loss_of(*reference, demo().ids, with_bias(row, expert, kStep)),
                   down = loss_of(*reference, demo().ids, with_bias(row, expert, -kStep));
      const double slope = (up - down) / (2 * kStep), base = found->loss;
      // Where a selection flips within the step the loss jumps: seen as unequal one-sided slopes.
      if (std::abs((up - base) - (base - down)) > 2e-5) continue;
      EXPECT_NEAR(gradient[expert], slope, 2e-3 + 0.05 * std::abs(slope)) << "row " << row << " expert " << expert;
      ++compared;
    }
  }
  EXPECT_GT(compared, 15);
}

TEST(BiasGradient, RefusesASchemeByName) {
  const auto reference = demo().backend("reference");
  Recipe recipe;
  apply(SetScheme{{}, *make_scheme({"top_p", {}})}, demo().checkpoint.plan, recipe);
  const auto found = dynamic_cast<Differentiable*>(reference.get())->bias_gradient(demo().ids, recipe, nullptr);
  ASSERT_FALSE(found.has_value());
  EXPECT_NE(found.error().message().find("scheme"), std::string::npos);
}

TEST(Adapt, RewiringLowersTheLossAndSaysHow) {
  const auto reference = demo().backend("reference");
  AdaptOptions options;
  options.lr = 0.05;
  const auto found = adapt(*reference, demo().checkpoint.plan, demo().ids, {}, options);
  ASSERT_TRUE(found.has_value()) << found.error().message();
  EXPECT_LT(found->loss_after, found->loss_before - 0.01);
  EXPECT_EQ(found->rows.size(), 4u);  // half of eight layers
  EXPECT_EQ(found->steps.size(), 5u);
  EXPECT_EQ(found->steps[0].rerouted, 0);
  Recipe recipe;
  for (const EditCommand& edit : found->edits) apply(edit.edit, demo().checkpoint.plan, recipe);
  EXPECT_NEAR(loss_of(*demo().backend("cpu"), demo().ids, recipe), found->loss_after, 1e-3);
}
#endif

TEST(Adapt, SpsaRepeatsFromItsSeedAndNeverEndsWorse) {
  const auto cpu = demo().backend("cpu");
  AdaptOptions options{.method = AdaptMethod::kSpsa, .steps = 8, .lr = 0.02};
  const auto a = adapt(*cpu, demo().checkpoint.plan, demo().ids, {}, options), b = adapt(*cpu, demo().checkpoint.plan, demo().ids, {}, options);
  ASSERT_TRUE(a && b);
  EXPECT_LE(a->loss_after, a->loss_before);
  EXPECT_EQ(a->loss_after, b->loss_after);
  EXPECT_EQ(a->edits, b->edits);
  options.seed = 1;
  const auto other = adapt(*cpu, demo().checkpoint.plan, demo().ids, {}, options);
  ASSERT_TRUE(other);
  EXPECT_NE(a->steps.back().loss, other->steps.back().loss);
  Recipe recipe;
  for (const EditCommand& edit : a->edits) apply(edit.edit, demo().checkpoint.plan, recipe);
  EXPECT_NEAR(loss_of(*cpu, demo().ids, recipe), a->loss_after, 1e-6);
}

TEST(Adapt, UsageBiasMovesEveryExpertBySteps) {
  const auto cpu = demo().backend("cpu");
  const AdaptOptions options{.method = AdaptMethod::kUsageBias, .steps = 3, .lr = 0.01, .layer_share = 1};
  const auto found = adapt(*cpu, demo().checkpoint.plan, demo().ids, {}, options);
  ASSERT_TRUE(found.has_value()) << found.error().message();
  for (const EditCommand& edit : found->edits) {
    const float steps = std::get<Bias>(edit.edit).value / 0.01f;
    EXPECT_NEAR(steps, std::round(steps), 1e-4);
    EXPECT_LE(std::abs(steps), 3.001f);
  }
  AdaptOptions bounded = options;
  bounded.max_norm = 0.02;
  const auto small = adapt(*cpu, demo().checkpoint.plan, demo().ids, {}, bounded);
  ASSERT_TRUE(small);
  for (const double norm : small->steps.back().norms) EXPECT_LE(norm, 0.02 + 1e-9);
}

TEST(Adapt, RefusesWhatDoesNotFit) {
  const auto cpu = demo().backend("cpu");
  const auto no_gradient = adapt(*cpu, demo().checkpoint.plan, demo().ids, {}, {});
  ASSERT_FALSE(no_gradient.has_value());
  EXPECT_EQ(no_gradient.error().code, ErrorCode::kUsage);
  EXPECT_FALSE(adapt(*cpu, demo().checkpoint.plan, std::vector<TokenId>{1}, {}, {.method = AdaptMethod::kSpsa}).has_value());
}

}  // namespace
}  // namespace switchyard
