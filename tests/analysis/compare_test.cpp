// Edit effects and routing shift against the expected results of specs/analyses.md, A6 and A19.
#include <fstream>

#include <gtest/gtest.h>

#include "engine/analysis/compare.h"
#include "tests/analysis/check_traces.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

const json& check(const std::string& id) {
  static const json document = json::parse(std::ifstream(SWITCHYARD_SOURCE_DIR "/tests/data/analyses/checks.json"));
  for (const json& one : document["checks"])
    if (one["id"] == id) return one;
  throw std::runtime_error("no check " + id);
}

std::vector<std::vector<float>> logits_of(const json& input, const std::string& name) {
  const bool scaled = input.contains(name + "_x64");
  auto rows = input[scaled ? name + "_x64" : name].get<std::vector<std::vector<float>>>();
  for (auto& row : rows)
    for (float& logit : row) logit /= scaled ? 64.0f : 1.0f;
  return rows;
}

EditEffect effect_of(const json& input) {
  const auto base = logits_of(input, "base"), edited = logits_of(input, "edited");
  EditEffect effect;
  for (size_t t = 0; t < base.size(); ++t)
    effect.add(effect_at(base[t], edited[t], input["targets"][t].get<TokenId>()));
  return effect;
}

TEST(EditEffect, OfTheHandCase) {
  const json& want = check("A19.1")["expected"];
  const EditEffect effect = effect_of(check("A19.1")["input"]);
  for (size_t t = 0; t < 2; ++t) {
    EXPECT_NEAR(effect.positions()[t].kl, want["kl"][t], 1e-9);
    EXPECT_NEAR(effect.positions()[t].kl_reversed, want["kl_reversed"][t], 1e-9);
    EXPECT_NEAR(effect.positions()[t].js, want["js"][t], 1e-9);
    EXPECT_NEAR(effect.positions()[t].tv, want["tv"][t], 1e-9);
  }
  EXPECT_NEAR(effect.mean(&PositionEffect::nll_base), want["nll_base"], 1e-9);
  EXPECT_NEAR(effect.mean(&PositionEffect::nll_edited), want["nll_edited"], 1e-9);
  EXPECT_NEAR(effect.dnll(), want["dnll"], 1e-9);
  EXPECT_NEAR(perplexity(effect.mean(&PositionEffect::nll_base)), want["ppl_base"], 1e-8);
  EXPECT_EQ(effect.top1_flip_rate(), 1.0);
}

TEST(EditEffect, OfAThirtyTwoTokenText) {
  const json& want = check("A19.2")["expected"];
  const EditEffect effect = effect_of(check("A19.2")["input"]);
  EXPECT_NEAR(effect.mean(&PositionEffect::kl), want["kl_mean"], 1e-9);
  EXPECT_NEAR(effect.kl_percentile(50), want["kl_p50"], 1e-9);
  EXPECT_NEAR(effect.kl_percentile(95), want["kl_p95"], 1e-9);
  EXPECT_NEAR(effect.kl_percentile(99), want["kl_p99"], 1e-9);
  EXPECT_NEAR(effect.mean(&PositionEffect::kl_reversed), want["kl_reversed_mean"], 1e-9);
  EXPECT_NEAR(effect.mean(&PositionEffect::js), want["js_mean"], 1e-9);
  EXPECT_NEAR(effect.mean(&PositionEffect::tv), want["tv_mean"], 1e-9);
  EXPECT_NEAR(effect.dnll(), want["dnll"], 1e-9);
  EXPECT_NEAR(effect.top1_flip_rate(), want["top1_flip_rate"], 1e-12);
  EXPECT_EQ(json(effect.worst_positions(5)), want["worst_positions"]);
}

// A6, two layers of a trace taken as two checkpoints: k1..kK and the Jaccard index at k.
void expect_overlaps(const json& one, const CheckTrace& trace, int base, int other) {
  RoutingShift shift(trace.k);
  for (int t = 0; t < trace.tokens; ++t)
    for (int j = 1; j <= trace.k; ++j)
      ASSERT_TRUE(shift.feed(j - 1, trace.token(base, t).first(j), trace.token(other, t).first(j)));
  for (int j = 1; j <= trace.k; ++j) EXPECT_NEAR(shift.overlap(j - 1), one["expected"]["k" + std::to_string(j)], 1e-9);
  EXPECT_NEAR(shift.jaccard(trace.k - 1), one["expected"]["jaccard"], 1e-9);
}

TEST(RoutingShift, OfMt1AndSyn) {
  expect_overlaps(check("A6.1"), mt1(), 0, 1);
  expect_overlaps(check("A6.2"), mt1(), 1, 2);
  expect_overlaps(check("A6.3"), mt1(), 0, 2);
  expect_overlaps(check("A6.4"), syn(), 0, 1);
  expect_overlaps(check("A6.5"), syn(), 1, 2);
  expect_overlaps(check("A6.6"), syn(), 0, 2);
}

TEST(RoutingShift, RefusesADecisionWithoutExperts) {
  RoutingShift shift(1);
  EXPECT_FALSE(shift.feed(0, {}, {}));
  EXPECT_FALSE(shift.feed(1, std::vector<ExpertId>{1}, {}));
}

}  // namespace
}  // namespace switchyard::testing
