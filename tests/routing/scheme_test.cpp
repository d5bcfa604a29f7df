// Gating schemes against an independent double computation on random logits; mixing with neighbours, banks, replay.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/routing/expert_kind.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/slices.h"
#include "engine/routing/stages.h"
#include "tests/routing/scheme_support.h"

namespace switchyard {
namespace {

// By hand: inputs on a line, the token at 1 with experts 0 and 1.
TEST(Sdm, LooksUpItsNumbersForEveryToken) {
  auto file = std::make_shared<SchemeFile>();
  file->layers[0].bank = {.exemplars = {5, 1, {1, 1.5f, 0, 3, 9}}, .labels = {0, 0, 0, 1, 0}, .predictions = {0, 0, 0, 1, 0},
                          .classes = {{0, {0.25f, 0.5f, 0.75f, 1}}, {1, {0.5f, 0.75f}}}};
  LayerRecipe recipe = recipe_of("sdm", {{"k", 1.0}, {"mode", std::string("raw")}, {"if_out", std::string("all")}});
  recipe.scheme.stages.bank = true;
  recipe.scheme.file = file;
  recipe.scheme = recipe.scheme.of_layer(0);
  const Floats z{2, 1}, at_one{1}, at_half{0.5f}, far{100};
  // The exemplar at 1 is the token itself. 1.5 and 0 agree, 3 does not: q 2. Nearest 0.5: of {.25 .5 .75 1} one is
  // below, of {.5 .75} none: d 3/4. (2 + 2)^(3/4).
  const double base = std::pow(4, 0.75);
  Token got = run_one(spec_of(2, 1), recipe, z, {.hidden = at_one});
  ASSERT_EQ(got.ids, std::vector<int>{0});
  expect_near(got.weights[0], base / (base + 1), "q 2, d 3/4");
  // 0.5 lies between 0 and 1 at the same distance; both agree, 1.5 too, then 3: q 3, nearest 0.5.
  got = run_one(spec_of(2, 1), recipe, z, {.hidden = at_half});
  expect_near(got.weights[0], std::pow(5, 0.75) / (std::pow(5, 0.75) + 1), "q 3, d 3/4");
  // Expert 1 is the best: no exemplar near it agrees, q 0, out of distribution, both experts; nearest 0.5, d 3/4.
  got = run_one(spec_of(2, 1), recipe, {1, 2}, {.hidden = at_half});
  ASSERT_EQ(got.ids, (std::vector<int>{1, 0}));
  expect_near(got.weights[0], std::pow(2, 0.75) / (std::pow(2, 0.75) + 1), "q 0");
  // So far that all calibration points are nearer: d 0, uniform.
  got = run_one(spec_of(2, 1), recipe, z, {.hidden = far});
  expect_near(got.weights[0], 0.5, "d 0");
  // By p instead of all: 2^(3/4) / (1 + 2^(3/4)) = .627 exceeds .6.
  recipe.scheme.stages.out = OutRule::kTopP;
  recipe.scheme.stages.p = 0.6f;
  EXPECT_EQ(run_one(spec_of(2, 1), recipe, {1, 2}, {.hidden = at_half}).ids, std::vector<int>{1});
  recipe.scheme.stages.p = 0.63f;
  EXPECT_EQ(run_one(spec_of(2, 1), recipe, {1, 2}, {.hidden = at_half}).ids, (std::vector<int>{1, 0}));
}

// lambda 0 is the model's own router whatever it is: softmax or sigmoid, with a selection bias, groups and a scale.
TEST(Mixing, WithoutAShareOfTheNeighboursIsTheNativeDecisionBitForBit) {
  std::mt19937 random(43);
  std::vector<RouterSpec> specs(3, spec_of(16, 4));
  specs[1].renorm = Renorm::kNone;
  specs[2].score = ScoreFn::kSigmoid;
  specs[2].has_select_bias = true;
  specs[2].groups = 4, specs[2].groups_kept = 2;
  specs[2].scale = 2.5f;
  for (const RouterSpec& spec : specs)
    for (const char* name : {"similarity", "attention"})
      for (int trial = 0; trial < 50; ++trial) {
        Floats z(16), bias(16), mixed(16, 1.0f / 16);
        for (float& v : z) v = std::normal_distribution<float>(0, 2)(random);
        for (float& v : bias) v = std::normal_distribution<float>(0, 0.1f)(random);
        const RouterInput rest{.select_bias = bias, .mixed = mixed};
        const LayerRecipe off = recipe_of(name, {{"lambda", 0.0}}), none = recipe_of(name);
        Floats scratch(4 * 16), weights(4);
        std::vector<ExpertId> ids(4);
        std::vector<SlotKind> kinds(4);
        RouterInput native = rest;
        native.logits = z;
        route(spec, nullptr, native, scratch, {ids, weights, kinds});
        const Token got = run_one(spec, off, z, rest);
        ASSERT_EQ(got.ids, std::vector<int>(ids.begin(), ids.end()));
        ASSERT_EQ(got.weights, weights);
        ASSERT_EQ(got.decision.changed, 0);
        // A token without neighbours is its own.
        ASSERT_EQ(run_one(spec, none, z, {.select_bias = bias}).weights, weights);
      }
}

// Shares by hand: the window cuts, tokens that are not in the memory do not count, sums are made 1 again.
TEST(Mixing, CountsTheTokensOfTheWindowThatAreInTheMemory) {
  TokenMemory memory;
  const auto put = [&](uint64_t token, float p) {
    memory.prepare(2, token, 1, 2, 0);
    memory.write_probabilities(2, token)[0] = p;
    memory.write_probabilities(2, token)[1] = 1 - p;
  };
  put(0, 1), put(1, 0.5f), put(3, 0);  // 2 was routed under another scheme
  const Floats attention{0.25f, 0.25f, 0.125f, 0.375f};  // of token 3, by tokens back
  NeighbourMix mix;
  Floats mixed(2);
  LayerRecipe recipe = recipe_of("attention", {{"window", 3.0}});
  mix.by_attention(memory, 2, 3, recipe.scheme, attention, mixed);
  EXPECT_FLOAT_EQ(mixed[0], 0.5f * 0.125f / 0.375f);
  recipe = recipe_of("attention");
  mix.by_attention(memory, 2, 3, recipe.scheme, attention, mixed);
  EXPECT_FLOAT_EQ(mixed[0], (0.375f + 0.5f * 0.125f) / 0.75f);
  mix.by_attention(memory, 2, 3, recipe.scheme, Floats{0, 0, 0, 0}, mixed);  // all of it on a sink: the token's own
  EXPECT_EQ(mixed[0], 0);
}

TEST(TokenMemory, IsCutBackAndClonedLikeTheCache) {
  TokenMemory memory;
  const auto put = [](TokenMemory& to, uint64_t token, float value) {
    to.prepare(1, token, 1, 3, 2);
    std::ranges::fill(to.write_probabilities(1, token), value);
    std::ranges::fill(to.write_input(1, token), -value);
  };
  for (uint64_t token = 0; token < 100; ++token) put(memory, token, float(token));
  EXPECT_TRUE(memory.probabilities(0, 5).empty());
  EXPECT_TRUE(memory.probabilities(1, 100).empty());
  EXPECT_EQ(memory.bytes(), 2u * 64 * (3 + 2) * 4);
  TokenMemory branch = memory;
  put(branch, 70, 7);
  EXPECT_EQ(branch.probabilities(1, 70)[0], 7);
  EXPECT_EQ(memory.probabilities(1, 70)[0], 70);
  EXPECT_EQ(branch.input(1, 69)[1], -69);
  memory.truncate(65);
  EXPECT_EQ(memory.probabilities(1, 64)[2], 64);
  EXPECT_TRUE(memory.probabilities(1, 65).empty());
  memory.truncate(10);
  EXPECT_EQ(memory.bytes(), 64u * (3 + 2) * 4);
  memory.prepare(1, 12, 1, 3, 0);  // 10 and 11 were routed without the scheme, 12 under one that keeps no input
  EXPECT_TRUE(memory.probabilities(1, 10).empty());
  EXPECT_FALSE(memory.probabilities(1, 12).empty());
  EXPECT_TRUE(memory.input(1, 12).empty());
  EXPECT_EQ(branch.probabilities(1, 10)[0], 10);
}

// Every slice takes its share of the tokens, whatever they want; alone a token is taken by all.
TEST(Schemes, SlicesTakeTokensOrTokensSlices) {
  std::mt19937 random(37);
  std::normal_distribution<float> normal(0, 1);
  for (const int tokens : {1, 2, 7, 30}) {
    Floats logits(size_t(tokens) * 4);
    for (float& z : logits) z = normal(random);
    const auto chosen = [&](const char* selection, int on) {
      std::vector<uint8_t> marks(logits.size());
      choose_slices(recipe_of("union_of_experts", {{"selection", std::string(selection)}, {"on", double(on)}}).scheme.stages, logits, marks);
      return marks;
    };
    const auto count = [&](const std::vector<uint8_t>& marks, bool by_slice, int which) {
      int n = 0;
      for (int i = 0; i < (by_slice ? tokens : 4); ++i) n += marks[size_t(by_slice ? i * 4 + which : which * 4 + i)];
      return n;
    };
    const auto data = chosen("data", 2), token = chosen("token", 3), sequence = chosen("sequence", 1);
    for (int slice = 0; slice < 4; ++slice) {
      EXPECT_EQ(count(data, true, slice), std::max(1, tokens / 2));
      EXPECT_EQ(count(sequence, true, slice) % tokens, 0) << "all tokens or none";
    }
    for (int t = 0; t < tokens; ++t) {
      EXPECT_EQ(count(token, false, t), 3);
      EXPECT_EQ(count(sequence, false, t), 1);
      const auto row = std::span(logits).subspan(size_t(t) * 4, 4);
      EXPECT_FALSE(token[size_t(t) * 4 + size_t(std::min_element(row.begin(), row.end()) - row.begin())]);
    }
  }
  // Two tokens that want the same slices: the mask keeps g, the other slices go to the first token by position.
  std::vector<uint8_t> marks(8);
  const Floats same{4, 3, 0, 0, 3, 4, 0, 0};
  choose_slices(recipe_of("union_of_experts").scheme.stages, same, marks);
  EXPECT_EQ(marks, (std::vector<uint8_t>{1, 0, 1, 1, 0, 1, 0, 0}));
}

TEST(Schemes, TheModelsOwnTopKIsTheNativeDecisionBitForBit) {
  std::mt19937 random(19);
  for (int trial = 0; trial < 100; ++trial) {
    const Inputs in = any_inputs(1, 32, random);
    const RouterSpec spec = spec_of(32, 4);
    Floats scratch(4 * 32), weights(4);
    std::vector<ExpertId> ids(4);
    std::vector<SlotKind> kinds(4);
    route(spec, nullptr, {.logits = in.logits[0]}, scratch, {ids, weights, kinds});
    for (const LayerRecipe& recipe : {recipe_of("top_k"), recipe_of("adamoe", {{"nulls", 0.0}, {"k", 4.0}})}) {
      const Token got = run_one(spec, recipe, in.logits[0]);
      EXPECT_EQ(got.ids, std::vector<int>(ids.begin(), ids.end()));
      EXPECT_EQ(got.weights, weights);
      EXPECT_EQ(got.decision.changed, 0);
    }
  }
}

TEST(Schemes, TopPGrowsWithPAndItsSetsAreNested) {
  std::mt19937 random(23);
  for (int trial = 0; trial < 200; ++trial) {
    const Inputs in = any_inputs(1, 24, random);
    std::set<int> before;
    for (const double p : {0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0}) {
      const Token got = run_one(spec_of(24, 2), recipe_of("top_p", {{"p", p}}), in.logits[0]);
      const std::set<int> now(got.ids.begin(), got.ids.end());
      ASSERT_TRUE(std::includes(now.begin(), now.end(), before.begin(), before.end()));
      ASSERT_TRUE(got.sum() > p - 1e-6 || now.size() == 24);
      before = now;
    }
    ASSERT_EQ(before.size(), 24u);
  }
}

// The selectors again in double, written from gating.md; where their own criterion is within 1e-5 they may differ.
TEST(Schemes, AgreeWithAnIndependentComputation) {
  std::mt19937 random(29);
  std::map<std::string, int> compared;
  for (int trial = 0; trial < 4000; ++trial) {
    const int experts = std::array{4, 8, 32, 128}[trial % 4];
    const Inputs in = any_inputs(1, experts, random);
    std::vector<double> p(in.logits[0].begin(), in.logits[0].end());
    const double max = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& v : p) sum += v = std::exp(v - max);
    for (double& v : p) v /= sum;
    std::vector<int> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    const double a = std::uniform_real_distribution<double>(0.05, 0.95)(random);
    const auto near = [](double x, double y) { return std::abs(x - y) < 1e-5; };

    struct Want { std::string name; std::map<std::string, SchemeValue> parameters; size_t n; bool close, renorm; };
    std::vector<Want> wants;
    {  // top-p
      double mass = 0;
      size_t n = 0;
      bool close = false;
      while (n < order.size() && !(mass > a)) mass += p[order[n++]], close |= near(mass, a);
      wants.push_back({"top_p", {{"p", a}}, n, close, false});
    }
    {  // min-p
      size_t n = 0;
      bool close = false;
      for (const int e : order) n += p[e] >= a * p[order[0]], close |= near(p[e], a * p[order[0]]);
      wants.push_back({"min_p", {{"m", a}}, n, close, true});
    }
    {  // ratio, k = 4
      size_t n = 1;
      bool close = false;
      for (; n < 4; ++n) {
        close |= near(p[order[n]], a * p[order[n - 1]]);
        if (p[order[n]] < a * p[order[n - 1]]) break;
      }
      wants.push_back({"ratio", {{"beta", a}, {"k", 4.0}}, n, close, true});
    }
    {  // dynmole
      double entropy = 0, mass = 0;
      for (const double v : p) entropy += std::pow(v + 1e-5, 1.1);
      entropy = ((1 - entropy) / 0.1) / ((1 - std::pow(experts, -0.1)) / 0.1);
      size_t n = 0;
      bool close = near(entropy, 0.6);
      for (; n < order.size(); ++n) {
        close |= near(mass + p[order[n]], a);
        if (mass + p[order[n]] > a) break;
        mass += p[order[n]];
      }
      n = entropy > 0.6 ? order.size() : std::max<size_t>(n, 2);
      wants.push_back({"dynmole", {{"p", a}, {"h", 0.6}}, n, close, false});
    }
    {  // dense to sparse
      std::vector<double> g(p.size());
      double total = 0;
      for (int e = 0; e < experts; ++e) total += g[e] = std::pow(p[e], 1 / 0.5);
      size_t n = 0;
      bool close = false;
      for (double& v : g) n += (v /= total) > 0.01, close |= near(v, 0.01);
      const Token got = run_one(spec_of(experts, 2), recipe_of("dense_to_sparse", {{"tau", 0.5}, {"threshold", 0.01}}), in.logits[0]);
      if (!close) {
        ASSERT_EQ(got.ids.size(), n);
        for (size_t i = 0; i < n; ++i) ASSERT_NEAR(got.weights[i], g[got.ids[i]], 1e-5);
        ++compared["dense_to_sparse"];
      }
    }
    for (const Want& want : wants) {
      if (want.close) continue;
      const Token got = run_one(spec_of(experts, 2), recipe_of(want.name, want.parameters), in.logits[0]);
      SCOPED_TRACE(want.name);
      ASSERT_EQ(got.ids, std::vector<int>(order.begin(), order.begin() + want.n));
      double mass = 0;
      for (size_t i = 0; i < want.n; ++i) mass += p[order[i]];
      for (size_t i = 0; i < want.n; ++i) ASSERT_NEAR(got.weights[i], p[order[i]] / (want.renorm ? mass : 1), 1e-5);
      ++compared[want.name];
    }
  }
  for (const auto& [name, count] : compared) EXPECT_GT(count, 3000) << name;
  EXPECT_EQ(compared.size(), 5u);
}

// The balanced assignment against every assignment there is.
TEST(Schemes, BalancedAssignmentIsTheBestOfAll) {
  std::mt19937 random(31);
  for (int trial = 0; trial < 300; ++trial) {
    const int experts = 2 + int(random() % 2), tokens = experts * (1 + int(random() % 3)) - int(random() % 2);
    const int room = (tokens + experts - 1) / experts;
    const Inputs in = any_inputs(tokens, experts, random);
    double best = -1e30;
    std::vector<int> choice(tokens), counts(experts);
    const auto search = [&](auto&& self, int token, double total) -> void {
      if (token == tokens) return void(best = std::max(best, total));
      for (int e = 0; e < experts; ++e) {
        if (counts[e] == room) continue;
        ++counts[e];
        self(self, token + 1, total + in.logits[token][e]);
        --counts[e];
      }
    };
    search(search, 0, 0);
    Floats flat;
    for (const Floats& row : in.logits) flat.insert(flat.end(), row.begin(), row.end());
    std::vector<ExpertId> ids(tokens);
    BlockScratch scratch;
    assign_balanced(flat, tokens, experts, experts, ids, scratch);
    double total = 0;
    for (int t = 0; t < tokens; ++t) {
      ASSERT_LT(ids[t], experts);
      total += in.logits[t][ids[t]];
      ++counts[ids[t]];
    }
    for (int& count : counts) {
      ASSERT_LE(count, room);
      count = 0;
    }
    ASSERT_NEAR(total, best, 1e-4);
  }
}

TEST(Schemes, EveryParameterIsCheckedAndNamed) {
  for (const SchemeInfo& info : schemes())
    for (const SchemeParameter& parameter : info.parameters) {
      SCOPED_TRACE(std::string(info.name) + "." + parameter.name);
      const bool numeric = parameter.type == SchemeParameter::Type::kReal || parameter.type == SchemeParameter::Type::kInteger;
      const auto refused = make_scheme({info.name, {{parameter.name, numeric ? SchemeValue(parameter.max + 1) : SchemeValue(1.5)}}});
      ASSERT_FALSE(refused.has_value());
      EXPECT_THAT(refused.error().message(), testing::HasSubstr(parameter.name));
      if (numeric) {
        EXPECT_GE(std::get<double>(parameter.standard), parameter.min);
        EXPECT_LE(std::get<double>(parameter.standard), parameter.max);
      }
    }
  EXPECT_FALSE(make_scheme({"nonsense", {}}).has_value());
  EXPECT_FALSE(make_scheme({"top_p", {{"m", 0.5}}}).has_value());
  EXPECT_FALSE(make_scheme({"hash", {{"file", std::string("no/such/file.safetensors")}}}).has_value());
  EXPECT_FALSE(make_scheme({"stable_moe", {}}).has_value());
}

// A record of two tokens of four experts, by hand: what it says is done, and nothing else but a mute has a say.
TEST(Replay, DoesWhatTheRecordSays) {
  auto data = std::make_shared<SchemeData>();
  data->columns = 2;
  data->tokens = {7, 9};
  data->table = {3, 1, 2, kNoExpert};
  data->weights = {0.75f, 0.125f, 0.5f, 0};
  data->kinds = {0, 3, 1, 2};  // routed, dropped; forced, null
  LayerRecipe recipe;
  recipe.scheme.choice = {"replay", {}};
  recipe.scheme.stages.selector = Selector::kReplay;
  recipe.scheme.stages.weights = WeightRule::kNative;
  recipe.scheme.data = data;
  const RouterSpec spec = spec_of(4, 1);
  const Floats z{2, 1, 0.5f, 0};
  EXPECT_EQ(slots_needed(spec, &recipe), 2);

  const auto at = [&](uint64_t index, TokenId token, const LayerRecipe& under) {
    return run_one(spec, under, z, {.token = token, .index = index});
  };
  const Token first = at(0, 7, recipe);
  EXPECT_EQ(first.ids, (std::vector<int>{3, 1}));
  EXPECT_EQ(first.weights, (Floats{0.75f, 0.125f}));
  EXPECT_EQ(first.kinds, (std::vector{SlotKind::kRouted, SlotKind::kDropped}));
  EXPECT_EQ(first.decision.changed, 2);
  const Token second = at(1, 9, recipe);
  EXPECT_EQ(second.ids, std::vector<int>{2});
  EXPECT_EQ(second.kinds, std::vector{SlotKind::kForced});
  EXPECT_EQ(second.decision.nulls, 1);

  // Another token at the index, or an index beyond the record: the model's own router, here top-1.
  EXPECT_EQ(at(0, 9, recipe).ids, std::vector<int>{0});
  EXPECT_EQ(at(2, 7, recipe).ids, std::vector<int>{0});
  // Edits of the decision: only a mute counts.
  LayerRecipe edited = recipe;
  edited.k = 4;
  edited.logit_bias = {0, 0, 9, 0};
  edited.forced = {0, 0, 1, 0};
  EXPECT_EQ(at(0, 7, edited).ids, (std::vector<int>{3, 1}));
  EXPECT_EQ(at(2, 7, edited).ids.size(), 4u);
  edited.muted = {0, 0, 0, 1};
  EXPECT_EQ(at(0, 7, edited).ids, std::vector<int>{1});

  // Without weights the model's own rule: softmax over the selected logits 0 and 1 (gating.md section 0, RENORM).
  auto ids_only = std::make_shared<SchemeData>(*data);
  ids_only->weights.clear();
  ids_only->kinds.clear();
  recipe.scheme.data = ids_only;
  const Token weighed = at(0, 7, recipe);
  EXPECT_NEAR(weighed.weights[0], 0.268941, 1e-6);
  EXPECT_NEAR(weighed.weights[1], 0.731059, 1e-6);
}

TEST(Replay, IsRefusedWhereItDoesNotFit) {
  auto file = std::make_shared<SchemeFile>();
  file->layers[2] = {.table = {0, 5}, .columns = 2, .tokens = {3}};
  Scheme scheme;
  scheme.choice = {"replay", {{"file", std::string("a.moetrace.h5")}}};
  scheme.stages.selector = Selector::kReplay;
  scheme.file = file;
  const auto refused = [&](int layer, int experts, int64_t vocab) {
    const auto fits = check_scheme(scheme.of_layer(layer), spec_of(experts, 1), 8, vocab);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused(2, 6, 4), "");
  EXPECT_THAT(refused(2, 4, 4), testing::HasSubstr("names expert 5, the router has 4"));
  EXPECT_THAT(refused(2, 1, 4), testing::HasSubstr("2 slots per token, the router 1 experts"));
  EXPECT_THAT(refused(2, 6, 3), testing::HasSubstr("token id 3, the model knows 0 to 2"));
  EXPECT_THAT(refused(1, 6, 4), testing::HasSubstr("no routes for this layer"));
  EXPECT_THAT(make_scheme({"replay", {}}).error().message(), testing::HasSubstr("needs a file"));
}

}  // namespace
}  // namespace switchyard
