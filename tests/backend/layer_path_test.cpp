// Layer paths on every backend. Expected: transformers on a model with the path's layers (tests/data/layer_paths.json,
// made by tests/goldens/make_layer_paths.py); bit for bit the same backend on a plan that holds those layers one after
// the other, which knows nothing of paths; and no path at all where every layer runs once.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>

#include "engine/backend/layer_probe.h"
#include "engine/routing/edit.h"
#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

std::vector<TokenId> text(const ModelPlan& plan, int tokens = 70) {
  std::vector<TokenId> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back(TokenId(4 + (i * 37 + i * i) % (plan.vocab - 4)));
  return ids;
}

ModelPlan walked(const ModelPlan& plan, const std::vector<uint8_t>& passes) {
  ModelPlan out = plan;
  out.layers.clear();
  out.rows.clear();
  out.moe_layers.clear();
  out.encoder_layers = 0;
  for (const int layer : path_of(passes, int(plan.layers.size()))) {
    out.layers.push_back(plan.layers[size_t(layer)]);
    if (layer < plan.encoder_layers) ++out.encoder_layers;
  }
  number_rows(out);
  return out;
}

std::unique_ptr<Backend> backend_of(const ModelPlan& plan, const std::string& model, const std::string& name) {
  Checkpoint other = checkpoint(model);
  other.plan = plan;
  auto weights = WeightStore::open(other);
  EXPECT_TRUE(weights);
  auto made = make_backend(name, other, *weights, {.threads = 2});
  EXPECT_TRUE(made) << made.error().message();
  return std::move(*made);
}

Output run(Backend& backend, const ModelPlan& plan, KvCache& cache, const Recipe& recipe,
           std::span<const TokenId> tokens, bool encode = false) {
  Output out{.logits = std::vector<float>(encode ? 0 : tokens.size() * size_t(plan.vocab)),
             .frames = blank_frames(plan, recipe, tokens.size())};
  const auto done = backend.forward({.tokens = tokens,
                                     .encode = encode,
                                     .cache = &cache,
                                     .recipe = &recipe,
                                     .rows = encode ? LogitRows::kNone : LogitRows::kAll,
                                     .logits = out.logits,
                                     .frames = out.frames});
  EXPECT_TRUE(done) << done.error().message();
  return out;
}

// The rows that were passed are, in the order of execution, those of the walked plan.
void expect_rows(const std::vector<RoutingFrame>& frames, const std::vector<RoutingFrame>& want, const ModelPlan& plan,
                 const Recipe& recipe, const ModelPlan& want_plan, const Recipe& want_recipe) {
  const std::vector<DecisionRow> rows = decision_rows(plan, recipe), want_rows = decision_rows(want_plan, want_recipe);
  ASSERT_EQ(rows.size(), want_rows.size());
  for (size_t t = 0; t < frames.size(); ++t) {
    size_t passed = 0;
    for (int row = 0; row < frames[t].rows(); ++row) passed += frames[t].passed(row);
    EXPECT_EQ(passed, rows.size()) << "token " << t;
    for (size_t i = 0; i < rows.size(); ++i) {
      const int row = rows[i].row, other = want_rows[i].row;
      EXPECT_TRUE(frames[t].passed(row)) << "token " << t << " " << rows[i].name;
      EXPECT_TRUE(std::ranges::equal(frames[t].ids(row), want[t].ids(other)));
      EXPECT_TRUE(std::ranges::equal(frames[t].weights(row), want[t].weights(other)));
      EXPECT_TRUE(std::ranges::equal(frames[t].logits(row), want[t].logits(other)));
    }
  }
}

// Repeats every layer in turn, skips every layer in turn, and both.
std::vector<std::vector<uint8_t>> paths(size_t layers) {
  std::vector<std::vector<uint8_t>> out;
  for (size_t i = 0; i < layers; ++i)
    for (const int n : {0, 2}) {
      std::vector<uint8_t> passes(layers, 1);
      passes[i] = uint8_t(n);
      if (n > 0) passes[(i + 1) % layers] = uint8_t(3 * (i % 2));
      out.push_back(std::move(passes));
    }
  return out;
}

std::vector<std::string> models() {
  // One of each kind of mixer and of residual rule, and two routers in a layer.
  return {"olmoe",  "qwen3_moe", "gpt_oss",    "deepseek_v2", "granitemoe", "longcat_flash",
          "jetmoe", "jamba",     "qwen3_next", "minimax",     "lfm2_moe",   "doge"};
}

class LayerPaths : public ::testing::TestWithParam<std::string> {};

// Bit for bit, in pieces and token by token, so that every pass keeps keys, values and state of its own.
TEST_P(LayerPaths, AgreeWithACheckpointOfThoseLayers) {
  const ModelPlan& plan = checkpoint(GetParam()).plan;
  const auto ids = text(plan);
  for (const std::string& name : backend_names()) {
    if (name == "cpu" && !missing_on_cpu(plan).empty()) continue;
    Backend& ours = backend(GetParam(), name);
    for (const std::vector<uint8_t>& passes : paths(plan.layers.size())) {
      SCOPED_TRACE(name + ", " + describe(LayerPath{passes}));
      const Recipe recipe{.path = {.passes = passes}}, native;
      const ModelPlan want_plan = walked(plan, passes);
      const auto theirs = backend_of(want_plan, GetParam(), name);
      const auto cache = ours.new_cache(128), want_cache = theirs->new_cache(128);
      for (size_t from = 0; from < ids.size();) {
        const size_t count =
            plan.couples_tokens() ? ids.size() : std::min<size_t>(from < 40 ? 33 : 1, ids.size() - from);
        const auto piece = std::span(ids).subspan(from, count);
        const Output got = run(ours, plan, *cache, recipe, piece),
                     want = run(*theirs, want_plan, *want_cache, native, piece);
        EXPECT_EQ(largest_difference(got.logits, want.logits), 0) << "from token " << from;
        expect_rows(got.frames, want.frames, plan, recipe, want_plan, native);
        from += count;
      }
      EXPECT_EQ(cache->bytes(), want_cache->bytes()) << "keys of skipped layers take no room, those of each pass do";
    }
  }
}

TEST_P(LayerPaths, EveryLayerOnceIsTheModelItself) {
  const ModelPlan& plan = checkpoint(GetParam()).plan;
  const auto ids = text(plan, 20);
  for (const std::string& name : backend_names()) {
    if (name == "cpu" && !missing_on_cpu(plan).empty()) continue;
    Recipe recipe;
    apply(LayerPath{std::vector<uint8_t>(plan.layers.size(), 1)}, plan, recipe);
    EXPECT_TRUE(recipe.is_identity());
    Sequence plain(GetParam(), name), once(GetParam(), name, recipe),
        by_hand(GetParam(), name, {.path = {.passes = std::vector<uint8_t>(plan.layers.size(), 1)}});
    const Output want = plain.feed(ids);
    EXPECT_TRUE(identical(want, once.feed(ids)));
    EXPECT_TRUE(identical(want, by_hand.feed(ids))) << "through the code of paths too";
  }
}

// The logit lens sees every pass, and no layer that is skipped.
TEST_P(LayerPaths, TheLensSeesEveryPass) {
  if (backend_names() == std::vector<std::string>{"cpu"}) GTEST_SKIP() << "the reference backend is not built";
  const ModelPlan& plan = checkpoint(GetParam()).plan;
  const auto ids = text(plan, 12);
  struct Seen {
    int sublayer;
    std::vector<float> logits;
    bool operator==(const Seen&) const = default;
  };
  const auto see = [&](Backend& backend, const Recipe& recipe, std::vector<LayerProbe::Place>& places) {
    std::vector<Seen> out;
    const auto done = dynamic_cast<LayerProbe&>(backend).lens(ids, recipe, 9, [&](const LayerProbe::Place& place, size_t token, std::span<const float> logits) {
      EXPECT_EQ(token, 9u);
      places.push_back(place);
      out.push_back({place.sublayer, {logits.begin(), logits.end()}});
    }, nullptr);
    EXPECT_TRUE(done) << done.error().message();
    return out;
  };
  for (const std::vector<uint8_t>& passes : paths(plan.layers.size())) {
    SCOPED_TRACE(describe(LayerPath{passes}));
    const Recipe recipe{.path = {.passes = passes}};
    const auto theirs = backend_of(walked(plan, passes), GetParam(), "reference");
    std::vector<LayerProbe::Place> places, theirs_places;
    EXPECT_EQ(see(backend(GetParam(), "reference"), recipe, places), see(*theirs, {}, theirs_places));
    std::vector<int> layers;
    for (const LayerProbe::Place& place : places)
      if (place.sublayer == 0) {
        layers.push_back(place.layer);
        EXPECT_EQ(place.pass, std::count(layers.begin(), layers.end(), place.layer) - 1);
      }
    EXPECT_EQ(layers, path_of(passes, int(plan.layers.size())));
  }
}

// What a scheme keeps of a sequence, it keeps for each pass: the memory of earlier tokens (similarity, attention), what
// was chosen once (union_of_experts); and its own passes stand within those of the layer (chain_of_experts).
TEST(LayerPathSchemes, KeepWhatEachPassDecides) {
  for (const std::string model : {"olmoe", "deepseek_v2"}) {
    const ModelPlan& plan = checkpoint(model).plan;
    const auto ids = text(plan, 30);
    for (const SchemeChoice& choice : {SchemeChoice{"similarity", {{"lambda", 0.6}, {"window", 9.0}}},
                                       SchemeChoice{"attention", {{"lambda", 0.6}, {"window", 9.0}}},
                                       SchemeChoice{"chain_of_experts", {{"iterations", 2.0}}},
                                       SchemeChoice{"union_of_experts", {{"selection", std::string("sequence")}}}}) {
      const SetScheme scheme{{}, make_scheme(choice).value()};
      for (const std::string& name : backend_names())
        for (const std::vector<uint8_t>& passes : paths(plan.layers.size())) {
          SCOPED_TRACE(model + ", " + choice.name + ", " + name + ", " + describe(LayerPath{passes}));
          const ModelPlan want_plan = walked(plan, passes);
          Recipe recipe, want_recipe;
          apply(scheme, plan, recipe);
          apply(LayerPath{passes}, plan, recipe);
          apply(scheme, want_plan, want_recipe);
          Backend& ours = backend(model, name);
          const auto theirs = backend_of(want_plan, model, name);
          const auto cache = ours.new_cache(64), want_cache = theirs->new_cache(64);
          for (size_t from = 0; from < ids.size();) {
            const auto piece = std::span(ids).subspan(from, from == 0 ? 17 : 1);
            const Output got = run(ours, plan, *cache, recipe, piece),
                         want = run(*theirs, want_plan, *want_cache, want_recipe, piece);
            EXPECT_EQ(largest_difference(got.logits, want.logits), 0) << "from token " << from;
            expect_rows(got.frames, want.frames, plan, recipe, want_plan, want_recipe);
            from += piece.size();
          }
          EXPECT_EQ(cache->bytes(), want_cache->bytes());
        }
    }
  }
}

// Left out, a layer is as if the checkpoint had none; repeated, it is applied twice. At once, and token by token: the
// keys, values and states of the passes are then those of a cache, which the expected numbers know nothing of.
TEST(LayerPathNumbers, AreThoseOfTransformers) {
  std::ifstream file(std::string(SWITCHYARD_SOURCE_DIR) + "/tests/data/layer_paths.json");
  const auto all = nlohmann::json::parse(file);
  ASSERT_EQ(all.at("models").size(), 10u);
  std::map<std::string, double> largest;
  for (const auto& [model, of] : all["models"].items()) {
    const ModelPlan& plan = checkpoint(model).plan;
    const auto ids = of.at("ids").get<std::vector<TokenId>>();
    for (const std::string& name : backend_names()) {
      if (name == "cpu" && !missing_on_cpu(plan).empty()) continue;
      for (const auto& one : of.at("cases")) {
        std::vector<uint8_t> passes(plan.layers.size(), 0);
        for (const size_t layer : one.at("path")) ++passes[layer];
        SCOPED_TRACE(model + ", " + name + ", " + describe(LayerPath{passes}));
        std::vector<float> want;
        for (const auto& row : one.at("logits"))
          for (const float value : row) want.push_back(value);
        const Recipe recipe{.path = {.passes = passes}};
        Sequence whole(model, name, recipe), pieces(model, name, recipe);
        std::vector<float> singly = pieces.feed(std::span(ids).first(5)).logits;
        for (size_t t = 5; t < ids.size(); ++t) {
          const Output last = pieces.feed({&ids[t], 1});
          singly.insert(singly.end(), last.logits.begin(), last.logits.end());
        }
        for (const std::vector<float>& got : {whole.feed(ids).logits, singly}) {
          ASSERT_GE(got.size(), want.size());
          const double difference = largest_difference(std::span(got).last(want.size()), want);
          EXPECT_LE(difference, name == "reference" ? 2e-4 : 2e-3);
          largest[name] = std::max(largest[name], difference);
        }
      }
    }
  }
  for (const auto& [name, difference] : largest)
    std::cout << name << " against transformers along layer paths: logits " << difference << "\n";
}

INSTANTIATE_TEST_SUITE_P(Models, LayerPaths, ::testing::ValuesIn(models()),
                         [](const auto& info) { return info.param; });

class LayerPathCaches : public ::testing::TestWithParam<std::string> {};

// A cache is cut back and cloned under its path, and takes another path once it is empty.
TEST_P(LayerPathCaches, FollowTheSequence) {
  const ModelPlan& plan = checkpoint(GetParam()).plan;
  const auto ids = text(plan);
  for (const std::string& name : backend_names()) {
    if (name == "cpu" && !missing_on_cpu(plan).empty()) continue;
    SCOPED_TRACE(name);
    std::vector<uint8_t> passes(plan.layers.size(), 1);
    passes[0] = 2, passes[1] = 0;
    const Recipe recipe{.path = {.passes = passes}}, native;
    Sequence path(GetParam(), name, recipe), plain(GetParam(), name);
    const auto single = [&](Sequence& sequence, size_t from) {
      Output last;
      for (size_t i = from; i < ids.size(); ++i) last = sequence.feed({&ids[i], 1});
      return last;
    };
    const Output whole = single(path, 0), base = single(plain, 0);
    EXPECT_GT(largest_difference(whole.logits, base.logits), 0);
    Sequence copy = path;
    const int kept = copy.cache().truncate(50);
    EXPECT_TRUE(identical(single(copy, size_t(kept)), whole)) << "a copy cut back";
    EXPECT_TRUE(std::ranges::equal(copy.cache().path(), passes));

    copy.set_recipe(native);
    EXPECT_THROW(copy.feed({&ids[0], 1}), std::runtime_error) << "a sequence keeps its path";
    copy.cache().truncate(0);
    EXPECT_TRUE(identical(single(copy, 0), base)) << "a new one takes another";
    copy.cache().truncate(0);
    copy.set_recipe(recipe);
    EXPECT_TRUE(identical(single(copy, 0), whole)) << "and back";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LayerPathCaches,
                         ::testing::Values("olmoe", "deepseek_v2", "jamba", "qwen3_next", "minimax", "lfm2_moe"),
                         [](const auto& info) { return info.param; });

#ifdef SWITCHYARD_WITH_REFERENCE
// Encoder layers and decoder layers, the latter with keys of the encoder's output for each pass.
TEST(LayerPathEncoder, AgreesWithACheckpointOfThoseLayers) {
  const std::string model = "switch_transformers";
  const ModelPlan& plan = checkpoint(model).plan;
  Backend& ours = backend(model, "reference");
  const auto ids = text(plan, 12);
  for (const std::vector<uint8_t>& passes : paths(plan.layers.size())) {
    SCOPED_TRACE(describe(LayerPath{passes}));
    const Recipe recipe{.path = {.passes = passes}}, native;
    const ModelPlan want_plan = walked(plan, passes);
    if (want_plan.encoder_layers == 0 || want_plan.encoder_layers == int(want_plan.layers.size())) continue;
    const auto theirs = backend_of(want_plan, model, "reference");
    const auto cache = ours.new_cache(64), want_cache = theirs->new_cache(64);
    run(ours, plan, *cache, recipe, ids, true);
    run(*theirs, want_plan, *want_cache, native, ids, true);
    for (int i = 0; i < 5; ++i) {
      const TokenId id = i == 0 ? plan.decoder_start : TokenId(10 + i);
      const Output got = run(ours, plan, *cache, recipe, {&id, 1}),
                   want = run(*theirs, want_plan, *want_cache, native, {&id, 1});
      EXPECT_EQ(largest_difference(got.logits, want.logits), 0) << "step " << i;
    }
  }
}
#endif

TEST(LayerPathMemory, CountsThePasses) {
  const Checkpoint& olmoe = checkpoint("olmoe");
  const auto kv = [&](std::vector<uint8_t> passes) {
    return estimate_memory("cpu", olmoe.plan, olmoe, 1000, passes).kv;
  };
  EXPECT_EQ(kv({1, 1}), kv({}));
  EXPECT_EQ(2 * kv({2, 1}), 3 * kv({}));
  EXPECT_EQ(2 * kv({0, 1}), kv({}));
  EXPECT_EQ(kv_bytes(olmoe.plan, 1000, std::vector<uint8_t>{2, 1}), kv({2, 1}));
}

}  // namespace
}  // namespace switchyard::testing
