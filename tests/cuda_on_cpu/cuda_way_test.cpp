// What a step does beside running every layer once: replaced router rows and merged experts, layer paths, parts of a
// model, taps and measurements, with the numbers of the cpu backend.
#include <functional>
#include <random>
#include <tuple>

#include "engine/backend/cuda/model.h"
#include "tests/cuda_on_cpu/runs.h"

namespace switchyard::cuda::testing {
namespace {

TEST(EditedWeightsOnDevice, AreTheCpuBackendsNumbers) {
  for (const std::string name : {"olmoe_bf16", "gpt_oss", "mixtral_f16", "qwen2_moe"}) {
    const OpenModel& on = model(name);
    const auto experts = size_t(on.plan().routed(0).router.experts);
    std::vector<std::pair<std::string, Recipe>> recipes;
    const auto edit = [&](const std::string& what, const std::function<void(LayerRecipe&)>& change) {
      Recipe recipe = empty_recipe(on.plan());
      for (LayerRecipe& layer : recipe.layers) change(layer);
      recipes.emplace_back(name + ", " + what, recipe);
    };
    edit("merged experts", [&](LayerRecipe& layer) {
      layer.mixes.resize(experts), layer.unit_masks.resize(experts);
      layer.mixes[0] = {{0, 0.5f}, {1, 0.25f}, {2, 0.25f}}, layer.mixes[1] = {{3, 0.7f}}, layer.mixes[2] = {{0, 1.0f}};
      layer.mixes[3] = layer.mixes[0];
      layer.unit_masks[0] = {1, 2};
    });
    const auto values = std::make_shared<std::vector<float>>();
    std::mt19937 random(4);
    for (int i = 0; i < on.plan().hidden; ++i) values->push_back(std::normal_distribution<float>(0, 0.3f)(random));
    const auto replace = [&](LayerRecipe& layer) {
      layer.router_rows.resize(experts);
      layer.router_rows[0] = {.kind = RowSource::Kind::kCopy, .expert = 2, .values = nullptr};
      layer.router_rows[1] = {.kind = RowSource::Kind::kRotate, .expert = 3, .degrees = 40, .values = nullptr};
      layer.router_rows[2] = {.kind = RowSource::Kind::kValues, .values = values};
    };
    edit("router rows", replace);
    edit("cosines to replaced rows", [&](LayerRecipe& layer) {
      replace(layer);
      layer.scheme = make_scheme({"prototype", {}})->of_layer(0);
    });
    const Pass native = run(on, device(name), {});
    for (const auto& [what, recipe] : recipes) {
      const Pass edited = run(on, device(name), recipe);
      expect_alike(edited, run(on, *on.cpu, recipe), what, 4e-4);
      EXPECT_FALSE(same_bits(native.logits, edited.logits)) << what;
    }
    EXPECT_TRUE(same_bits(native.logits, run(on, device(name), {}).logits)) << name;
  }
}

TEST(PathsOnDevice, AreTheCpuBackendsNumbers) {
  for (const std::string name : {"olmoe_bf16", "deepseek_v3", "gpt_oss"}) {
    const OpenModel& on = model(name);
    const size_t layers = on.plan().layers.size();
    std::vector<std::vector<uint8_t>> paths{std::vector<uint8_t>(layers, 1), std::vector<uint8_t>(layers, 2),
                                            std::vector<uint8_t>(layers, 1)};
    paths[0].back() = 0;
    paths[1][0] = 3;
    paths[2][layers / 2] = 2, paths[2][0] = 0;
    for (size_t i = 0; i < paths.size(); ++i)
      for (const bool scheme : {false, true}) {
        Recipe recipe = scheme ? with_scheme(on.plan(), *make_scheme({"similarity", {}})) : empty_recipe(on.plan());
        recipe.path.passes = paths[i];
        const Pass got = run(on, device(name), recipe);
        expect_alike(got, run(on, *on.cpu, recipe), name + ", path " + std::to_string(i), 6e-4);
        EXPECT_FALSE(same_bits(got.logits, run(on, device(name), {}).logits));
      }
    // A sequence keeps its path; another one has its own keys.
    Recipe twice = empty_recipe(on.plan());
    twice.path.passes = paths[1];
    const auto cache = device(name).new_cache(64);
    const auto ids = text(on.plan(), 6);
    const Pass first = on.forward(device(name), *cache, ids, twice);
    EXPECT_TRUE(std::ranges::equal(cache->path(), twice.path.passes));
    const Recipe native;
    EXPECT_FALSE(
        device(name).forward({.tokens = ids, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone}));
    const auto branch = cache->clone();
    EXPECT_EQ(cache->truncate(0), 0);
    EXPECT_TRUE(same_bits(run(on, device(name), native).logits, run(on, device(name), native).logits));
    EXPECT_TRUE(same_bits(first.logits, on.forward(device(name), *cache, ids, twice).logits));
    EXPECT_EQ(branch->length(), 6);
  }
}

TEST(PathsOnDevice, KeepKeysForEveryPass) {
  const ModelPlan& plan = model("olmoe_bf16").plan();
  const std::vector<uint8_t> passes(plan.layers.size(), 3), none(plan.layers.size(), 0);
  const uint64_t once = estimate_card(plan, 100, 0).keys;
  EXPECT_GT(once, 0u);
  EXPECT_EQ(estimate_card(plan, 100, 0, passes).keys, 3 * once);
  EXPECT_EQ(estimate_card(plan, 100, 0, none).keys, 0u);
}

TEST(PartsOnDevice, OfAModelMakeTheWhole) {
  const OpenModel& on = model("olmoe_bf16");
  CudaBackend& backend = device("olmoe_bf16");
  const auto hidden = size_t(on.plan().hidden), vocab = size_t(on.plan().vocab);
  const int layers = int(on.plan().layers.size());
  const Recipe native;
  for (const int count : {5, 1}) {
    const auto ids = text(on.plan(), count);
    const auto whole = backend.new_cache(32), lower = backend.new_cache(32), upper = backend.new_cache(32);
    const Pass all = on.forward(backend, *whole, ids);
    std::vector<float> between(size_t(count) * hidden), logits(size_t(count) * vocab);
    value_of(backend.forward({.tokens = ids,
                              .cache = lower.get(),
                              .recipe = &native,
                              .rows = LogitRows::kNone,
                              .end_layer = 1,
                              .hidden = between}));
    value_of(backend.forward({.tokens = ids,
                              .cache = upper.get(),
                              .recipe = &native,
                              .rows = LogitRows::kAll,
                              .logits = logits,
                              .first_layer = 1,
                              .end_layer = layers,
                              .hidden = between}));
    EXPECT_TRUE(same_bits(all.logits, logits)) << count;
    // Experts off in layer 1, here and there.
    std::vector<uint8_t> off(size_t(layers), 0);
    off[1] = 1;
    const auto here = backend.new_cache(32), there = on.cpu->new_cache(32);
    std::vector<float> expected(logits.size());
    for (const auto& [engine, cache, out] :
         {std::tuple<Backend*, KvCache*, std::vector<float>*>(&backend, here.get(), &logits),
          {on.cpu.get(), there.get(), &expected}})
      value_of(engine->forward({.tokens = ids,
                                .cache = cache,
                                .recipe = &native,
                                .rows = LogitRows::kAll,
                                .logits = *out,
                                .experts_off = off}));
    for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 2e-4);
    EXPECT_FALSE(same_bits(all.logits, logits));
  }
}

struct Inputs final : RouterTap {
  void see(int row, size_t token, std::span<const float> input) override {
    seen[{row, int(token), 0}].assign(input.begin(), input.end());
  }
  std::map<std::tuple<int, int, int>, std::vector<float>> seen;
};
struct Units final : UnitTap {
  void take(int row, ExpertId expert, int token, std::span<const float> units) override {
    seen[{row, token, expert}].assign(units.begin(), units.end());
  }
  std::map<std::tuple<int, int, int>, std::vector<float>> seen;
};

// Inputs, units, norms and cosines are the cpu backend's; the run is bit for bit what it is without them.
TEST(TapsOnDevice, SeeWhatTheCpuBackendSees) {
  for (const std::string name : {"olmoe_bf16", "qwen2_moe", "deepseek_v3", "llama4_text", "gpt_oss"}) {
    SCOPED_TRACE(name);
    const OpenModel& on = model(name);
    Recipe recipe = empty_recipe(on.plan());
    recipe.layers[0].expert_scale.assign(size_t(on.plan().routed(0).router.experts), 0.7f);
    for (const bool scheme : {false, true}) {
      if (scheme)
        recipe.layers.back().scheme = make_scheme({"chain_of_experts", {}})->of_layer(on.plan().moe_layers.back());
      Inputs inputs[2];
      Units units[2];
      Pass passes[2];
      int side = 0;
      for (Backend* engine : {static_cast<Backend*>(&device(name)), on.cpu.get()}) {
        const auto cache = engine->new_cache(64);
        const auto ids = text(on.plan(), 8);
        for (const auto& [first, count] : {std::pair<size_t, size_t>(0, 6), {6, 1}, {7, 1}}) {
          Pass pass;
          pass.logits.resize(count * size_t(on.plan().vocab));
          pass.frames.assign(count,
                             make_frame(on.plan(), recipe, CaptureLevel::kLogits, Taps::kOutNorm | Taps::kBlockCos));
          Inputs seen;
          Units taken;
          value_of(engine->forward({.tokens = std::span(ids).subspan(first, count),
                                    .cache = cache.get(),
                                    .recipe = &recipe,
                                    .rows = LogitRows::kAll,
                                    .logits = pass.logits,
                                    .frames = pass.frames,
                                    .tap = &seen,
                                    .units = &taken}));
          const auto keep = [&](auto& from, auto& to) {
            for (auto& [key, values] : from)
              to[{std::get<0>(key), std::get<1>(key) + int(first), std::get<2>(key)}] = values;
          };
          keep(seen.seen, inputs[side].seen), keep(taken.seen, units[side].seen);
          append(passes[side], std::move(pass));
        }
        ++side;
      }
      expect_alike(passes[0], passes[1], name, 4e-4);
      const auto same = [&](const auto& a, const auto& b) {
        ASSERT_EQ(a.seen.size(), b.seen.size());
        EXPECT_GT(a.seen.size(), 0u);
        for (const auto& [key, values] : a.seen) {
          const auto& other = b.seen.at(key);
          ASSERT_EQ(values.size(), other.size());
          for (size_t i = 0; i < values.size(); ++i)
            ASSERT_NEAR(values[i], other[i], 2e-4 * std::max(1.0f, std::abs(other[i])));
        }
      };
      same(inputs[0], inputs[1]), same(units[0], units[1]);
      int measured = 0;
      for (size_t t = 0; t < passes[0].frames.size(); ++t)
        for (int row = 0; row < passes[0].frames[t].rows(); ++row) {
          const auto a = passes[0].frames[t].out_norms(row), b = passes[1].frames[t].out_norms(row);
          for (size_t slot = 0; slot < a.size(); ++slot) {
            ASSERT_NEAR(a[slot], b[slot], 2e-4 * std::max(1.0f, b[slot]));
            measured += a[slot] > 0;
          }
          const float cosine = passes[0].frames[t].block_cos(row), other = passes[1].frames[t].block_cos(row);
          ASSERT_EQ(std::isnan(cosine), std::isnan(other)) << "token " << t << " row " << row;
          if (std::isnan(cosine)) continue;
          ASSERT_NEAR(cosine, other, 1e-5);
        }
      EXPECT_GE(measured, 8);
      // The same run without anybody looking.
      const auto cache = device(name).new_cache(64);
      const auto ids = text(on.plan(), 8);
      Pass plain = on.forward(device(name), *cache, std::span(ids).first(6), recipe);
      append(plain, on.one_by_one(device(name), *cache, std::span(ids).subspan(6), recipe));
      EXPECT_TRUE(same_bits(plain.logits, passes[0].logits));
      for (size_t t = 0; t < plain.frames.size(); ++t)
        for (int row = 0; row < plain.frames[t].rows(); ++row)
          EXPECT_TRUE(std::ranges::equal(plain.frames[t].weights(row), passes[0].frames[t].weights(row)));
    }
  }
}

}  // namespace
}  // namespace switchyard::cuda::testing
