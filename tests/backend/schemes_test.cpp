// Gating schemes on the backends: every scheme of the registry runs, both backends decide alike, the output is the sum
// that the decisions say, a scheme takes effect in its layers only, and the model's own top-k is the native run.
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <set>

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
    if (std::string(info.name) != "native") out.push_back(info.name);
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
    if (std::string(info.name) == "native" || info.batch_coupled) continue;
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

INSTANTIATE_TEST_SUITE_P(Backends, Schemes, ::testing::ValuesIn(backend_names()), [](const auto& info) { return info.param; });

#ifdef SWITCHYARD_WITH_REFERENCE
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
