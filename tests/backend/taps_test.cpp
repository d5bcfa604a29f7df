// What taps measure (Taps in frame.h): against transformers' activations (tests/data/taps.py), and that a run is bit for
// bit the same with and without them.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "engine/routing/edit.h"
#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

constexpr uint8_t kBoth = Taps::kOutNorm | Taps::kBlockCos;

// One forward pass of the tokens from an empty cache.
Output run(const std::string& model, const std::string& name, std::span<const TokenId> ids, uint8_t taps, const Recipe& recipe = {}, size_t piece = 1000) {
  const ModelPlan& plan = checkpoint(model).plan;
  Backend& engine = backend(model, name);
  const auto cache = engine.new_cache(int(ids.size()));
  Output out;
  out.logits.resize(ids.size() * size_t(plan.vocab));
  out.frames.assign(ids.size(), make_frame(plan, recipe, CaptureLevel::kLogits, taps));
  for (size_t first = 0; first < ids.size(); first += piece) {
    const size_t count = std::min(piece, ids.size() - first);
    ForwardRequest request;
    request.tokens = ids.subspan(first, count);
    request.cache = cache.get();
    request.recipe = &recipe;
    request.rows = LogitRows::kAll;
    request.logits = std::span(out.logits).subspan(first * size_t(plan.vocab), count * size_t(plan.vocab));
    request.frames = std::span(out.frames).subspan(first, count);
    const auto done = engine.forward(request);
    if (!done) throw std::runtime_error(done.error().message());
  }
  return out;
}

class TapsOf : public ::testing::TestWithParam<std::string> {};

TEST_P(TapsOf, AgreeWithTransformers) {
  const auto golden = nlohmann::json::parse(std::ifstream(std::string(SWITCHYARD_SOURCE_DIR) + "/tests/data/taps.json"));
  const auto ids = golden["token_ids"].get<std::vector<TokenId>>();
  const Output out = run("demo", GetParam(), ids, kBoth);
  const ModelPlan& plan = checkpoint("demo").plan;
  for (const auto& layer : golden["layers"]) {
    const int row = int(std::find(plan.moe_layers.begin(), plan.moe_layers.end(), layer["layer"].get<int>()) - plan.moe_layers.begin());
    for (size_t t = 0; t < ids.size(); ++t) {
      const RoutingFrame& frame = out.frames[t];
      ASSERT_EQ(std::vector<int>(frame.used_ids(row).begin(), frame.used_ids(row).end()), layer["ids"][t].get<std::vector<int>>());
      for (size_t slot = 0; slot < frame.used_ids(row).size(); ++slot)
        ASSERT_NEAR(frame.out_norms(row)[slot], layer["out_norm"][t][slot].get<double>(), 1e-4 * layer["out_norm"][t][slot].get<double>() + 1e-6);
      ASSERT_NEAR(frame.block_cos(row), layer["block_cos"][t].get<double>(), 2e-6);
    }
  }
}

TEST_P(TapsOf, ChangeNothingElse) {
  for (const std::string model : {"demo", "mixtral", "gpt_oss", "llama4_text"}) {
    SCOPED_TRACE(model);
    const std::vector<TokenId> ids = {5, 9, 7, 30, 12, 41, 8, 57, 15, 3};
    const Output without = run(model, GetParam(), ids, 0), with = run(model, GetParam(), ids, kBoth);
    ASSERT_EQ(without.logits, with.logits);
    for (size_t t = 0; t < ids.size(); ++t)
      for (int row = 0; row < with.frames[t].rows(); ++row) {
        ASSERT_TRUE(std::ranges::equal(with.frames[t].ids(row), without.frames[t].ids(row)));
        ASSERT_TRUE(std::ranges::equal(with.frames[t].weights(row), without.frames[t].weights(row)));
        ASSERT_TRUE(std::ranges::equal(with.frames[t].logits(row), without.frames[t].logits(row)));
        ASSERT_TRUE(without.frames[t].out_norms(row).empty());
        ASSERT_TRUE(std::isnan(without.frames[t].block_cos(row)));
      }
  }
}

// In one piece or token by token; under edits that scale, mute and replace experts by other kinds.
TEST_P(TapsOf, FollowTheExpertThatRan) {
  const ModelPlan& plan = checkpoint("demo").plan;
  const std::vector<TokenId> ids = {5, 9, 7, 30, 12, 41, 8, 57, 15, 3};
  Recipe recipe;
  const Output plain = run("demo", GetParam(), ids, kBoth);
  const ExpertId first = plain.frames[4].used_ids(0)[0], second = plain.frames[4].used_ids(0)[1];
  const LayerSet here = layer_of_row(plan, 0);
  for (const Edit& edit : {Edit(ExpertScale{here, {first}, 3}), Edit(SetExpertKind{here, {second}, ExpertKind::kIdentity})}) {
    ASSERT_TRUE(validate(edit, plan, recipe));
    apply(edit, plan, recipe);
  }
  const Output whole = run("demo", GetParam(), ids, kBoth, recipe), pieces = run("demo", GetParam(), ids, kBoth, recipe, 1);
  // A scale is no part of what the expert gave; an identity gives its input, as long as that of any other token's.
  EXPECT_EQ(whole.frames[4].out_norms(0)[0], plain.frames[4].out_norms(0)[0]);
  EXPECT_NE(whole.frames[4].out_norms(0)[1], plain.frames[4].out_norms(0)[1]);
  EXPECT_NE(whole.frames[4].block_cos(0), plain.frames[4].block_cos(0));
  for (size_t t = 0; t < ids.size(); ++t)
    for (int row = 0; row < whole.frames[t].rows(); ++row) {
      EXPECT_NEAR(whole.frames[t].block_cos(row), pieces.frames[t].block_cos(row), 1e-5);
      for (size_t slot = 0; slot < whole.frames[t].used_ids(row).size(); ++slot)
        EXPECT_NEAR(whole.frames[t].out_norms(row)[slot], pieces.frames[t].out_norms(row)[slot], 1e-4 * whole.frames[t].out_norms(row)[slot]);
    }
}

// Experts with biases, weights on the input, identities, a scaled routed part, latent attention.
TEST(Taps, AreAlikeOnBothBackends) {
  if (backend_names().size() < 2) GTEST_SKIP() << "the reference backend is not built";
  for (const std::string model : {"demo", "mixtral", "gpt_oss", "llama4_text", "longcat_flash", "deepseek_v3"}) {
    SCOPED_TRACE(model);
    const std::vector<TokenId> ids = {5, 9, 7, 30, 12, 41, 8, 57, 15, 3};
    const Output a = run(model, "reference", ids, kBoth), b = run(model, "cpu", ids, kBoth);
    bool some = false;
    for (size_t t = 0; t < ids.size(); ++t)
      for (int row = 0; row < a.frames[t].rows(); ++row) {
        ASSERT_TRUE(std::ranges::equal(a.frames[t].used_ids(row), b.frames[t].used_ids(row)));
        for (size_t slot = 0; slot < a.frames[t].used_ids(row).size(); ++slot) {
          const float norm = a.frames[t].out_norms(row)[slot];
          ASSERT_NEAR(norm, b.frames[t].out_norms(row)[slot], 1e-4 * norm + 1e-6);
          some |= norm > 0;
        }
        const float ours = a.frames[t].block_cos(row), theirs = b.frames[t].block_cos(row);
        ASSERT_EQ(std::isnan(ours), std::isnan(theirs));
        if (!std::isnan(ours)) {
          ASSERT_NEAR(ours, theirs, 1e-5);
        }
      }
    EXPECT_TRUE(some);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, TapsOf, ::testing::ValuesIn(backend_names()));

}  // namespace
}  // namespace switchyard::testing
