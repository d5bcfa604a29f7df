// The cpu backend on the demo checkpoint: ids, logits and routing of transformers (expected.json beside
// it), and the promises that no number depends on threads, chunks, clones or a cancelled call.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"
#include "engine/routing/decision.h"

namespace switchyard {
namespace {

std::string with_sign(const Error& error) {
  return error.message();
}

struct Demo {
  Checkpoint checkpoint;
  std::shared_ptr<const WeightStore> weights;
  nlohmann::json expected;

  static const Demo& get() {
    static const Demo demo = [] {
      Demo d;
      auto checkpoint = open_checkpoint(SWITCHYARD_SOURCE_DIR "/assets/models/demo");
      if (!checkpoint) throw std::runtime_error(with_sign(checkpoint.error()));
      d.checkpoint = std::move(*checkpoint);
      auto weights = WeightStore::open(d.checkpoint);
      if (!weights) throw std::runtime_error(with_sign(weights.error()));
      d.weights = std::move(*weights);
      std::ifstream(SWITCHYARD_SOURCE_DIR "/assets/models/demo/expected.json") >> d.expected;
      return d;
    }();
    return demo;
  }
  std::unique_ptr<Backend> backend(int threads) const {
    auto made = make_cpu_backend(checkpoint.plan, weights, {.threads = threads}, nullptr);
    if (!made) throw std::runtime_error(with_sign(made.error()));
    return std::move(*made);
  }
  std::vector<TokenId> ids(const std::string& prompt) const { return expected["prompts"][prompt]["ids"]; }
  // A long text: all prompts end to end, cut to `length`.
  std::vector<TokenId> text(size_t length) const {
    std::vector<TokenId> out;
    while (out.size() < length)
      for (const auto& [name, prompt] : expected["prompts"].items())
        for (const TokenId id : prompt["ids"]) out.push_back(id);
    out.resize(length);
    return out;
  }
};

// A forward pass with all logits and full capture.
struct Pass {
  std::vector<float> logits;
  std::vector<RoutingFrame> frames;
};
Pass forward(Backend& backend, KvCache& cache, std::span<const TokenId> tokens, const Recipe& recipe = {},
             int slots = 4) {
  const ModelPlan& plan = Demo::get().checkpoint.plan;
  Pass pass;
  pass.logits.resize(tokens.size() * plan.vocab);
  pass.frames.assign(tokens.size(),
                     RoutingFrame(int(plan.moe_layers.size()), plan.max_experts(), slots, CaptureLevel::kLogits));
  const auto done = backend.forward({.tokens = tokens,
                                     .cache = &cache,
                                     .recipe = &recipe,
                                     .rows = LogitRows::kAll,
                                     .logits = pass.logits,
                                     .frames = pass.frames});
  if (!done) throw std::runtime_error(with_sign(done.error()));
  return pass;
}
Pass forward_in_pieces(Backend& backend, KvCache& cache, std::span<const TokenId> tokens,
                       const std::function<size_t(size_t)>& piece) {
  Pass all;
  for (size_t first = 0; first < tokens.size();) {
    const size_t count = std::min(piece(first), tokens.size() - first);
    Pass part = forward(backend, cache, tokens.subspan(first, count));
    all.logits.insert(all.logits.end(), part.logits.begin(), part.logits.end());
    for (auto& frame : part.frames) all.frames.push_back(std::move(frame));
    first += count;
  }
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
void expect_same_bits(const Pass& a, const Pass& b) {
  EXPECT_TRUE(same_bits(a.logits, b.logits));
  ASSERT_EQ(a.frames.size(), b.frames.size());
  for (size_t t = 0; t < a.frames.size(); ++t)
    ASSERT_TRUE(std::ranges::equal(a.frames[t].arena(), b.frames[t].arena())) << "frame " << t;
}

TokenId first_largest(const float* logits, int vocab) {
  return TokenId(std::max_element(logits, logits + vocab) - logits);
}

// SWITCHYARD_ISA for one scope.
class ForcedIsa {
 public:
  explicit ForcedIsa(cpu::Isa isa) {
    if (const char* value = std::getenv("SWITCHYARD_ISA")) before_ = value;
    setenv("SWITCHYARD_ISA", std::string(cpu::token(isa)).c_str(), 1);
  }
  ~ForcedIsa() {
    if (before_.empty())
      unsetenv("SWITCHYARD_ISA");
    else
      setenv("SWITCHYARD_ISA", before_.c_str(), 1);
  }

 private:
  std::string before_;
};

class CpuDemoIsa : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (!std::ranges::count(cpu::host_isas(), GetParam())) GTEST_SKIP() << "this machine has no " << name(GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(All, CpuDemoIsa, testing::Values(cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAmx),
                         [](const auto& info) { return std::string(token(info.param)); });

TEST_P(CpuDemoIsa, GivesTheIdsLogitsAndRoutesOfTransformers) {
  const ForcedIsa forced(GetParam());
  const Demo& demo = Demo::get();
  const ModelPlan& plan = demo.checkpoint.plan;
  const auto backend = demo.backend(2);
  EXPECT_NE(backend->info().detail.find(name(GetParam())), std::string::npos);
  ASSERT_EQ(demo.expected["prompts"].size(), 14u);
  float worst = 0;
  for (const auto& [prompt, expected] : demo.expected["prompts"].items()) {
    const std::vector<TokenId> ids = expected["ids"];
    const auto cache = backend->new_cache(256);
    const Pass pass = forward(*backend, *cache, ids);
    const float* last = pass.logits.data() + (ids.size() - 1) * plan.vocab;
    for (int i = 0; i < plan.vocab; ++i)
      worst = std::max(worst, std::abs(last[i] - expected["last_logits"][i].get<float>()));

    for (size_t row = 0; row < plan.moe_layers.size(); ++row) {
      const auto& routing = expected["routing"][row];
      ASSERT_EQ(routing["layer"], plan.moe_layers[row]);
      for (size_t t = 0; t < ids.size(); ++t) {
        const auto used = pass.frames[t].used_ids(int(row));
        ASSERT_EQ(std::vector<int>(used.begin(), used.end()), routing["experts"][t].get<std::vector<int>>())
            << prompt << " layer " << row << " token " << t;
        for (size_t slot = 0; slot < used.size(); ++slot)
          ASSERT_NEAR(pass.frames[t].weights(int(row))[slot], routing["weights"][t][slot].get<float>(), 1e-4);
      }
    }

    std::vector<TokenId> generated;
    std::vector<float> logits(last, last + plan.vocab);
    const Recipe native;
    while (generated.size() < expected["greedy_ids"].size()) {
      generated.push_back(first_largest(logits.data(), plan.vocab));
      ASSERT_TRUE(backend->forward(
          {.tokens = {&generated.back(), 1}, .cache = cache.get(), .recipe = &native, .logits = logits}));
    }
    EXPECT_EQ(generated, expected["greedy_ids"].get<std::vector<TokenId>>()) << prompt;
  }
  EXPECT_LT(worst, 2e-3f);
  RecordProperty("worst_logit_difference", std::to_string(worst));
}

TEST_P(CpuDemoIsa, BitsDoNotDependOnTheNumberOfThreads) {
  const ForcedIsa forced(GetParam());
  const Demo& demo = Demo::get();
  const std::vector<TokenId> prompt = demo.text(150), rest = demo.text(8);
  const auto run = [&](int threads) {
    const auto backend = demo.backend(threads);
    const auto cache = backend->new_cache(200);
    Pass pass = forward(*backend, *cache, prompt);
    const Pass decoded = forward_in_pieces(*backend, *cache, rest, [](size_t) { return 1; });
    pass.logits.insert(pass.logits.end(), decoded.logits.begin(), decoded.logits.end());
    pass.frames.insert(pass.frames.end(), decoded.frames.begin(), decoded.frames.end());
    return pass;
  };
  const Pass one = run(1);
  for (const int threads : {2, 3, 5}) expect_same_bits(one, run(threads));
}

TEST_P(CpuDemoIsa, BitsDoNotDependOnTheChunksOfAPrompt) {
  const ForcedIsa forced(GetParam());
  const Demo& demo = Demo::get();
  const std::vector<TokenId> tokens = demo.text(600);  // more than one chunk and one span of keys
  const auto backend = demo.backend(2);
  const auto whole_cache = backend->new_cache(600);
  const Pass whole = forward(*backend, *whole_cache, tokens);
  for (const auto& piece : std::vector<std::function<size_t(size_t)>>{
           [](size_t) { return 1; }, [](size_t) { return 7; }, [](size_t first) { return first % 97 + 3; }}) {
    const auto cache = backend->new_cache(600);
    expect_same_bits(whole, forward_in_pieces(*backend, *cache, tokens, piece));
  }
}

TEST(CpuDemo, LastAndNoLogitsAreThoseOfAll) {
  const Demo& demo = Demo::get();
  const std::vector<TokenId> tokens = demo.text(530);
  const auto backend = demo.backend(2);
  const auto a = backend->new_cache(600), b = backend->new_cache(600);
  const Pass all = forward(*backend, *a, tokens);
  const Recipe native;
  std::vector<float> last(demo.checkpoint.plan.vocab);
  ASSERT_TRUE(backend->forward(
      {.tokens = std::span(tokens).first(20), .cache = b.get(), .recipe = &native, .rows = LogitRows::kNone}));
  ASSERT_TRUE(
      backend->forward({.tokens = std::span(tokens).subspan(20), .cache = b.get(), .recipe = &native, .logits = last}));
  EXPECT_EQ(b->length(), 530);
  EXPECT_TRUE(same_bits(last, {all.logits.end() - demo.checkpoint.plan.vocab, all.logits.end()}));
}

TEST(CpuDemo, CaptureLevelsChangeNothingElse) {
  const Demo& demo = Demo::get();
  const ModelPlan& plan = demo.checkpoint.plan;
  const std::vector<TokenId> tokens = demo.text(40);
  const auto backend = demo.backend(2);
  const Recipe native;
  std::vector<float> reference;
  for (const CaptureLevel level :
       {CaptureLevel::kOff, CaptureLevel::kIds, CaptureLevel::kWeights, CaptureLevel::kLogits}) {
    const auto cache = backend->new_cache(64);
    std::vector<RoutingFrame> frames(tokens.size(),
                                     RoutingFrame(int(plan.moe_layers.size()), plan.max_experts(), 4, level));
    std::vector<float> logits(tokens.size() * plan.vocab);
    ASSERT_TRUE(backend->forward({.tokens = tokens,
                                  .cache = cache.get(),
                                  .recipe = &native,
                                  .rows = LogitRows::kAll,
                                  .logits = logits,
                                  .frames = frames}));
    if (reference.empty()) reference = logits;
    EXPECT_TRUE(same_bits(reference, logits));
    EXPECT_EQ(frames[3].layer(2).k_used, level == CaptureLevel::kOff ? 0 : 4);
  }
}

TEST(CpuDemo, TruncatingAndGoingOnAnotherWayForgetsTheFirst) {
  const Demo& demo = Demo::get();
  const std::vector<TokenId> tokens = demo.text(200), other = demo.ids("json");
  const auto backend = demo.backend(2);
  for (const int kept : {0, 1, 63, 64, 65, 130}) {
    const auto cache = backend->new_cache(300), fresh = backend->new_cache(300);
    forward(*backend, *cache, tokens);
    cache->truncate(kept);
    EXPECT_EQ(cache->length(), kept);
    if (kept > 0) forward(*backend, *fresh, std::span(tokens).first(kept));
    expect_same_bits(forward(*backend, *cache, other), forward(*backend, *fresh, other));
  }
}

TEST(CpuDemo, ClonesGoTheirOwnWayWithoutCopyingThePast) {
  const Demo& demo = Demo::get();
  const std::vector<TokenId> past = demo.text(100), left = demo.ids("json"), right = demo.ids("cpp");
  const auto backend = demo.backend(2);
  const auto cache = backend->new_cache(300), straight_left = backend->new_cache(300),
             straight_right = backend->new_cache(300);
  forward(*backend, *cache, past);
  const auto clone = cache->clone();
  EXPECT_EQ(clone->length(), 100);
  EXPECT_EQ(clone->capacity(), 300);
  const Pass a = forward(*backend, *cache, left), b = forward(*backend, *clone, right);
  const Pass a_again = forward(*backend, *cache, right);
  forward(*backend, *straight_left, past);
  forward(*backend, *straight_right, past);
  expect_same_bits(a, forward(*backend, *straight_left, left));
  expect_same_bits(b, forward(*backend, *straight_right, right));
  expect_same_bits(a_again, forward(*backend, *straight_left, right));
}

TEST(CpuDemo, TheCacheTakesMemoryAsItFills) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(1);
  const auto cache = backend->new_cache(1 << 20);
  EXPECT_EQ(cache->bytes(), 0u);
  forward(*backend, *cache, demo.text(65));
  // 8 layers x 2 kv heads x 32 x (key and value) floats for each token of two blocks of 64.
  EXPECT_EQ(cache->bytes(), 2u * 64 * 8 * 2 * 32 * 2 * 4);
  cache->truncate(64);
  EXPECT_EQ(cache->bytes(), 1u * 64 * 8 * 2 * 32 * 2 * 4);
}

TEST(CpuDemo, ACancelledCallLeavesTheCacheAsItWas) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(2);
  const auto cache = backend->new_cache(300), untouched = backend->new_cache(300);
  const std::vector<TokenId> past = demo.text(70), more = demo.ids("python");
  forward(*backend, *cache, past);
  forward(*backend, *untouched, past);
  Task task;
  task.cancel();
  const Recipe native;
  const auto stopped = backend->forward(
      {.tokens = more, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone, .task = &task});
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(cache->length(), 70);
  expect_same_bits(forward(*backend, *cache, more), forward(*backend, *untouched, more));
}

TEST(CpuDemo, AFullContextIsRefusedAndNothingChanges) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(1);
  const auto cache = backend->new_cache(10);
  const std::vector<TokenId> tokens = demo.text(11);
  const Recipe native;
  const auto refused =
      backend->forward({.tokens = tokens, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_EQ(cache->length(), 0);
}

TEST(CpuDemo, ACacheOfAnotherBackendIsRefused) {
  const Demo& demo = Demo::get();
  const auto one = demo.backend(1), two = demo.backend(1);
  const auto cache = one->new_cache(10);
  const Recipe native;
  const auto refused =
      two->forward({.tokens = demo.text(2), .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInternal);
}

Recipe empty_recipe() {
  Recipe recipe;
  recipe.layers.resize(Demo::get().checkpoint.plan.moe_layers.size());
  return recipe;
}

TEST(CpuDemo, TheIdentityRecipeGivesTheBitsOfNoRecipe) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(2);
  const std::vector<TokenId> tokens = demo.text(60);
  Recipe identity = empty_recipe();
  for (LayerRecipe& layer : identity.layers) {
    layer.expert_scale.assign(32, 1.0f);
    layer.logit_bias.assign(32, 0.0f);
    layer.row_scale.assign(32, 1.0f);
    layer.muted.assign(32, 0);
    layer.forced.assign(32, 0);
  }
  const auto a = backend->new_cache(64), b = backend->new_cache(64);
  expect_same_bits(forward(*backend, *a, tokens), forward(*backend, *b, tokens, identity));
}

TEST(CpuDemo, AMutedExpertIsNeverRun) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(2);
  const std::vector<TokenId> tokens = demo.text(60);
  const auto a = backend->new_cache(64);
  const Pass native = forward(*backend, *a, tokens);
  const ExpertId muted = native.frames[10].ids(5)[0];
  Recipe recipe = empty_recipe();
  recipe.layers[5].muted.assign(32, 0);
  recipe.layers[5].muted[muted] = 1;
  const auto b = backend->new_cache(64);
  const Pass edited = forward(*backend, *b, tokens, recipe);
  for (const RoutingFrame& frame : edited.frames) EXPECT_FALSE(std::ranges::count(frame.used_ids(5), muted));
  EXPECT_FALSE(same_bits(native.logits, edited.logits));
}

// Scaling an expert's output by zero takes it from the sum but not from the record.
TEST(CpuDemo, ExpertScaleChangesTheOutputNotTheRecordedWeight) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(2);
  const std::vector<TokenId> tokens = demo.text(60);
  const auto a = backend->new_cache(64), b = backend->new_cache(64);
  const Pass native = forward(*backend, *a, tokens);
  Recipe recipe = empty_recipe();
  recipe.layers[7].expert_scale.assign(32, 0.0f);  // the last layer: its routing comes before the edit's effect
  const Pass edited = forward(*backend, *b, tokens, recipe);
  for (size_t t = 0; t < tokens.size(); ++t) {
    EXPECT_TRUE(std::ranges::equal(native.frames[t].weights(7), edited.frames[t].weights(7)));
    EXPECT_TRUE(std::ranges::equal(native.frames[t].ids(7), edited.frames[t].ids(7)));
  }
  EXPECT_FALSE(same_bits(native.logits, edited.logits));
}

TEST(CpuDemo, SetThreadsTakesEffectAtTheNextCall) {
  const Demo& demo = Demo::get();
  const auto backend = demo.backend(1);
  const std::vector<TokenId> tokens = demo.text(30);
  const auto a = backend->new_cache(64), b = backend->new_cache(64);
  const Pass one = forward(*backend, *a, tokens);
  backend->set_threads(3);
  EXPECT_NE(backend->info().detail.find("3 threads"), std::string::npos);
  expect_same_bits(one, forward(*backend, *b, tokens));
}

}  // namespace
}  // namespace switchyard
