// The analyses against the expected results of specs/analyses.md, on MT1 and SYN.
#include <cmath>
#include <numbers>
#include <numeric>

#include <gtest/gtest.h>

#include "engine/analysis/affinity.h"
#include "engine/analysis/coactivation.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/load.h"
#include "tests/analysis/check_traces.h"
#include "tests/analysis/expect_fields.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

Load load_of(const CheckTrace& trace) {
  Load load(trace.layers, trace.experts);
  for (int l = 0; l < trace.layers; ++l) EXPECT_TRUE(load.feed(l, trace.ids[l], trace.k));
  return load;
}

// Any two layers as the two rows of one transition.
Affinity affinity_of(const CheckTrace& trace, int from, int to) {
  Affinity affinity(2, trace.experts);
  for (int t = 0; t < trace.tokens; ++t) EXPECT_TRUE(affinity.feed(0, trace.token(from, t), trace.token(to, t)));
  return affinity;
}

GateEntropy gates_of(const CheckTrace& trace) {
  GateEntropy gates(trace.layers, trace.experts);
  for (int l = 0; l < trace.layers; ++l) EXPECT_TRUE(gates.feed(l, trace.logits[l]));
  return gates;
}

json pairs_json(std::span<const uint64_t> counts, int experts, int top) {
  json out = json::array();
  for (const auto& pair : strongest_pairs(counts, experts, top)) out.push_back({{"i", pair.from}, {"j", pair.to}, {"count", pair.count}});
  return out;
}

json matrix_json(std::span<const uint64_t> counts, int experts) {
  json out = json::array();
  for (int i = 0; i < experts; ++i) out.push_back(std::vector<uint64_t>(counts.begin() + i * experts, counts.begin() + (i + 1) * experts));
  return out;
}

json nullable(std::span<const double> values) {
  json out = json::array();
  for (const double value : values) out.push_back(std::isnan(value) ? json() : json(value));
  return out;
}

// specs/analyses.md §0: the numbers that say whether SYN was made as written.
TEST(SharedTraces, SynIsMadeAsSpecified) {
  const auto& verify = checks_document()["traces"]["SYN"]["verify"];
  std::vector<ExpertId> ids;
  std::vector<uint32_t> logits_x64;
  for (int l = 0; l < syn().layers; ++l) {
    ids.insert(ids.end(), syn().ids[l].begin(), syn().ids[l].end());
    for (const float logit : syn().logits[l]) logits_x64.push_back(static_cast<uint32_t>(logit * 64));
  }
  EXPECT_EQ(fnv1a64(std::span<const uint32_t>(syn().token_ids), 4), verify["token_id_fnv1a64_u32"]);
  EXPECT_EQ(fnv1a64(std::span<const uint32_t>(logits_x64), 2), verify["n_fnv1a64_u16"]);
  EXPECT_EQ(fnv1a64(std::span<const ExpertId>(ids), 1), verify["expert_id_fnv1a64_u8"]);
}

TEST(Load, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : checks_of("load")) {
    if (check["params"].contains("batch_tokens")) continue;
    const CheckTrace& trace = trace_named(check["input"]);
    const Load load = load_of(trace);
    json got;
    double mean_max = 0;
    for (int l = 0; l < trace.layers; ++l) {
      const LoadStats stats = load.stats(l), top1 = load_stats(load.first_choice_counts(l));
      EXPECT_EQ(stats.total, uint64_t(trace.tokens) * trace.k);
      got["counts"].push_back(std::vector<uint64_t>(load.counts(l).begin(), load.counts(l).end()));
      got["counts_top1"].push_back(std::vector<uint64_t>(load.first_choice_counts(l).begin(), load.first_choice_counts(l).end()));
      got["max_over_mean"].push_back(stats.max_vio + 1);
      got["maxvio"].push_back(stats.max_vio);
      got["minvio"].push_back(stats.min_vio);
      got["cv"].push_back(stats.cv);
      got["gini"].push_back(stats.gini);
      got["entropy_bits"].push_back(stats.entropy / std::numbers::ln2);
      got["entropy_normalised"].push_back(stats.entropy / std::log(trace.experts));
      got["effective_experts"].push_back(stats.effective_experts);
      got["dead"].push_back(stats.dead);
      got["nearly_dead"].push_back(stats.nearly_dead);
      got["mean_over_max"].push_back(1 / (stats.max_vio + 1));
      got["std_100f"].push_back(100 * stats.cv * trace.k / trace.experts);
      got["maxvio_top1"].push_back(top1.max_vio);
      mean_max += (stats.max_vio + 1) / trace.layers;
    }
    got["mean_max_over_mean"] = mean_max;
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

// A1.5: MaxVio per batch of 250 tokens, mean over batches, by a window that slides with remove().
TEST(Load, WindowOfTokensGivesTheBatchStatistics) {
  const auto checks = checks_of("load");
  const auto check = std::find_if(checks.begin(), checks.end(), [](const json& c) { return c["params"].contains("batch_tokens"); });
  ASSERT_NE(check, checks.end());
  const int batch = (*check)["params"]["batch_tokens"];
  const CheckTrace& trace = syn();
  Load window(trace.layers, trace.experts);
  for (int l = 0; l < trace.layers; ++l) {
    double sum = 0;
    for (int t = 0; t < trace.tokens; ++t) {
      ASSERT_TRUE(window.feed(l, trace.token(l, t), trace.k));
      if (t >= batch) {
        ASSERT_TRUE(window.remove(l, trace.token(l, t - batch), trace.k));
      }
      if ((t + 1) % batch == 0) sum += window.stats(l).max_vio;
    }
    EXPECT_EQ(difference(sum / (trace.tokens / batch), (*check)["expected"]["maxvio_batch_mean"][l], 1e-9), "");
  }
}

TEST(Affinity, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : checks_of("affinity")) {
    const CheckTrace& trace = trace_named(check["input"]);
    const Affinity affinity = affinity_of(trace, check["params"]["from"], check["params"]["to"]);
    const int top = check["params"].value("top", 10);
    const AffinityStats stats = affinity_stats(affinity.top1(0), trace.experts);
    const json got = {{"mi_bits", stats.mi_bits},
                      {"uncertainty", stats.uncertainty},
                      {"expected_max_p", stats.expected_max_p},
                      {"marginal_max", stats.marginal_max},
                      {"top1", matrix_json(affinity.top1(0), trace.experts)},
                      {"topk", matrix_json(affinity.topk(0), trace.experts)},
                      {"top1_pairs", pairs_json(affinity.top1(0), trace.experts, top)},
                      {"topk_pairs", pairs_json(affinity.topk(0), trace.experts, top)},
                      {"fnv1a64_u32_top1", fnv1a64(affinity.top1(0), 4)},
                      {"fnv1a64_u32_topk", fnv1a64(affinity.topk(0), 4)}};
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_GE(compared, 6);
}

// MT1 layer 0: row 3 of the top-1 counts is [0, 6, 0, 1]; row 0 is [2, 0, 2, 0].
TEST(Affinity, ConditionalsAreRowsThatSumToOne) {
  const Affinity affinity = affinity_of(mt1(), 0, 1);
  const auto p = conditional(affinity.top1(0), 4);
  EXPECT_DOUBLE_EQ(p[0 * 4 + 0], 0.5);
  EXPECT_DOUBLE_EQ(p[3 * 4 + 1], 6.0 / 7.0);
  const std::vector<uint64_t> never(16, 0);
  EXPECT_EQ(conditional(never, 4), std::vector<double>(16, 0.0));
}

TEST(Coactivation, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : checks_of("coactivation")) {
    const CheckTrace& trace = trace_named(check["input"]);
    const int layer = check["params"]["layer"];
    const auto pairs = check["params"].contains("mode") ? Coactivation::Pairs::kNeighbours : Coactivation::Pairs::kAll;
    Coactivation coactivation(trace.layers, trace.experts, pairs);
    ASSERT_TRUE(coactivation.feed(layer, trace.ids[layer], trace.k));
    const auto counts = coactivation.counts(layer);
    std::vector<uint64_t> off(coactivation.counts(layer).begin(), coactivation.counts(layer).end());
    for (int e = 0; e < trace.experts; ++e) {
      EXPECT_EQ(off[e * trace.experts + e], load_of(trace).counts(layer)[e]);
      off[e * trace.experts + e] = 0;
    }
    const std::vector<uint64_t> upper = pairs_above_diagonal(counts, trace.experts);
    const json rates = nullable(coactivation_rate(counts, trace.experts)), jaccard = nullable(coactivation_jaccard(counts, trace.experts)),
               pmi = nullable(coactivation_pmi(counts, trace.experts, trace.tokens));
    const auto row0 = [&](const json& all) { return json(std::vector<json>(all.begin(), all.begin() + trace.experts)); };
    json matrix = json::array();
    for (int i = 0; i < trace.experts; ++i) matrix.push_back(std::vector<json>(rates.begin() + i * trace.experts, rates.begin() + (i + 1) * trace.experts));
    const json got = {{"pairs", matrix_json(off, trace.experts)},
                      {"pairs_row0", std::vector<uint64_t>(off.begin(), off.begin() + trace.experts)},
                      {"total", std::accumulate(upper.begin(), upper.end(), uint64_t{0})},
                      {"top_pairs", pairs_json(upper, trace.experts, check["params"].value("top", 10))},
                      {"conditional", matrix}, {"conditional_row0", row0(rates)}, {"jaccard_row0", row0(jaccard)}, {"pmi_row0", row0(pmi)},
                      {"fnv1a64_u32", fnv1a64(std::span<const uint64_t>(off), 4)}};
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 15);
}

TEST(GateEntropy, MatchesTheSpecOnBothTraces) {
  int compared = 0;
  for (const auto& check : checks_of("entropy")) {
    if (check["params"].contains("tokens")) continue;  // per token: engine/routing
    const CheckTrace& trace = trace_named(check["input"]);
    const GateEntropy gates = gates_of(trace);
    json got;
    for (int l = 0; l < trace.layers; ++l) {
      const GateEntropyStats stats = gates.stats(l);
      EXPECT_EQ(stats.tokens, uint64_t(trace.tokens));
      got["mean_entropy"].push_back(stats.mean_entropy);
      got["entropy_of_mean"].push_back(stats.entropy_of_mean);
      got["mutual_information"].push_back(stats.mutual_information);
    }
    expect_fields(check, got, {"mean_top1_prob", "mean_topk_mass", "mean_margin", "median_w2_over_w1"});
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

TEST(GateEntropy, SumsTheScoresOfSyn) {
  const auto check = checks_of("prob-sum").at(0);
  const GateEntropy gates = gates_of(syn());
  expect_fields(check, {{"prob_sum_layer0", std::vector<double>(gates.prob_sum(0).begin(), gates.prob_sum(0).end())}}, {});
}

// A1.2 and A1.4: E * sum_e q_e P_e needs counts and prob_sum only.
TEST(GateEntropy, GivesTheBalanceLossTogetherWithTheLoad) {
  for (const auto& check : checks_of("balance-loss")) {
    const CheckTrace& trace = trace_named(check["input"]);
    const GateEntropy gates = gates_of(trace);
    const Load load = load_of(trace);
    for (int l = 0; l < trace.layers; ++l) {
      double loss = 0;
      for (int e = 0; e < trace.experts; ++e) {
        loss += trace.experts * (double(load.counts(l)[e]) / trace.tokens / trace.k) * (gates.prob_sum(l)[e] / trace.tokens);
      }
      EXPECT_EQ(difference(loss, check["expected"]["normalised"][l], 1e-9), "");
    }
  }
}

}  // namespace
}  // namespace switchyard::testing
