// Schemes of plugins under route(): what they decide is taken as it is, and what they do wrong puts the model's own
// router in their place, flagged and named. The plugins are the examples and the broken ones of this build.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "engine/plugin_host/host.h"
#include "engine/routing/decision.h"
#include "engine/routing/device_code.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class PluginGates : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    char name[] = "/tmp/switchyard-gates-XXXXXX";
    const fs::path folder = ::mkdtemp(name);
    for (const char* variable : {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"})
      ::setenv(variable, (folder / variable).c_str(), 1);
    ::setenv("SWITCHYARD_PLUGIN_BUDGET_US", "1000", 1);  // the slow one sleeps 3 ms
    PluginOptions options;
    options.path = {SWITCHYARD_BINARY_DIR "/example_plugins", SWITCHYARD_BINARY_DIR "/bad_plugins"};
    PluginHost::instance().start(options);
    for (const auto& plugin : PluginHost::instance().plugins()) plugin->set_trusted(plugin->id() != "bad-abort");
  }

  void SetUp() override {
    spec_.experts = 8;
    spec_.experts_per_token = 2;
    spec_.score = ScoreFn::kSoftmaxAll;
    spec_.renorm = Renorm::kSum;
    spec_.scale = 1;
  }

  // Routes `count` tokens of random logits one by one.
  std::vector<Decision> run(const std::string& scheme, int count, std::map<std::string, SchemeValue> parameters = {}) {
    auto made = make_scheme({scheme, std::move(parameters)});
    EXPECT_TRUE(made) << made.error().message();
    std::vector<Decision> out;
    if (!made) return out;
    LayerRecipe recipe;
    recipe.scheme = made->of_layer(3);
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0, 1);
    for (int token = 0; token < count; ++token) {
      std::vector<float> logits(8);
      for (float& z : logits) z = normal(random);
      out.push_back(decide(recipe, logits, uint64_t(token)));
    }
    return out;
  }
  Decision decide(const LayerRecipe& recipe, const std::vector<float>& logits, uint64_t index) {
    std::vector<float> scratch(scratch_needed(spec_, &recipe));
    const size_t slots = size_t(slots_needed(spec_, &recipe));
    ids_.assign(slots, kNoExpert), weights_.assign(slots, 0), kinds_.assign(slots, SlotKind::kRouted);
    return route(spec_, &recipe, {.logits = logits, .token = 7, .index = index}, scratch, {ids_, weights_, kinds_});
  }
  static std::string faults_of(const std::string& id) {
    std::string out;
    for (const auto& [what, count] : PluginHost::instance().find(id)->status().faults) out += what + "; ";
    return out;
  }

  RouterSpec spec_;
  std::vector<ExpertId> ids_;
  std::vector<float> weights_;
  std::vector<SlotKind> kinds_;
};

// What a backend with a device is handed: the source as the library has it, in its own lines, and this choice's numbers. A
// plugin of the broken ones has none.
TEST_F(PluginGates, DeviceSourceIsHandedOnAndGoneWhenThePluginIsOff) {
  const auto with = make_scheme({"noisy-gate.noisy_top_k", {{"sigma", 0.25}}}), without = make_scheme({"bad-slow.scheme", {}});
  ASSERT_TRUE(with && without);
  const auto* const code = dynamic_cast<const DeviceCode*>(with->code.get());
  ASSERT_TRUE(code);
  EXPECT_EQ(code->device_source().find("#line 1 \"noisy_gate.cu\"\n"), 0u);
  EXPECT_NE(code->device_source().find("sy_device_route"), std::string::npos);
  EXPECT_EQ(code->device_name(), "noisy-gate.noisy_top_k");
  ASSERT_EQ(code->device_parameters().size(), 2u);
  EXPECT_EQ(code->device_parameters()[0], 0.25);
  EXPECT_EQ(dynamic_cast<const DeviceCode*>(without->code.get())->device_source(), "");
  code->tell_of_device("it gave nonsense", true);
  EXPECT_NE(faults_of("noisy-gate").find("noisy-gate.noisy_top_k: it gave nonsense"), std::string::npos);
  const auto plugin = PluginHost::instance().find("noisy-gate");
  plugin->turn_off("a test says so.");
  EXPECT_EQ(code->device_source(), "");
  plugin->turn_on();
  EXPECT_NE(code->device_source(), "");
}

TEST_F(PluginGates, NoiseOfNothingIsTheBuiltInTopK) {
  const auto plugin = make_scheme({"noisy-gate.noisy_top_k", {{"sigma", 0.0}}});
  ASSERT_TRUE(plugin) << plugin.error().message();
  LayerRecipe ours, theirs;
  ours.scheme = make_scheme({"top_k", {}})->of_layer(3);
  theirs.scheme = plugin->of_layer(3);
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 2);
  for (uint64_t token = 0; token < 200; ++token) {
    std::vector<float> logits(8);
    for (float& z : logits) z = normal(random);
    const Decision expected = decide(ours, logits, token);
    const auto ids = ids_;
    const auto weights = weights_;
    const Decision found = decide(theirs, logits, token);
    ASSERT_FALSE(found.fell_back);
    EXPECT_EQ(found.k_used, expected.k_used);
    EXPECT_EQ(ids_, ids);
    for (size_t slot = 0; slot < weights.size(); ++slot) EXPECT_NEAR(weights_[slot], weights[slot], 2e-7);
    EXPECT_FLOAT_EQ(found.stats.entropy, expected.stats.entropy);
    EXPECT_EQ(found.changed, 0);
  }
}

TEST_F(PluginGates, NoiseRepeatsBySeedAndDiffersByToken) {
  const auto scheme = make_scheme({"noisy-gate.noisy_top_k", {{"sigma", 4.0}}}),
             other = make_scheme({"noisy-gate.noisy_top_k", {{"sigma", 4.0}, {"seed", 9.0}}});
  ASSERT_TRUE(scheme && other);
  LayerRecipe a, b;
  a.scheme = scheme->of_layer(3), b.scheme = other->of_layer(3);
  const std::vector<float> flat(8, 0.0f);  // the noise alone decides
  std::vector<int> chosen(8);
  int differ = 0;
  for (uint64_t token = 0; token < 4000; ++token) {
    decide(a, flat, token);
    const auto first = ids_;
    decide(a, flat, token);
    EXPECT_EQ(ids_, first);
    ++chosen[ids_[0]];
    decide(b, flat, token);
    differ += ids_ != first;
  }
  EXPECT_GT(differ, 3000);
  for (const int count : chosen) EXPECT_NEAR(count, 500, 5 * std::sqrt(500.0 * 7 / 8));  // five standard deviations
}

TEST_F(PluginGates, MutedAndForcedExpertsHold) {
  LayerRecipe recipe;
  recipe.scheme = make_scheme({"noisy-gate.noisy_top_k", {{"sigma", 0.0}}})->of_layer(3);
  recipe.muted = {0, 1, 0, 0, 0, 0, 0, 0};
  recipe.forced = {0, 0, 0, 0, 0, 0, 0, 1};
  const Decision decision = decide(recipe, {0, 9, 3, 2, 1, 0, 0, -5}, 0);
  EXPECT_FALSE(decision.fell_back);
  EXPECT_EQ(ids_, (std::vector<ExpertId>{2, 7}));
  EXPECT_EQ(kinds_[1], SlotKind::kForced);
}

TEST_F(PluginGates, WhatIsWrongPutsTheNativeGateInItsPlace) {
  const std::vector<std::pair<std::string, std::string>> cases = {{"bad-not-a-number", "not finite"},
                                                                  {"bad-zero-table", "filled 0 slots"},
                                                                  {"bad-throw", "across the border"},
                                                                  {"bad-overrun", "past the end"},
                                                                  {"bad-slow", "times in a row"}};
  for (const auto& [id, words] : cases) {
    const std::vector<Decision> decisions = run(id + ".scheme", 60);
    ASSERT_EQ(decisions.size(), 60u) << id;
    EXPECT_FALSE(decisions.front().fell_back) << id;
    EXPECT_TRUE(decisions.back().fell_back) << id;
    EXPECT_EQ(decisions.back().k_used, 2) << id;
    EXPECT_EQ(decisions.back().changed, 0) << id << ": the model's own choice";
    EXPECT_NE(faults_of(id).find(words), std::string::npos) << id << ": " << faults_of(id);
  }
  for (const char* id : {"bad-overrun", "bad-slow"}) EXPECT_TRUE(PluginHost::instance().find(id)->off()) << id;
  EXPECT_NE(make_scheme({"bad-overrun.scheme", {}}).error().message().find("is off"), std::string::npos);
}

TEST_F(PluginGates, WhatChangesTheProcessIsPutBackAndNamed) {
  ::setenv("SWITCHYARD_PLUGIN_CHECK_CALLS", "1", 1);
  for (const auto& [id, words] :
       std::vector<std::pair<std::string, std::string>>{{"bad-chdir", "working folder"},
                                                        {"bad-signal", "signal 15"},
                                                        {"bad-floats", "rounded"},
                                                        {"bad-close-stderr", "descriptor 2"}}) {
    const fs::path here = fs::current_path();
    const std::vector<Decision> decisions = run(id + ".scheme", 40);
    EXPECT_NE(faults_of(id).find(words), std::string::npos) << id << ": " << faults_of(id);
    EXPECT_EQ(fs::current_path(), here);
  }
  ::unsetenv("SWITCHYARD_PLUGIN_CHECK_CALLS");
}

TEST_F(PluginGates, WhatBreaksAtLoadingIsRefusedByName) {
  for (const auto& [id, words] :
       std::vector<std::pair<std::string, std::string>>{{"bad-throw-in-constructor", "signal 6"},
                                                        {"bad-wrong-abi", "a table of 16 bytes"},
                                                        {"bad-missing-symbol", "no symbol switchyard_plugin"},
                                                        {"bad-missing-dependency", "cannot be opened"}}) {
    const auto made = make_scheme({id + ".scheme", {}});
    ASSERT_FALSE(made) << id;
    EXPECT_NE(made.error().message().find(words), std::string::npos) << made.error().message();
    EXPECT_NE(made.error().message().find("bad_"), std::string::npos) << made.error().message();
    EXPECT_TRUE(PluginHost::instance().find(id)->off());
  }
}

TEST_F(PluginGates, NothingOfAnUntrustedPluginIsOpened) {
  const auto made = make_scheme({"bad-abort.scheme", {}});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find("not trusted"), std::string::npos);
  const SchemeInfo* info = find_scheme("bad-abort.scheme");
  ASSERT_NE(info, nullptr);  // listed by its manifest
  EXPECT_NE(info->origin->why_not().find("not trusted"), std::string::npos);
}

}  // namespace
}  // namespace switchyard
