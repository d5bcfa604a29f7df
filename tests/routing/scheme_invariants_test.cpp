// The global invariants of gating.md, section 2, for every scheme of the registry.
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
#include "engine/routing/scheme_stages.h"
#include "tests/routing/scheme_support.h"

namespace switchyard {
namespace {

struct Rules {
  double low, high;         // of the sum of the weights of executed slots
  bool by_place = false;    // goes by expert ids, so a permutation of the experts is another scheme
};

const std::map<std::string, Rules>& rules() {
  static const std::map<std::string, Rules> table{
      {"top_k", {1, 1}},        {"top_p", {0, 1}},          {"dynmole", {0, 1}},      {"adamoe", {0, 1, true}},
      {"dense_to_sparse", {0, 1}}, {"activation_d2s", {1, 1}}, {"switch_route", {0, 1}}, {"base_balanced", {0, 1}},
      {"hash", {1, 1, true}},   {"stable_moe", {0, 1, true}}, {"expert_choice", {0, 1}}, {"random", {2, 2, true}},
      {"prototype", {-1, 1}},   {"forced_slot", {0, 1, true}}, {"expert_condenser", {0, 1}}, {"steer", {1, 1, true}},
      {"recurrent", {1, 1}}, {"similarity", {1, 1}},  {"attention", {1, 1}},
      {"sdm", {1, 1}},          {"pre_gate", {1, 1, true}}, {"min_p", {1, 1}},        {"ratio", {1, 1}},
      {"chain_of_experts", {1, 1}}, {"hecto_gate", {1, 1}}, {"union_of_experts", {1, 1}},
      {"replay", {0, 1, true}}};
  return table;
}

// The same with expert e in the place order[e].
LayerRecipe with_experts_moved(const LayerRecipe& recipe, const std::vector<int>& order) {
  LayerRecipe moved = recipe;
  for (size_t e = 0; e < recipe.logit_bias.size(); ++e) moved.logit_bias[size_t(order[e])] = recipe.logit_bias[e];
  if (!has_state(recipe.scheme)) return moved;
  auto data = std::make_shared<SchemeData>(*recipe.scheme.data);
  for (size_t e = 0; e < order.size(); ++e)
    std::ranges::copy(recipe.scheme.data->from_state.row(e), data->from_state.values.begin() + order[e] * data->from_state.cols);
  moved.scheme.data = data;
  return moved;
}

LayerRecipe any_recipe(const std::string& name, int experts, std::mt19937& random) {
  std::map<std::string, SchemeValue> parameters;
  if (name == "recurrent") return any_recurrent(experts, random);
  if (name == "stable_moe") return [&] {
    LayerRecipe recipe = recipe_of("hash");
    recipe.scheme.choice = {"stable_moe", {}};
    recipe.scheme.stages.weights = WeightRule::kSigmoid;
    auto data = std::make_shared<SchemeData>();
    data->columns = 1;
    for (int i = 0; i < kVocab; ++i) data->table.push_back(ExpertId(random() % experts));
    recipe.scheme.data = data;
    return recipe;
  }();
  if (name == "replay") return [&] {
    LayerRecipe recipe;
    recipe.scheme.choice = {"replay", {}};
    recipe.scheme.stages.selector = Selector::kReplay;
    recipe.scheme.stages.weights = WeightRule::kNative;
    auto data = std::make_shared<SchemeData>();
    data->columns = std::min(3, experts);
    std::vector<ExpertId> ids(experts);
    std::iota(ids.begin(), ids.end(), ExpertId(0));
    for (int t = 0; t < kVocab; ++t) {
      data->tokens.push_back(t % 5 ? 7 : 8);  // every fifth is not the token that is run
      std::shuffle(ids.begin(), ids.end(), random);
      data->table.insert(data->table.end(), ids.begin(), ids.begin() + data->columns);
      for (int slot = 0; slot < data->columns; ++slot) data->weights.push_back(1.0f / float(data->columns));
    }
    recipe.scheme.data = data;
    return recipe;
  }();
  if (name == "steer") parameters["on"] = std::vector<int>{int(random() % experts)};
  if (name == "dense_to_sparse") parameters["gumbel"] = random() % 2 == 0;
  LayerRecipe recipe = recipe_of(name, parameters);
  if (name == "expert_condenser") {
    recipe.logit_bias.resize(experts);
    for (float& bias : recipe.logit_bias) bias = std::normal_distribution<float>(0, 0.1f)(random);
  }
  return recipe;
}

TEST(SchemeInvariants, CoverTheRegistry) {
  for (const SchemeInfo& info : schemes())
    if (std::string(info.name) != "native") {
      EXPECT_TRUE(rules().contains(info.name)) << info.name;
    }
  EXPECT_EQ(rules().size() + 1, schemes().size());
}

TEST(SchemeInvariants, IdsAreValidWeightsAddUpAndMutedExpertsStayOut) {
  std::mt19937 random(20261129);
  for (const auto& [name, rule] : rules()) {
    SCOPED_TRACE(name);
    for (int trial = 0; trial < 200; ++trial) {
      const int experts = std::array{2, 5, 8, 64}[trial % 4], tokens = trial % 3 == 0 ? 1 : 1 + int(random() % 40);
      RouterSpec spec = spec_of(experts, std::min(2, experts));
      LayerRecipe recipe = any_recipe(name, experts, random);
      const int muted = trial % 2 ? int(random() % experts) : -1;
      if (muted >= 0) recipe.muted.assign(experts, 0), recipe.muted[muted] = 1;
      const Inputs in = any_inputs(tokens, experts, random);
      for (const Token& token : run(spec, recipe, in.logits, in.rest())) {
        const std::set<int> unique(token.ids.begin(), token.ids.end());
        ASSERT_EQ(unique.size(), token.ids.size());
        ASSERT_LE(int(token.ids.size()) + token.decision.nulls, slots_needed(spec, &recipe));
        for (const int id : token.ids) ASSERT_TRUE(id >= 0 && id < experts && id != muted) << id;
        for (const float weight : token.weights) ASSERT_TRUE(std::isfinite(weight));
        bool dropped = false;
        for (const SlotKind kind : token.kinds) dropped |= kind == SlotKind::kDropped;
        if (token.ids.empty() || dropped) continue;
        const bool alone_can_be_short = experts - (muted >= 0) < 2;  // one expert left: k 2 is 1
        if (name == "random" && alone_can_be_short) continue;
        ASSERT_GE(token.sum(), rule.low - 1e-5);
        ASSERT_LE(token.sum(), rule.high + 1e-5);
      }
    }
  }
}

TEST(SchemeInvariants, RoutedScaleMultipliesEveryWeight) {
  std::mt19937 random(7);
  for (const auto& [name, rule] : rules()) {
    if (name == "replay") continue;  // recorded weights are as applied, the scale in them
    SCOPED_TRACE(name);
    const LayerRecipe recipe = any_recipe(name, 8, random);
    const Inputs in = any_inputs(9, 8, random);
    RouterSpec spec = spec_of(8, 2), scaled = spec;
    scaled.scale = 2.5f;
    const auto once = run(spec, recipe, in.logits, in.rest()), more = run(scaled, recipe, in.logits, in.rest());
    for (size_t t = 0; t < once.size(); ++t) {
      ASSERT_EQ(once[t].ids, more[t].ids);
      for (size_t i = 0; i < once[t].weights.size(); ++i) ASSERT_EQ(once[t].weights[i] * 2.5f, more[t].weights[i]);
    }
  }
}

TEST(SchemeInvariants, PermutingTheExpertsPermutesTheIds) {
  std::mt19937 random(11);
  for (const auto& [name, rule] : rules()) {
    if (rule.by_place) continue;
    SCOPED_TRACE(name);
    for (int trial = 0; trial < 50; ++trial) {
      const int experts = 16;
      LayerRecipe recipe = any_recipe(name, experts, random);
      recipe.scheme.stages.gumbel = false;  // noise is keyed by id
      const Inputs in = any_inputs(1 + trial % 20, experts, random);
      std::vector<int> order(experts);  // new place of each expert
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      Inputs other = in;
      const LayerRecipe moved = with_experts_moved(recipe, order);
      for (int e = 0; e < experts; ++e) {
        for (size_t t = 0; t < in.logits.size(); ++t) other.logits[t][order[e]] = in.logits[t][e];
        other.norms[order[e]] = in.norms[e];
        other.mixed[order[e]] = in.mixed[e];
      }
      const auto a = run(spec_of(experts, 2), recipe, in.logits, in.rest()), b = run(spec_of(experts, 2), moved, other.logits, other.rest());
      for (size_t t = 0; t < a.size(); ++t) {
        ASSERT_EQ(a[t].ids.size(), b[t].ids.size());
        for (size_t i = 0; i < a[t].ids.size(); ++i) {
          ASSERT_EQ(order[a[t].ids[i]], b[t].ids[i]) << "token " << t;
          ASSERT_NEAR(a[t].weights[i], b[t].weights[i], 1e-6);
        }
      }
    }
  }
}

TEST(SchemeInvariants, ATokenIsRoutedAloneAsAmongOthersUnlessTheSchemeSaysOtherwise) {
  std::mt19937 random(13);
  for (const SchemeInfo& info : schemes()) {
    if (std::string(info.name) == "native" || info.batch_coupled) continue;
    SCOPED_TRACE(info.name);
    LayerRecipe recipe = any_recipe(info.name, 8, random);
    const Inputs in = any_inputs(12, 8, random);
    const auto all = run(spec_of(8, 2), recipe, in.logits, in.rest());
    for (size_t t = 0; t < all.size(); ++t) {
      RouterInput rest = in.rest();
      rest.index += t;
      const Token alone = run_one(spec_of(8, 2), recipe, in.logits[t], rest);
      ASSERT_EQ(alone.ids, all[t].ids);
      ASSERT_EQ(alone.weights, all[t].weights);
    }
  }
}

TEST(SchemeInvariants, TheSameSeedRepeatsAndAnotherDiffers) {
  std::mt19937 random(17);
  const Inputs in = any_inputs(200, 16, random);
  for (const SchemeInfo& info : schemes()) {
    if (!info.stochastic) continue;
    SCOPED_TRACE(info.name);
    std::map<std::string, SchemeValue> parameters;
    if (std::string(info.name) == "dense_to_sparse") parameters["gumbel"] = true;
    const LayerRecipe one = recipe_of(info.name, parameters);
    parameters["seed"] = 5.0;
    const LayerRecipe other = recipe_of(info.name, parameters);
    const auto ids = [&](const LayerRecipe& recipe) {
      std::vector<std::vector<int>> out;
      for (const Token& token : run(spec_of(16, 2), recipe, in.logits, in.rest())) out.push_back(token.ids);
      return out;
    };
    EXPECT_EQ(ids(one), ids(one));
    EXPECT_NE(ids(one), ids(other));
  }
  // Uniform: each of 16 experts in 2 of 16 draws, 2000 draws; 5 standard deviations.
  std::vector<int> counts(16);
  const LayerRecipe thor = recipe_of("random");
  for (int t = 0; t < 2000; ++t)
    for (const int id : run_one(spec_of(16, 2), thor, in.logits[0], {.index = uint64_t(t)}).ids) ++counts[id];
  for (const int count : counts) EXPECT_NEAR(count, 250, 5 * std::sqrt(2000 * 0.125 * 0.875));
}

}  // namespace
}  // namespace switchyard
