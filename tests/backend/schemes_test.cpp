// Gating schemes on the backends: every scheme of the registry runs, both backends decide alike, the output is the sum
// that the decisions say, a scheme takes effect in its layers only, and the model's own top-k is the native run.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "engine/routing/edit.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/scheme_file.h"
#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

bool needs_file(const SchemeInfo& info) {
  return std::ranges::any_of(info.needs, [](const char* need) { return std::string_view(need) == "file"; });
}

SchemeMatrix any_matrix(int64_t rows, int64_t cols, float spread, std::mt19937& random) {
  SchemeMatrix out{rows, cols, std::vector<float>(size_t(rows * cols))};
  for (float& value : out.values) value = std::normal_distribution<float>(0, spread)(random);
  return out;
}

// A file with seeded tensors for every scheme that needs one, made once per model.
const std::string& file_for(const ModelPlan& plan) {
  static std::map<const ModelPlan*, std::string> made;
  std::string& path = made[&plan];
  if (!path.empty()) return path;
  std::mt19937 random(20261129);
  constexpr int kState = 12;
  SchemeFile file;
  for (size_t part = 0; part < file.gru.weight.size(); ++part) {
    file.gru.weight[part] = any_matrix(kState, kState, 0.5f, random);
    file.gru.bias[part] = any_matrix(1, kState, 0.5f, random).values;
  }
  for (int row = 0; row < int(plan.moe_layers.size()); ++row) {
    SchemeData& data = file.layers[plan.moe_layers[size_t(row)]];
    const int experts = plan.routed(row).router.experts;
    data.columns = 1;
    for (int id = 0; id < plan.vocab; ++id) data.table.push_back(ExpertId(random() % size_t(experts)));
    data.to_state = any_matrix(kState, plan.hidden, 1 / std::sqrt(float(plan.hidden)), random);
    data.from_state = any_matrix(experts, kState, 2, random);
    data.width = plan.hidden;
    data.prototypes = any_matrix(experts, plan.hidden, 1, random).values;
    data.nulls = any_matrix(4, plan.hidden, 0.5f, random);
    data.likeness = any_matrix(plan.hidden, plan.hidden, 1 / std::sqrt(float(plan.hidden)), random);
    data.bank.exemplars = any_matrix(24, plan.hidden, 1, random);
    for (int i = 0; i < 24; ++i) data.bank.labels.push_back(ExpertId(i % 3));
    data.bank.predictions = data.bank.labels;
    for (ExpertId e = 0; e < 3; ++e) data.bank.classes.push_back({e, {8, 12, 16, 20, 24}});
  }
  path = ::testing::TempDir() + "/schemes_" + std::to_string(made.size()) + ".safetensors";
  std::ofstream(path, std::ios::binary) << scheme_file_bytes(file);
  return path;
}

Recipe recipe_of(const ModelPlan& plan, const std::string& name, std::map<std::string, SchemeValue> parameters = {}) {
  if (needs_file(*find_scheme(name))) parameters.emplace("file", file_for(plan));
  const auto scheme = make_scheme({name, std::move(parameters)});
  EXPECT_TRUE(scheme.has_value()) << name;
  Recipe recipe;
  recipe.epoch = 1;
  recipe.layers.resize(plan.moe_layers.size());
  for (size_t row = 0; scheme && row < recipe.layers.size(); ++row)
    recipe.layers[row].scheme = scheme->of_layer(plan.moe_layers[row]);
  return recipe;
}

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const SchemeInfo& info : schemes())
    if (std::string(info.name) != "native" && std::string(info.name) != "replay") out.push_back(info.name);
  return out;
}

Output run(const std::string& model, const std::string& backend_name, const Recipe& recipe) {
  Sequence sequence(model, backend_name, recipe);
  return sequence.feed(prompts(model)[1]);
}

class Schemes : public ::testing::TestWithParam<std::string> {};

TEST_P(Schemes, ActOnTheOutputAndOnNoEarlierLayer) {
  for (const std::string& name : names()) {
    SCOPED_TRACE(name);
    const ModelPlan& plan = checkpoint("demo").plan;
    Recipe recipe = recipe_of(plan, name);
    for (size_t row = 0; row < recipe.layers.size(); ++row)
      if (row != 5) recipe.layers[row] = {};
    const Output native = run("demo", GetParam(), {}), gated = run("demo", GetParam(), recipe);
    for (size_t t = 0; t < native.frames.size(); ++t) {
      for (int row = 0; row < 5; ++row) ASSERT_TRUE(std::ranges::equal(native.frames[t].ids(row), gated.frames[t].used_ids(row)));
      ASSERT_TRUE(std::ranges::equal(native.frames[t].logits(5), gated.frames[t].logits(5)));
      ASSERT_EQ(gated.frames[t].layer(5).stats.lse, native.frames[t].layer(5).stats.lse);
    }
    // By their defaults these two are the demo's own router.
    EXPECT_EQ(identical(native, gated), name == "top_k" || name == "steer");
  }
}

// Chunks must not matter where the scheme says so, and the model's own choice of top-k is the native run.
TEST_P(Schemes, PerTokenSchemesDoNotSeeTheChunk) {
  const auto ids = prompts("demo")[1];
  for (const SchemeInfo& info : schemes()) {
    if (std::string(info.name) == "native" || std::string(info.name) == "replay" || info.batch_coupled) continue;
    SCOPED_TRACE(info.name);
    const Recipe recipe = recipe_of(checkpoint("demo").plan, info.name);
    Sequence whole("demo", GetParam(), recipe), parts("demo", GetParam(), recipe);
    const Output all = whole.feed(ids);
    std::vector<RoutingFrame> frames;
    for (size_t from = 0; from < ids.size(); from += 3) {
      Output part = parts.feed(std::span(ids).subspan(from, std::min<size_t>(3, ids.size() - from)));
      for (RoutingFrame& frame : part.frames) frames.push_back(std::move(frame));
    }
    for (size_t t = 0; t < ids.size(); ++t)
      for (int row = 0; row < frames[t].header().moe_layers; ++row)
        ASSERT_TRUE(std::ranges::equal(all.frames[t].ids(row), frames[t].ids(row))) << "token " << t << " row " << row;
  }
  EXPECT_TRUE(identical(run("demo", GetParam(), {}), run("demo", GetParam(), recipe_of(checkpoint("demo").plan, "top_k"))));
}

constexpr std::array kMixing = {"similarity", "attention"};

TEST_P(Schemes, MixingWithoutAShareOfTheNeighboursIsTheNativeRun) {
  for (const std::string model : {"demo", "mixtral", "olmoe", "deepseek_v3", "gpt_oss"})
    for (const char* name : kMixing) {
      SCOPED_TRACE(model + " " + name);
      const Recipe off = recipe_of(checkpoint(model).plan, name, {{"lambda", 0.0}});
      EXPECT_TRUE(identical(run(model, GetParam(), {}), run(model, GetParam(), off)));
      EXPECT_FALSE(identical(run(model, GetParam(), {}), run(model, GetParam(), recipe_of(checkpoint(model).plan, name))));
    }
}

// What is remembered is what a run of the same history has: a sequence that was cut back, that ran under other schemes
// where it was cut, and that was cloned goes on as one that never did.
TEST_P(Schemes, WhatMixingRemembersFollowsTheCache) {
  const ModelPlan& plan = checkpoint("demo").plan;
  std::vector<TokenId> ids;
  for (int i = 0; i < 120; ++i) ids.push_back(TokenId(7 + 31 * i % 3000));
  const auto feed = [&](Sequence& sequence, size_t from, size_t to, const Recipe& recipe) {
    Output all;
    sequence.set_recipe(recipe);
    for (size_t i = from; i < to; ++i) {
      Output one = sequence.feed({&ids[i], 1});
      all.logits.insert(all.logits.end(), one.logits.begin(), one.logits.end());
      for (RoutingFrame& frame : one.frames) all.frames.push_back(std::move(frame));
    }
    return all;
  };
  for (const char* name : kMixing) {
    SCOPED_TRACE(name);
    const Recipe on = recipe_of(plan, name), native;
    const Recipe other = recipe_of(plan, std::string_view(name) == "attention" ? "similarity" : "attention");
    // The history that is checked: 0..20 native, 20..58 mixed, 58..62 native, 62.. mixed.
    Sequence straight("demo", GetParam(), native);
    feed(straight, 0, 20, native), feed(straight, 20, 58, on), feed(straight, 58, 62, native);
    const Output want = feed(straight, 62, 80, on);

    Sequence cut("demo", GetParam(), native);
    feed(cut, 0, 20, native), feed(cut, 20, 58, on);
    Sequence branch(cut);
    feed(cut, 58, 120, other);  // into the next block; what is cut off must leave nothing
    cut.cache().truncate(60);
    cut.cache().truncate(58);
    feed(cut, 58, 62, native);
    EXPECT_TRUE(identical(want, feed(cut, 62, 80, on)));

    feed(branch, 58, 62, native);
    Sequence twig(branch);
    feed(twig, 62, 70, other);
    EXPECT_TRUE(identical(want, feed(branch, 62, 80, on)));
    EXPECT_FALSE(identical(want, feed(twig, 70, 88, on)));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Schemes, ::testing::ValuesIn(backend_names()), [](const auto& info) { return info.param; });

class Inputs final : public RouterTap {
 public:
  void see(int row, size_t token, std::span<const float> input) override { seen[{row, token}].assign(input.begin(), input.end()); }
  std::map<std::pair<int, size_t>, std::vector<float>> seen;
};

// What routers read comes whole and in its place on both backends: the router's own matrix times it gives the logits;
// and the recurrent router again in double, from that and the file, layer by layer.
TEST_P(Schemes, TheRecurrentStateRunsThroughTheLayersOfEachToken) {
  const ModelPlan& plan = checkpoint("demo").plan;
  const Recipe recipe = recipe_of(plan, "recurrent");
  const SchemeFile& file = *recipe.layers[0].scheme.file;
  std::vector<TokenId> ids;
  for (int i = 0; i < 600; ++i) ids.push_back(TokenId(5 + 17 * i % 3500));  // more than one chunk of the cpu backend
  const auto cache = backend("demo", GetParam()).new_cache(int(ids.size()));
  std::vector<RoutingFrame> frames = blank_frames(plan, recipe, ids.size());
  Inputs inputs;
  const auto done = backend("demo", GetParam()).forward({.tokens = ids, .cache = cache.get(), .recipe = &recipe, .rows = LogitRows::kNone, .frames = frames, .tap = &inputs});
  ASSERT_TRUE(done.has_value()) << done.error().message();
  ASSERT_EQ(inputs.seen.size(), ids.size() * plan.rows.size());
  const auto p = size_t(file.gru.width());
  const auto times = [](const SchemeMatrix& m, size_t row, const auto& x) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += double(m.row(row)[i]) * x[i];
    return sum;
  };
  int compared = 0;
  for (const size_t token : {size_t(0), size_t(1), size_t(300), size_t(511), size_t(512), size_t(599)}) {
    std::vector<double> state(p, 0);
    for (int row = 0; row < int(plan.rows.size()); ++row) {
      const SchemeData& data = file.layers.at(plan.moe_layers[size_t(row)]);
      const std::vector<float>& h = inputs.seen.at({row, token});
      ASSERT_EQ(h.size(), size_t(plan.hidden));
      std::vector<double> u(p), next(p), z(32);
      for (size_t i = 0; i < p; ++i) u[i] = times(data.to_state, i, h);
      const auto gate = [&](GruPart part, const std::vector<double>& x, size_t i) { return times(file.gru.weight[part], i, x) + file.gru.bias[part][i]; };
      for (size_t i = 0; i < p; ++i) {
        const double r = 1 / (1 + std::exp(-gate(kInReset, u, i) - gate(kStateReset, state, i)));
        const double zeta = 1 / (1 + std::exp(-gate(kInUpdate, u, i) - gate(kStateUpdate, state, i)));
        next[i] = (1 - zeta) * std::tanh(gate(kInNew, u, i) + r * gate(kStateNew, state, i)) + zeta * state[i];
      }
      state = next;
      std::vector<int> order(32);
      for (int e = 0; e < 32; ++e) z[size_t(e)] = times(data.from_state, size_t(e), state), order[size_t(e)] = e;
      std::ranges::sort(order, [&](int a, int b) { return z[size_t(a)] > z[size_t(b)]; });
      if (z[size_t(order[3])] - z[size_t(order[4])] < 1e-4) continue;
      double sum = 0;
      for (int i = 0; i < 4; ++i) sum += std::exp(z[size_t(order[size_t(i)])]);
      const std::set<int> want(order.begin(), order.begin() + 4);
      const auto got = frames[token].used_ids(row);
      ASSERT_EQ(std::set<int>(got.begin(), got.end()), want) << "token " << token << " row " << row;
      for (size_t slot = 0; slot < got.size(); ++slot) ASSERT_NEAR(frames[token].weights(row)[slot], std::exp(z[got[slot]]) / sum, 1e-4);
      ++compared;
    }
  }
  EXPECT_GT(compared, 40);
}

TEST(Mixing, OfAttentionIsRefusedWhereThereIsNone) {
  const auto refusal = [](const std::string& model, const char* name) {
    const auto fits = validate(SetScheme{{}, *make_scheme({name, {}})}, checkpoint(model).plan);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_NE(refusal("qwen3_next", "attention").find("mixes tokens without a softmax over them"), std::string::npos) << refusal("qwen3_next", "attention");
  EXPECT_EQ(refusal("qwen3_next", "similarity"), "");
  // An edit means the second router of a jetmoe layer; the first one routes the attention itself.
  EXPECT_NE(refusal("jetmoe", "attention").find("itself routed"), std::string::npos) << refusal("jetmoe", "attention");
  const std::string before = cannot_mix(*make_scheme({"attention", {}}), checkpoint("jetmoe").plan, 0);
  EXPECT_NE(before.find("no attention before its router"), std::string::npos) << before;
  EXPECT_NE(refusal("nllb_moe", "similarity").find("encoder-decoder"), std::string::npos) << refusal("nllb_moe", "similarity");
  EXPECT_EQ(refusal("deepseek_v2", "attention"), "");
}

#ifdef SWITCHYARD_WITH_REFERENCE
// Attention of every kind: sinks and windows, latents, chunks, norms after the rope. The judge takes its rows from its
// own softmax.
TEST(SchemeParity, BothBackendsFollowTheSameAttention) {
  for (const std::string model : {"gpt_oss", "deepseek_v2", "mixtral_window", "llama4_text", "hunyuan_v1_moe", "granitemoe"})
    for (const double window : {3.0, 256.0}) {
      const Recipe recipe = recipe_of(checkpoint(model).plan, "attention", {{"lambda", 1.0}, {"window", window}});
      const Difference d = compare(run(model, "reference", recipe), run(model, "cpu", recipe));
      EXPECT_LE(d.logits, 2e-3) << model << ": " << d;
      EXPECT_LE(d.weights, 1e-4) << model << ": " << d;
      EXPECT_EQ(d.sets_differing, 0) << model << ": " << d;
    }
}

TEST(SchemeParity, BothBackendsDecideAlikeByAFile) {
  for (const std::string name : {"hash", "prototype", "similarity", "sdm", "adamoe"}) {
    const ModelPlan& plan = checkpoint("demo").plan;
    const Recipe recipe = recipe_of(plan, name, {{"file", file_for(plan)}});
    const Difference d = compare(run("demo", "reference", recipe), run("demo", "cpu", recipe));
    EXPECT_LE(d.logits, 2e-3) << name << ": " << d;
    EXPECT_EQ(d.sets_differing, 0) << name << ": " << d;
    EXPECT_FALSE(identical(run("demo", "cpu", recipe), run("demo", "cpu", recipe_of(plan, name)))) << name;
  }
}

TEST(SchemeParity, BothBackendsDecideAlike) {
  for (const std::string model : {"demo", "mixtral", "olmoe"}) {
    Difference all;
    for (const std::string& name : names()) {
      const Recipe recipe = recipe_of(checkpoint(model).plan, name);
      const Difference d = compare(run(model, "reference", recipe), run(model, "cpu", recipe));
      EXPECT_LE(d.logits, 2e-3) << model << " " << name << ": " << d;
      EXPECT_EQ(d.sets_differing, 0) << model << " " << name << ": " << d;
      all.include(d);
    }
    std::cout << "cpu against reference under schemes on " << model << ": " << all << "\n";
  }
}
#endif

}  // namespace
}  // namespace switchyard::testing
