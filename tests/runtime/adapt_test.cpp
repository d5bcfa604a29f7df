// adapt(): the exact gradient against finite differences of another backend's loss, its invariants, and what every
// method leaves behind: edits that give the loss it names.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/backend/router_inputs.h"
#include "engine/analysis/gate_gradient.h"
#include "engine/backend/differentiable.h"
#include "engine/runtime/adapt.h"
#include "engine/runtime/forced_pass.h"
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

Result<Adaptation> adapted(Backend& backend, const AdaptOptions& options, const Recipe& start = {}, const std::vector<TokenId>& ids = demo().ids) {
  return adapt({.backend = backend, .plan = demo().checkpoint.plan, .tokens = ids, .start = start, .weights = demo().weights.get()}, options);
}

Recipe recipe_of(const std::vector<EditCommand>& edits) {
  Recipe recipe;
  for (const EditCommand& edit : edits) {
    EXPECT_TRUE(validate(edit.edit, demo().checkpoint.plan, recipe).has_value());
    apply(edit.edit, demo().checkpoint.plan, recipe);
  }
  return recipe;
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
  const auto found = differentiable->bias_gradient(demo().ids, {}, 0, nullptr);
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
  const auto found = dynamic_cast<Differentiable*>(reference.get())->bias_gradient(demo().ids, recipe, 0, nullptr);
  ASSERT_FALSE(found.has_value());
  EXPECT_NE(found.error().message().find("scheme"), std::string::npos);
}

// The sparse half of the lens, summed over the text, is the gradient by the biases that autograd finds; RAW weights too.
TEST(GateTerms, TheSparseGradientAddsUpToThatOfTheBias) {
  const auto reference = demo().backend("reference");
  auto* differentiable = dynamic_cast<Differentiable*>(reference.get());
  Recipe scaled = with_bias(2, 5, 0.4f);
  apply(ExpertScale{{{4}}, {0, 1, 2}, 1.5f}, demo().checkpoint.plan, scaled);
  apply(Mute{{{3}}, {7}}, demo().checkpoint.plan, scaled);
  for (const Recipe& recipe : {Recipe{}, scaled}) {
    const auto terms = differentiable->gate_terms(demo().ids, recipe, nullptr);
    ASSERT_TRUE(terms.has_value()) << terms.error().message();
    const auto bias = differentiable->bias_gradient(demo().ids, recipe, 0, nullptr);
    ASSERT_TRUE(bias.has_value());
    ASSERT_EQ(terms->size(), 8u);
    for (int row = 0; row < 8; ++row) {
      const GateLens lens = gate_lens((*terms)[row], 32);
      ASSERT_EQ(lens.tokens.size(), demo().ids.size());
      double largest = 0;
      for (int e = 0; e < 32; ++e) {
        EXPECT_NEAR(lens.sparse[e], bias->by_row[row][e], 2e-5) << "row " << row << " expert " << e;
        largest = std::max(largest, std::abs(lens.sparse[e]));
      }
      EXPECT_GT(largest, 1e-3);
      EXPECT_GT(lens.flips + size_t(std::accumulate(lens.wanted.begin(), lens.wanted.end(), 0u)), 0u);
    }
  }
}

// All experts, also those that did not run: against torch autograd of DenseMixer's straight-through estimate in
// transformers (tests/data/gate_gradient.py made the numbers).
TEST(GateTerms, GiveTheDenseGradientOfTransformers) {
  std::ifstream file(SWITCHYARD_SOURCE_DIR "/tests/data/gate_gradient.json");
  const auto expected = nlohmann::json::parse(file);
  const auto reference = demo().backend("reference");
  const auto ids = expected["ids"].get<std::vector<TokenId>>();
  const auto terms = dynamic_cast<Differentiable*>(reference.get())->gate_terms(ids, {}, nullptr);
  ASSERT_TRUE(terms.has_value()) << terms.error().message();
  ASSERT_EQ(expected["layers"].size(), 3u);
  for (const auto& layer : expected["layers"]) {
    const GateTerms& own = (*terms)[layer["layer"].get<size_t>()];
    EXPECT_TRUE(own.renormalised);
    double largest = 0;
    for (size_t t = 0; t < ids.size(); ++t) {
      std::vector<double> dense(32), sparse(32);
      const auto of = [&](const auto& values) { return std::span(values).subspan(t * 32, 32); };
      gate_gradient(of(own.scores), of(own.gains), of(own.selected), own.renormalised, dense, sparse);
      for (size_t e = 0; e < 32; ++e) {
        EXPECT_NEAR(dense[e], layer["dense"][t][e].get<double>(), 1e-6) << "layer " << layer["layer"] << " token " << t << " expert " << e;
        EXPECT_NEAR(sparse[e], layer["sparse"][t][e].get<double>(), 1e-6);
        largest = std::max(largest, std::abs(dense[e]));
      }
    }
    EXPECT_GT(largest, 1e-3);
  }
}

TEST(Adapt, RewiringLowersTheLossAndSaysHow) {
  const auto reference = demo().backend("reference");
  AdaptOptions options;
  options.lr = 0.05;
  const auto found = adapted(*reference, options);
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
  const auto a = adapted(*cpu, options), b = adapted(*cpu, options);
  ASSERT_TRUE(a && b);
  EXPECT_LE(a->loss_after, a->loss_before);
  EXPECT_EQ(a->loss_after, b->loss_after);
  EXPECT_EQ(a->edits, b->edits);
  options.seed = 1;
  const auto other = adapted(*cpu, options);
  ASSERT_TRUE(other);
  EXPECT_NE(a->steps.back().loss, other->steps.back().loss);
  Recipe recipe;
  for (const EditCommand& edit : a->edits) apply(edit.edit, demo().checkpoint.plan, recipe);
  EXPECT_NEAR(loss_of(*cpu, demo().ids, recipe), a->loss_after, 1e-6);
}

TEST(Adapt, UsageBiasMovesEveryExpertBySteps) {
  const auto cpu = demo().backend("cpu");
  const AdaptOptions options{.method = AdaptMethod::kUsageBias, .steps = 3, .lr = 0.01, .layer_share = 1};
  const auto found = adapted(*cpu, options);
  ASSERT_TRUE(found.has_value()) << found.error().message();
  for (const EditCommand& edit : found->edits) {
    const float steps = std::get<Bias>(edit.edit).value / 0.01f;
    EXPECT_NEAR(steps, std::round(steps), 1e-4);
    EXPECT_LE(std::abs(steps), 3.001f);
  }
  AdaptOptions bounded = options;
  bounded.max_norm = 0.02;
  const auto small = adapted(*cpu, bounded);
  ASSERT_TRUE(small);
  for (const double norm : small->steps.back().norms) EXPECT_LE(norm, 0.02 + 1e-9);
}

TEST(Adapt, CountsTheLastTokensOfTheLossWhereToldTo) {
  const auto cpu = demo().backend("cpu");
  AdaptOptions options{.method = AdaptMethod::kUsageBias, .steps = 1, .lr = 0.01};
  const double all = adapted(*cpu, options)->loss_before * double(demo().ids.size() - 1);
  options.loss_tokens = 5;
  const double last = adapted(*cpu, options)->loss_before * 5;
  const std::vector<TokenId> shorter(demo().ids.begin(), demo().ids.end() - 5);
  EXPECT_NEAR(last, all - loss_of(*cpu, shorter, {}) * double(shorter.size() - 1), 1e-3);
}

TEST(Adapt, KeepsToTheLayersThatItMayTouch) {
  const auto cpu = demo().backend("cpu");
  const auto found = adapted(*cpu, {.method = AdaptMethod::kUsageBias, .steps = 2, .lr = 0.01, .layer_share = 1, .layers = {2, 5}});
  ASSERT_TRUE(found.has_value()) << found.error().message();
  EXPECT_EQ(found->rows, (std::vector<int>{2, 5}));
  for (const EditCommand& edit : found->edits) {
    const int layer = std::get<Bias>(edit.edit).layers.layers[0];
    EXPECT_TRUE(layer == 2 || layer == 5);
  }
  EXPECT_EQ(found->norms[0], 0);
  EXPECT_GT(found->norms[2], 0);
  const auto no_layer = adapted(*cpu, {.method = AdaptMethod::kUsageBias, .layers = {99}});
  ASSERT_FALSE(no_layer.has_value());
  EXPECT_NE(no_layer.error().message().find("layer 99"), std::string::npos);
}

// Rerouting is counted against the base, also where the start differs from it.
TEST(Adapt, CountsReroutingAgainstTheBase) {
  const auto cpu = demo().backend("cpu");
  const Recipe base, start = with_bias(3, 1, 50);
  const AdaptOptions options{.method = AdaptMethod::kUsageBias, .steps = 1, .lr = 0, .layer_share = 1};
  const auto own = adapted(*cpu, options, start);
  const auto against = adapt({.backend = *cpu, .plan = demo().checkpoint.plan, .tokens = demo().ids, .start = start, .base = &base}, options);
  ASSERT_TRUE(own && against);
  EXPECT_EQ(own->rerouted, 0);
  EXPECT_EQ(own->path_distance, 0);
  EXPECT_GT(against->rerouted, 0.05);
  EXPECT_GT(against->path_distance, 0.3);  // expert 1 leads the path in row 3, which it seldom did
  EXPECT_LE(against->path_distance, 8);
}

// The inputs that backends hand out: times the router's rows they are the logits.
TEST(RouterInputs, TimesTheRoutersRowsAreTheLogits) {
  const ModelPlan& plan = demo().checkpoint.plan;
  std::vector<const char*> names{"cpu"};
#ifdef SWITCHYARD_WITH_REFERENCE
  names.push_back("reference");
#endif
  for (const char* backend_name : names) {
    SCOPED_TRACE(backend_name);
    const auto backend = demo().backend(backend_name);
    ForcedPass pass(*backend, plan, {{0, std::make_shared<const Recipe>(), {}}}, int(demo().ids.size()));
    pass.begin(0);
    std::vector<RoutingFrame> frames;
    RouterInputs tap(plan.rows.size());
    pass.set_router_tap(&tap);
    ASSERT_TRUE(pass.forward(demo().ids, {}, CaptureLevel::kLogits, frames, nullptr).has_value());
    const auto inputs = tap.take();
    for (const int row : {0, 4, 7}) {
      const TensorRef& ref = plan.routed(row).router_weight;
      std::vector<float> weight(size_t(ref.elements()));
      ASSERT_TRUE(demo().weights->read(ref, weight.data()).has_value());
      const size_t width = size_t(ref.cols);
      ASSERT_EQ(inputs[row].size(), demo().ids.size() * width);
      for (size_t t = 0; t < demo().ids.size(); t += 5)
        for (size_t e = 0; e < 32; e += 7) {
          double z = 0;
          for (size_t i = 0; i < width; ++i) z += double(inputs[row][t * width + i]) * weight[e * width + i];
          EXPECT_NEAR(frames[t].logits(row)[e], z, 1e-3) << "row " << row << " token " << t << " expert " << e;
        }
    }
  }
}

// One step of the moving average in one layer, computed here again from the inputs and the router's rows: centres start
// along the rows, as long as the inputs are on average; every token goes to the nearest by cosine.
TEST(Adapt, EmaMovesTheCentresTowardsTheirTokens) {
  const ModelPlan& plan = demo().checkpoint.plan;
  const auto cpu = demo().backend("cpu");
  const AdaptOptions options{.method = AdaptMethod::kEma, .steps = 1, .eta = 0.25, .layers = {4}};
  const auto found = adapted(*cpu, options);
  ASSERT_TRUE(found.has_value()) << found.error().message();
  ASSERT_EQ(found->edits.size(), 33u);  // the scheme, and a row for each expert
  EXPECT_EQ(std::get<SetScheme>(found->edits[0].edit).scheme.choice.name, "prototype");

  ForcedPass pass(*cpu, plan, {{0, std::make_shared<const Recipe>(), {}}}, int(demo().ids.size()));
  pass.begin(0);
  std::vector<RoutingFrame> frames;
  RouterInputs tap(plan.rows.size());
  pass.set_router_tap(&tap);
  ASSERT_TRUE(pass.forward(demo().ids, {}, CaptureLevel::kLogits, frames, nullptr).has_value());
  const auto inputs = tap.take();
  const TensorRef& ref = plan.routed(4).router_weight;
  const size_t width = size_t(ref.cols), tokens = demo().ids.size();
  std::vector<float> rows(size_t(ref.elements()));
  ASSERT_TRUE(demo().weights->read(ref, rows.data()).has_value());
  const auto norm = [&](const float* v) {
    double sum = 0;
    for (size_t i = 0; i < width; ++i) sum += double(v[i]) * v[i];
    return std::sqrt(sum);
  };
  double mean_length = 0;
  for (size_t t = 0; t < tokens; ++t) mean_length += norm(&inputs[4][t * width]) / double(tokens);
  std::vector<std::vector<double>> sums(32, std::vector<double>(width));
  std::vector<int> counts(32);
  for (size_t t = 0; t < tokens; ++t) {
    int nearest = 0;
    double best = -2;
    for (int e = 0; e < 32; ++e) {
      double product = 0;
      for (size_t i = 0; i < width; ++i) product += double(inputs[4][t * width + i]) * rows[e * width + i];
      if (const double cosine = product / norm(&rows[e * width]); cosine > best) best = cosine, nearest = e;
    }
    ++counts[nearest];
    for (size_t i = 0; i < width; ++i) sums[nearest][i] += inputs[4][t * width + i];
  }
  for (int e = 0; e < 32; ++e) {
    const auto& row = std::get<RouterRow>(found->edits[size_t(e) + 1].edit);
    ASSERT_EQ(row.experts, std::vector{ExpertId(e)});
    for (size_t i = 0; i < width; i += 3) {
      double want = rows[e * width + i] * mean_length / norm(&rows[e * width]);
      if (counts[e] > 0) want = 0.75 * want + 0.25 * sums[e][i] / counts[e];
      ASSERT_NEAR((*row.row->values)[i], want, 1e-4 * mean_length) << "expert " << e;
    }
  }
  EXPECT_NEAR(loss_of(*cpu, demo().ids, recipe_of(found->edits)), found->loss_after, 1e-6);
  // It goes on from the centres that it left.
  const auto more = adapted(*cpu, options, recipe_of(found->edits));
  ASSERT_TRUE(more.has_value()) << more.error().message();
  EXPECT_EQ(more->edits.size(), 32u);  // the scheme is there
  EXPECT_NE(more->edits[0], found->edits[1]);
}

TEST(Adapt, RefusesWhatDoesNotFit) {
  const auto cpu = demo().backend("cpu");
  const auto no_gradient = adapted(*cpu, {});
  ASSERT_FALSE(no_gradient.has_value());
  EXPECT_EQ(no_gradient.error().code, ErrorCode::kUsage);
  EXPECT_FALSE(adapted(*cpu, {.method = AdaptMethod::kSpsa}, {}, {1}).has_value());
}

}  // namespace
}  // namespace switchyard
