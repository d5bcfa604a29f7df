// route(): the numbers of specs/gating.md and analyses.md, and what must hold for any logits.
#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/routing/decision.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using Floats = std::vector<float>;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

RouterSpec spec_of(int experts, int k, ScoreFn score = ScoreFn::kSoftmaxAll, Renorm renorm = Renorm::kSum) {
  RouterSpec spec;
  spec.experts = experts;
  spec.experts_per_token = k;
  spec.score = score;
  spec.renorm = renorm;
  return spec;
}

struct Routed {
  Decision decision;
  std::vector<int> ids;
  Floats weights;
  std::vector<SlotKind> kinds;
};

Routed run(const RouterSpec& spec, const Floats& logits, const LayerRecipe* recipe = nullptr,
           const Floats& router_bias = {}, const Floats& select_bias = {}) {
  Floats scratch(4 * spec.experts);
  const int slots = slots_needed(spec, recipe);
  std::vector<ExpertId> ids(slots);
  Routed out;
  out.weights.resize(slots);
  out.kinds.resize(slots);
  out.decision = route(spec, recipe, {.logits = logits, .router_bias = router_bias, .select_bias = select_bias}, scratch,
                       {ids, out.weights, out.kinds});
  out.weights.resize(out.decision.k_used);
  out.kinds.resize(out.decision.k_used);
  out.ids.assign(ids.begin(), ids.begin() + out.decision.k_used);
  return out;
}

// float32 tolerance of gating-checks.json.
void expect_near(const Floats& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-6 * std::max(1.0, std::abs(want[i]))) << i;
}

nlohmann::json gating_checks() {
  std::ifstream file(SWITCHYARD_SOURCE_DIR "/tests/data/gating-checks.json");
  return nlohmann::json::parse(file);
}

const Floats kZ{2, 1, 0.5f, 0};

// specs/gating-checks.json, the schemes that a native router with edits covers. `unit` weights are a scheme
// that no native router has.
TEST(GatingChecks, HoldForEveryCaseOfTheNativeSchemes) {
  int checked = 0;
  for (const auto& check : gating_checks()) {
    const std::string scheme = check.value("scheme", "");
    if (scheme != "top_k" && scheme != "distribution" && scheme != "additive_bias" && scheme != "selection_bias" &&
        scheme != "forced_slot")
      continue;
    const auto& params = check["params"];
    const auto& expected = check["expected"];
    if (params.value("mode", "") == "unit") continue;
    SCOPED_TRACE(check["id"].get<std::string>());
    ++checked;

    const Floats logits = check["inputs"]["logits"];
    RouterSpec spec = spec_of(int(logits.size()), params.value("k", 1));
    spec.scale = params.value("scale", 1.0f);
    const std::string mode = params.value("mode", scheme == "forced_slot" ? "raw" : "renorm");
    if (mode == "raw") spec.renorm = Renorm::kNone;
    if (mode == "sigmoid") spec.score = ScoreFn::kSigmoid;
    LayerRecipe recipe;
    if (params.contains("masked")) {
      recipe.muted.assign(logits.size(), 0);
      for (const int id : params["masked"]) recipe.muted[id] = 1;
    }
    if (scheme == "additive_bias") recipe.logit_bias = check["inputs"]["delta"].get<Floats>();
    if (scheme == "selection_bias") recipe.select_bias = check["inputs"]["delta"].get<Floats>();
    if (params.contains("forced")) {
      recipe.forced.assign(logits.size(), 0);
      recipe.forced[params["forced"].get<int>()] = 1;
    }

    const Routed got = run(spec, logits, &recipe);
    const GateExplanation gate = explain(spec, &recipe, {.logits = logits});
    if (expected.contains("ids")) {
      EXPECT_EQ(got.ids, expected["ids"].get<std::vector<int>>());
      expect_near(got.weights, expected["weights"]);
    }
    if (expected.contains("probabilities") && mode != "sigmoid") expect_near(gate.scores, expected["probabilities"]);
    if (expected.contains("entropy")) {
      EXPECT_NEAR(got.decision.stats.entropy, expected["entropy"].get<double>(), 2e-6);
    }
    if (expected.contains("edited_logits")) expect_near(gate.edited_logits, expected["edited_logits"]);
    if (expected.contains("selection_scores")) expect_near(gate.select_scores, expected["selection_scores"]);
  }
  EXPECT_EQ(checked, 28);  // 11 top_k, 4 distribution, 4 + 4 biases, 5 forced
}

// specs/gating.md section 0, canonical vector Z.
TEST(Route, GivesTheWorkedVectorZ) {
  expect_near(run(spec_of(4, 2, ScoreFn::kSoftmaxAll, Renorm::kNone), kZ).weights, {.579259, .213097});
  expect_near(run(spec_of(4, 2), kZ).weights, {.7310586, .2689414});
  expect_near(run(spec_of(4, 2, ScoreFn::kSigmoid), kZ).weights, {.5464491, .4535509});
  expect_near(run(spec_of(4, 2, ScoreFn::kSoftmaxTopK, Renorm::kNone), kZ).weights, {.7310586, .2689414});
  // llama4 scores the selected logits by sigmoid and does not renormalise: 1/(1+e^-2), 1/(1+e^-1).
  expect_near(run(spec_of(4, 2, ScoreFn::kSigmoidTopK, Renorm::kNone), kZ).weights, {.8807971, .7310586});
  EXPECT_NEAR(run(spec_of(4, 2), kZ).decision.stats.entropy, 1.109767, 1e-6);
}

// Temperature, section 1.1 test line of dense-to-sparse: tau 0.5 and 2 on Z.
TEST(Route, DividesLogitsByTheTemperature) {
  LayerRecipe recipe;
  recipe.temperature = 0.5f;
  const RouterSpec spec = spec_of(4, 4, ScoreFn::kSoftmaxAll, Renorm::kNone);
  expect_near(run(spec, kZ, &recipe).weights, {.830953, .112457, .041371, .015219});
  recipe.temperature = 2;
  expect_near(run(spec, kZ, &recipe).weights, {.408701, .247890, .193057, .150353});
}

TEST(Route, LeavesTheRoutersOwnBiasOutOfTheRowScale) {
  LayerRecipe recipe;
  recipe.row_scale = {1, 1, 4, 1};
  // (0.5 - 0.25) * 4 + 0.25 = 1.25 > 1
  EXPECT_THAT(run(spec_of(4, 2), kZ, &recipe, {0, 0, 0.25f, 0}).ids, ElementsAre(0, 2));
  const Floats own{0, 0, 0.25f, 0};
  EXPECT_EQ(explain(spec_of(4, 2), &recipe, {.logits = kZ, .router_bias = own}).edited_logits[2], 1.25f);
}

TEST(Route, KeepsTheSelectionBiasOutOfTheWeights) {
  RouterSpec spec = spec_of(4, 2, ScoreFn::kSigmoid, Renorm::kSumEps20);
  spec.has_select_bias = true;
  spec.scale = 2.5f;
  const Routed got = run(spec, {0, 0, 0, 0}, nullptr, {}, {0, .1f, 0, .2f});
  EXPECT_THAT(got.ids, ElementsAre(3, 1));
  expect_near(got.weights, {1.25, 1.25});  // 0.5 / (1 + 1e-20) * 2.5
}

// DeepSeek-V3 (families.md 1.7): a group counts the sum of its best two; others are out of reach.
TEST(Route, KeepsTheGroupsWithTheBestPairs) {
  RouterSpec spec = spec_of(8, 3, ScoreFn::kSigmoid, Renorm::kSumEps20);
  spec.groups = 4;
  spec.groups_kept = 2;
  spec.group_score = GroupScore::kTop2Sum;
  spec.group_fill = GroupFill::kMinusInfinity;
  // Pair sums of the logits rise with those of the sigmoids here: group 0 holds the best single expert.
  const Floats logits{3, -9, 2, 2, 1, 1.5f, -9, -9};
  EXPECT_THAT(run(spec, logits).ids, ElementsAre(2, 3, 5));
  // DeepSeek-V2: softmax, group maximum; experts outside keep score 0 and may fill what is left.
  spec.score = ScoreFn::kSoftmaxAll;
  spec.renorm = Renorm::kNone;
  spec.group_score = GroupScore::kMax;
  spec.group_fill = GroupFill::kZero;
  spec.groups_kept = 1;
  const Routed zero = run(spec, logits);
  EXPECT_THAT(zero.ids, ElementsAre(0, 1, 2));
  EXPECT_EQ(zero.weights[2], 0.0f);
}

TEST(Route, RenormalisesAsTheFamilySays) {
  RouterSpec spec = spec_of(4, 2, ScoreFn::kSigmoid, Renorm::kSumEps6);
  const float a = 1 / (1 + std::exp(-2.0f)), b = 1 / (1 + std::exp(-1.0f));
  expect_near(run(spec, kZ).weights, {a / (a + b + 1e-6), b / (a + b + 1e-6)});
  spec = spec_of(4, 2, ScoreFn::kSoftmaxAll, Renorm::kMaxSum);
  spec.renorm_floor = 0.9f;  // the sum .792356 is smaller
  expect_near(run(spec, kZ).weights, {.5792585 / .9, .2130973 / .9});
  spec.renorm = Renorm::kPNorm;
  spec.renorm_floor = 2;
  const double norm = std::hypot(.5792585, .2130973);
  expect_near(run(spec, kZ).weights, {.5792585 / norm, .2130973 / norm});
}

// One rule of a family from logits to weights, families.md sections 1 and 2. Expected values: the formulas in fp64,
// written out in Python.
TEST(WorkedRule, DbrxDividesByThePNormOfTheSelected) {
  RouterSpec spec = spec_of(4, 3, ScoreFn::kSoftmaxAll, Renorm::kPNorm);
  spec.renorm_floor = 1;
  expect_near(run(spec, kZ).weights, {0.6285317192117625, 0.2312238976221491, 0.14024438316608848});
  spec.renorm_floor = 3;
  expect_near(run(spec, kZ).weights, {0.9804882356277432, 0.36070146419790766, 0.21877649703926974});
}

TEST(WorkedRule, ErnieSelectsByBiasedProbabilityAndFloorsTheSum) {
  RouterSpec spec = spec_of(4, 2, ScoreFn::kSoftmaxAll, Renorm::kMaxSum);
  spec.has_select_bias = true;
  spec.renorm_floor = 1e-12f;
  const Floats bias{-.5f, .1f, .3f, .4f};
  const Routed native = run(spec, kZ, nullptr, {}, bias);
  EXPECT_THAT(native.ids, ElementsAre(3, 2));  // the two least likely
  expect_near(native.weights, {0.3775406687981455, 0.6224593312018546});
  spec.renorm_floor = .5f;  // their probabilities sum to .207644
  expect_near(run(spec, kZ, nullptr, {}, bias).weights, {0.15678823443367942, 0.2585000971063255});
}

// Scores so small that the 1e-6 of the sum counts.
TEST(WorkedRule, Lfm2AddsItsEpsilonToTheSumAndScales) {
  RouterSpec spec = spec_of(4, 2, ScoreFn::kSigmoid, Renorm::kSumEps6);
  spec.has_select_bias = true;
  spec.scale = 1.5f;
  const Routed got = run(spec, {-14, -15, -13.5f, 2}, nullptr, {}, {0, .9f, .8f, -2});
  EXPECT_THAT(got.ids, ElementsAre(1, 2));
  expect_near(got.weights, {0.17141480594664413, 0.7682270441000347});
}

// Expert 5 is the third best of all, but its group's best is the third group; what is left of the kept groups follows.
TEST(WorkedRule, DeepSeekV2LimitsTheGroupsByTheirBest) {
  RouterSpec spec = spec_of(8, 3, ScoreFn::kSoftmaxAll, Renorm::kNone);
  spec.groups = 4;
  spec.groups_kept = 2;
  spec.scale = 16;
  const Floats logits{1, .2f, 2.5f, -1, .9f, 2, -.5f, 3};
  const Routed got = run(spec, logits);
  EXPECT_THAT(got.ids, ElementsAre(7, 2, 6));
  expect_near(got.weights, {6.83315390683293, 4.1445173470293355, 0.2063433685083476});
  spec.groups = spec.groups_kept = 1;
  EXPECT_THAT(run(spec, logits).ids, ElementsAre(7, 2, 5));
}

// Group sums of the two best biased scores: 1.1914, 1.6698, 1.1724. A bias below -1 makes a biased score negative,
// which still beats an expert outside the kept groups.
TEST(WorkedRule, DeepSeekV3LimitsTheGroupsByTheirBestPair) {
  RouterSpec spec = spec_of(9, 4, ScoreFn::kSigmoid, Renorm::kSumEps20);
  spec.groups = 3;
  spec.groups_kept = 2;
  spec.group_score = GroupScore::kTop2Sum;
  spec.group_fill = GroupFill::kMinusInfinity;
  spec.has_select_bias = true;
  spec.scale = 2.5f;
  const Floats logits{2, -1, .5f, 1.5f, 1.4f, -2, 3, -3, .1f}, bias{-1.5f, .2f, .1f, 0, .05f, 0, -1.2f, .3f, .3f};
  const Routed got = run(spec, logits, nullptr, {}, bias);
  EXPECT_THAT(got.ids, ElementsAre(4, 3, 2, 1));  // expert 8 has the second best biased score of all
  expect_near(got.weights, {0.7986191347099897, 0.8139413294774227, 0.6196932393765987, 0.2677462964359888});
  spec.experts_per_token = 6;
  EXPECT_THAT(run(spec, logits, nullptr, {}, bias).ids, ElementsAre(4, 3, 2, 1, 5, 0));
}

TEST(Route, BreaksTiesByLowerId) {
  EXPECT_THAT(run(spec_of(6, 3), {1, 2, 1, 2, 1, 1}).ids, ElementsAre(1, 3, 0));
  EXPECT_THAT(run(spec_of(6, 3, ScoreFn::kSigmoid), Floats(6, 0.25f)).ids, ElementsAre(0, 1, 2));
}

// Scores saturate to the same float; the logits still tell the experts apart.
TEST(Route, OrdersSaturatedScoresByTheirLogits) {
  EXPECT_THAT(run(spec_of(4, 2, ScoreFn::kSigmoid), {30, 40, 50, 20}).ids, ElementsAre(2, 1));
  EXPECT_THAT(run(spec_of(4, 3), {-400, 0, -300, -200}).ids, ElementsAre(1, 3, 2));
}

TEST(Route, ReplacesNanByTheSmallestFiniteLogitAndSaysSo) {
  const Routed got = run(spec_of(4, 4), {kNan, 1, -kInf, 0});
  EXPECT_TRUE(got.decision.had_nan);
  EXPECT_THAT(got.ids, ElementsAre(1, 0, 3));  // NaN became 0, ties with expert 3, wins by id; -inf never
  const Routed all = run(spec_of(4, 2), Floats(4, kNan));
  EXPECT_THAT(all.ids, ElementsAre(0, 1));
  expect_near(all.weights, {.5, .5});
  const Routed infinite = run(spec_of(4, 2), {0, kInf, 0, 0});
  EXPECT_TRUE(infinite.decision.had_nan);
  EXPECT_EQ(infinite.ids[0], 1);
  expect_near(infinite.weights, {1, 0});
}

TEST(Route, SelectsNothingWhereAllLogitsAreMinusInfinity) {
  const Routed got = run(spec_of(3, 2), Floats(3, -kInf));
  EXPECT_EQ(got.decision.k_used, 0);
  EXPECT_EQ(got.decision.stats.entropy, 0);
}

TEST(Route, WeighsSelectedExpertsWhoseScoresUnderflow) {
  LayerRecipe recipe;
  recipe.select_bias = {0, 2, 2};
  const Routed got = run(spec_of(3, 2), {300, 1, 0}, &recipe);
  EXPECT_THAT(got.ids, ElementsAre(1, 2));
  expect_near(got.weights, {.7310586, .2689414});
}

TEST(Route, NeverSelectsAMutedExpertWhateverTheBias) {
  LayerRecipe recipe;
  recipe.muted = {1, 0, 0, 0};
  recipe.select_bias = {1000, 0, 0, 0};
  recipe.logit_bias = {1000, 0, 0, 0};
  EXPECT_THAT(run(spec_of(4, 2), kZ, &recipe).ids, ElementsAre(1, 2));
}

TEST(Route, ForcesExpertsIntoTheLastSlots) {
  LayerRecipe recipe;
  recipe.forced = {0, 0, 1, 1};
  const Routed two = run(spec_of(4, 3), kZ, &recipe);
  EXPECT_THAT(two.ids, ElementsAre(0, 2, 3));  // 2 was selected already: only 1 gives way
  EXPECT_THAT(two.kinds, ElementsAre(SlotKind::kRouted, SlotKind::kRouted, SlotKind::kForced));
  EXPECT_NEAR(two.weights[0] + two.weights[1] + two.weights[2], 1, 1e-6);
  EXPECT_EQ(two.decision.changed, 1);
  EXPECT_THAT(run(spec_of(4, 2), kZ, &recipe).ids, ElementsAre(2, 3));
}

TEST(Route, CountsWhatTheNativeRouterWouldNotHaveSelected) {
  LayerRecipe recipe;
  recipe.muted = {1, 1, 0, 0};
  EXPECT_EQ(run(spec_of(4, 2), kZ, &recipe).decision.changed, 2);
  recipe = {};
  recipe.k = 4;
  EXPECT_EQ(run(spec_of(4, 2), kZ, &recipe).decision.changed, 2);
  recipe.k = 1;
  EXPECT_EQ(run(spec_of(4, 2), kZ, &recipe).decision.changed, 0);
}

TEST(Route, KeepsLseOfTheRawLogitsUnderEdits) {
  LayerRecipe recipe;
  recipe.muted = {1, 0, 0, 0};
  const double lse = std::log(std::exp(2.) + std::exp(1.) + std::exp(.5) + 1);
  EXPECT_NEAR(run(spec_of(4, 2), kZ).decision.stats.lse, lse, 1e-6);
  const Routed got = run(spec_of(4, 2), kZ, &recipe);
  EXPECT_NEAR(got.decision.stats.lse, lse, 1e-6);
  EXPECT_NEAR(got.decision.stats.margin, .5, 1e-6);  // 0.5 selected, 0 not; the muted one is not a rival
}

// specs/analyses.md A2, checks on MT1 (logit = digit / 2).
TEST(DecisionStats, GiveTheMeansOfTheSharedTestTrace) {
  const char* digits[3] = {"4538764932453546534642573426537698278634573476457824782575345827",
                           "2837385716433925493827364627147674836453769554735643678374634756",
                           "4325645754634327764884657426716354635674658357635473568343657465"};
  const double entropy[3] = {1.106707, 1.066982, 1.152436}, mass[3] = {.801095, .829611, .777895},
               margin[3] = {.65625, .96875, .59375}, z_loss[3] = {18.270616, 18.946541, 17.260179};
  for (int layer = 0; layer < 3; ++layer) {
    double h = 0, m = 0, gap = 0, z2 = 0;
    for (int token = 0; token < 16; ++token) {
      Floats logits(4);
      for (int e = 0; e < 4; ++e) logits[e] = float(digits[layer][4 * token + e] - '0') / 2;
      const DecisionStats stats = run(spec_of(4, 2), logits).decision.stats;
      h += stats.entropy / 16, m += stats.topk_mass / 16, gap += stats.margin / 16;
      z2 += double(stats.lse) * stats.lse / 16;
    }
    EXPECT_NEAR(h, entropy[layer], 1e-6);
    EXPECT_NEAR(m, mass[layer], 1e-6);
    EXPECT_NEAR(gap, margin[layer], 1e-6);
    EXPECT_NEAR(z2, z_loss[layer], 2e-5);
  }
  const Floats first{2, 2.5f, 1.5f, 4};
  expect_near(run(spec_of(4, 2), first).weights, {.817574, .182426});
}

// Every spec that families.md section 2 names, with shapes that make ties and groups.
std::vector<RouterSpec> all_specs() {
  std::vector<RouterSpec> specs;
  for (const ScoreFn score : {ScoreFn::kSoftmaxAll, ScoreFn::kSoftmaxTopK, ScoreFn::kSigmoid, ScoreFn::kSigmoidTopK})
    for (const Renorm renorm : {Renorm::kNone, Renorm::kSum, Renorm::kSumEps20, Renorm::kMaxSum}) {
      RouterSpec spec = spec_of(16, 4, score, renorm);
      specs.push_back(spec);
      spec.groups = 4;
      spec.groups_kept = 2;
      spec.group_score = GroupScore::kTop2Sum;
      spec.group_fill = GroupFill::kMinusInfinity;
      specs.push_back(spec);
      spec.has_select_bias = true;
      spec.scale = 2.5f;
      specs.push_back(spec);
    }
  return specs;
}

Floats random_logits(std::mt19937_64& random, int experts, float spread = 3) {
  std::normal_distribution<float> normal(0, spread);
  Floats logits(experts);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

TEST(RouteProperties, TheIdentityRecipeEqualsNativeBitForBit) {
  std::mt19937_64 random(1);
  LayerRecipe identity;  // vectors allocated, but neutral
  identity.row_scale.assign(16, 1);
  identity.logit_bias.assign(16, 0);
  identity.select_bias.assign(16, 0);
  identity.expert_scale.assign(16, 1);
  identity.muted.assign(16, 0);
  identity.forced.assign(16, 0);
  ASSERT_TRUE(identity.is_identity());
  for (const RouterSpec& spec : all_specs())
    for (int turn = 0; turn < 50; ++turn) {
      const Floats logits = random_logits(random, 16), bias = random_logits(random, 16, .1f);
      const Routed a = run(spec, logits, nullptr, bias, bias), b = run(spec, logits, &identity, bias, bias);
      ASSERT_EQ(a.ids, b.ids);
      for (size_t i = 0; i < a.weights.size(); ++i)
        ASSERT_EQ(std::bit_cast<uint32_t>(a.weights[i]), std::bit_cast<uint32_t>(b.weights[i]));
      ASSERT_EQ(b.decision.changed, 0);
      ASSERT_EQ(std::bit_cast<uint32_t>(a.decision.stats.entropy), std::bit_cast<uint32_t>(b.decision.stats.entropy));
    }
}

TEST(RouteProperties, PermutingTheExpertsPermutesTheIds) {
  std::mt19937_64 random(2);
  for (const RouterSpec& spec : all_specs()) {
    if (spec.groups > 1) continue;  // groups are blocks of ids
    for (int turn = 0; turn < 50; ++turn) {
      const Floats logits = random_logits(random, 16);
      std::vector<int> order(16);
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      Floats moved(16);
      for (int e = 0; e < 16; ++e) moved[order[e]] = logits[e];
      const Routed a = run(spec, logits), b = run(spec, moved);
      for (size_t i = 0; i < a.ids.size(); ++i) {
        ASSERT_EQ(order[a.ids[i]], b.ids[i]);
        ASSERT_NEAR(a.weights[i], b.weights[i], 1e-6 * std::max(1.f, a.weights[i]));
      }
    }
  }
}

TEST(RouteProperties, IdsAreDistinctAndRenormalisedWeightsSumToTheScale) {
  std::mt19937_64 random(3);
  for (const RouterSpec& spec : all_specs())
    for (int turn = 0; turn < 100; ++turn) {
      LayerRecipe recipe;
      recipe.k = int(random() % 17);
      recipe.temperature = 0.1f + float(random() % 40) / 10;
      if (random() % 2) recipe.logit_bias = random_logits(random, 16);
      if (random() % 2) recipe.select_bias = random_logits(random, 16);
      if (random() % 2) {
        recipe.muted.assign(16, 0);
        for (int i = 0; i < 6; ++i) recipe.muted[random() % 16] = 1;
      }
      if (random() % 2) {
        recipe.forced.assign(16, 0);
        recipe.forced[random() % 16] = 1;
      }
      const Floats bias = random_logits(random, 16, .1f);
      const Routed got = run(spec, random_logits(random, 16), &recipe, {}, bias);
      ASSERT_GT(got.decision.k_used, 0);
      ASSERT_LE(got.decision.k_used, slots_needed(spec, &recipe));
      std::vector<int> sorted = got.ids;
      std::sort(sorted.begin(), sorted.end());
      ASSERT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
      float sum = 0;
      for (size_t i = 0; i < got.ids.size(); ++i) {
        ASSERT_TRUE(std::isfinite(got.weights[i]));
        ASSERT_FALSE(!recipe.muted.empty() && recipe.muted[got.ids[i]]);
        sum += got.weights[i];
      }
      if (spec.renorm == Renorm::kSum) {
        ASSERT_NEAR(sum, spec.scale, 1e-5);
      }
    }
}

TEST(RouteProperties, TheExplanationAgreesWithTheDecision) {
  std::mt19937_64 random(4);
  for (const RouterSpec& spec : all_specs()) {
    const Floats logits = random_logits(random, 16), bias = random_logits(random, 16, .1f);
    LayerRecipe recipe;
    recipe.logit_bias = random_logits(random, 16);
    const Routed got = run(spec, logits, &recipe, bias, bias), native = run(spec, logits, nullptr, bias, bias);
    const GateExplanation gate = explain(spec, &recipe, {.logits = logits, .router_bias = bias, .select_bias = bias});
    EXPECT_EQ(gate.decision.k_used, got.decision.k_used);
    EXPECT_EQ(gate.decision.changed, got.decision.changed);
    for (size_t i = 0; i < got.ids.size(); ++i) {
      EXPECT_TRUE(gate.selected[got.ids[i]]);
      EXPECT_EQ(gate.weights[got.ids[i]], got.weights[i]);
    }
    for (size_t i = 0; i < native.ids.size(); ++i) EXPECT_EQ(gate.native_weights[native.ids[i]], native.weights[i]);
    EXPECT_EQ(std::accumulate(gate.selected.begin(), gate.selected.end(), 0), got.decision.k_used);
  }
}

// What the shadow comparison relies on.
TEST(RouteProperties, ADecisionThatIsNotDescribedIsTheSameDecision) {
  std::mt19937_64 random(9);
  for (const RouterSpec& spec : all_specs())
    for (int trial = 0; trial < 20; ++trial) {
      const Floats logits = random_logits(random, 16), bias = random_logits(random, 16, .1f);
      LayerRecipe recipe;
      recipe.logit_bias = random_logits(random, 16);
      recipe.muted.assign(16, 0);
      recipe.muted[random() % 16] = 1;
      const Routed want = run(spec, logits, &recipe, bias, bias);
      const size_t slots = slots_needed(spec, &recipe);
      Floats scratch(4 * 16), weights(slots);
      std::vector<ExpertId> ids(slots);
      std::vector<SlotKind> kinds(slots);
      const Decision got = route(spec, &recipe, {.logits = logits, .router_bias = bias, .select_bias = bias, .describe = false},
                                 scratch, {ids, weights, kinds});
      ASSERT_EQ(got.k_used, want.decision.k_used);
      for (int slot = 0; slot < got.k_used; ++slot) {
        ASSERT_EQ(ids[slot], want.ids[slot]);
        ASSERT_EQ(weights[slot], want.weights[slot]);
        ASSERT_EQ(kinds[slot], want.kinds[slot]);
      }
      EXPECT_EQ(got.changed, 0);
      EXPECT_EQ(got.stats.lse, 0);
    }
}

// families.md 1.8, by hand: with 2 eps = 0.1, expert 1 lies (2 - 1.9) / 2 = 0.05 below the best and is kept, so
// w1 = 1 / (1 + e^-0.1); without expert 0 nothing is within 0.1 of expert 1, so w2 = 1: more than w1.
TEST(SparseMixer, WeighsEachSlotAmongTheExpertsCloseToIt) {
  RouterSpec spec = spec_of(4, 2, ScoreFn::kSparseMixer, Renorm::kNone);
  spec.jitter = 0.05f;
  const Floats logits{2.0f, 1.9f, 1.0f, -3.0f};
  const Routed native = run(spec, logits);
  EXPECT_THAT(native.ids, ElementsAre(0, 1));
  expect_near(native.weights, {0.52497918747894, 1.0});

  // Closeness is relative, so a temperature changes the softmax only: 1 / (1 + e^-0.2).
  LayerRecipe cold;
  cold.temperature = 0.5f;
  expect_near(run(spec, logits, &cold).weights, {0.549833997312478, 1.0});

  LayerRecipe muted;
  muted.muted = {1, 0, 0, 0};
  const Routed without = run(spec, logits, &muted);
  EXPECT_THAT(without.ids, ElementsAre(1, 2));
  expect_near(without.weights, {1.0, 1.0});
  EXPECT_EQ(without.decision.changed, 1);

  // A forced expert stands against all that are above it: 1 / (1 + e^0.9).
  LayerRecipe forced;
  forced.forced = {0, 0, 1, 0};
  const Routed third = run(spec, logits, &forced);
  EXPECT_THAT(third.ids, ElementsAre(0, 2));
  expect_near(third.weights, {0.52497918747894, 0.289050497374996});

  LayerRecipe three;
  three.k = 3;
  expect_near(run(spec, logits, &three).weights, {0.52497918747894, 1.0, 1.0});

  const GateExplanation gate = explain(spec, nullptr, {.logits = logits});
  EXPECT_THAT(gate.selected, ElementsAre(1, 1, 0, 0));
  expect_near(gate.weights, {0.52497918747894, 1.0, 0.0, 0.0});
}

// All logits negative: the difference is measured against the larger magnitude, |s_j|.
TEST(SparseMixer, MeasuresAgainstTheLargerMagnitude) {
  RouterSpec spec = spec_of(3, 2, ScoreFn::kSparseMixer, Renorm::kNone);
  spec.jitter = 0.05f;
  // (-1 + 1.1) / 1.1 = 0.0909 is kept, (-1 + 1.2) / 1.2 is not.
  expect_near(run(spec, {-1.0f, -1.1f, -1.2f}).weights, {0.524979187478940, 0.524979187478940});
}

TEST(Unroutable, NamesWhatCannotBeExecuted) {
  EXPECT_EQ(unroutable(spec_of(8, 2)), "");
  EXPECT_EQ(unroutable(spec_of(8, 2, ScoreFn::kSparseMixer)), "");
  EXPECT_EQ(unroutable(spec_of(8, 9)), "9 experts per token of 8");
  RouterSpec grouped = spec_of(8, 2);
  grouped.groups = 3;
  EXPECT_EQ(unroutable(grouped), "8 experts in 3 groups");
}

}  // namespace
}  // namespace switchyard
