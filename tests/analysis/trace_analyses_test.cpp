// The analyses over whole traces against specs/analyses.md: every check of tests/data/analyses/checks.json, walked in
// one piece and cut into pieces that end inside sequences.
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "engine/analysis/affinity.h"
#include "engine/analysis/compare.h"
#include "engine/analysis/contrast.h"
#include "engine/analysis/domain_load.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/gate_sharpness.h"
#include "engine/analysis/load.h"
#include "engine/analysis/locality.h"
#include "engine/analysis/next_expert.h"
#include "engine/analysis/pruning.h"
#include "engine/analysis/repetition.h"
#include "engine/analysis/similarity.h"
#include "engine/analysis/vocabulary.h"
#include "tests/analysis/check_traces.h"
#include "tests/analysis/expect_fields.h"

namespace switchyard::testing {
namespace {

using nlohmann::json;

constexpr int kPieces[] = {100'000, 7, 250};  // tokens a slab

template <class T>
std::vector<json> list(std::span<const T> values) { return {values.begin(), values.end()}; }

std::vector<json> checks_with_data(const std::string& analysis) {
  std::vector<json> found;
  for (const auto& check : checks_document()["checks"])
    if (check["analysis"] == analysis && !check["input"].is_string()) found.push_back(check);
  return found;
}

std::vector<double> doubles(const json& matrix) {
  std::vector<double> out;
  for (const auto& row : matrix)
    for (const auto& value : row) out.push_back(value);
  return out;
}

TEST(DomainLoad, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("domain")) {
    for (const int piece : kPieces) {
      const CheckTrace& trace = trace_named(check["input"]);
      DomainLoad load(trace.layers, trace.experts, trace.domains, check["params"]["k"]);
      SlabTrace(trace).walk(piece, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(load.feed(slab, row)); });
      json got;
      for (int d = 0; d < trace.domains; ++d) {
        got["tokens"].push_back(load.tokens(d));
        json counts, highest, which;
        for (int l = 0; l < trace.layers; ++l) {
          counts.push_back(list(load.counts(d, l)));
          const auto share = load.specialisation(d, l);
          const auto top = std::max_element(share.begin(), share.end());
          highest.push_back(*top);
          which.push_back(top - share.begin());
        }
        got["count"].push_back(counts);
        got["max_specialisation"].push_back(highest);
        got["max_expert"].push_back(which);
        got["specialisation"].push_back(load.specialisation(d, check["params"].value("layer", 0)));
      }
      for (int l = 0; l < trace.layers; ++l) got["mean_cv_across_domains"].push_back(load.mean_cv_across_domains(l));
      expect_fields(check, got, {});
    }
    ++compared;
  }
  EXPECT_EQ(compared, 4);
}

TEST(VocabularyUse, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("vocabulary")) {
    for (const int piece : kPieces) {
      const CheckTrace& trace = trace_named(check["input"]);
      const SlabTrace slabs(trace);
      VocabularyUse vocabulary(trace.layers, trace.experts, trace.k, check["params"]["min_count"]);
      slabs.walk(piece, [&](const RoutingSlab& slab, int row) { if (row == 0) vocabulary.count_ids(slab); });
      ASSERT_TRUE(vocabulary.prepare());
      slabs.walk(piece, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(vocabulary.feed(slab, row)); });
      json got = {{"ids", vocabulary.ids()}, {"tokens", vocabulary.tokens()}};
      for (int l = 0; l < trace.layers; ++l) {
        const VocabularyStats stats = vocabulary.stats(l);
        got["max_vs_k1_unweighted"].push_back(stats.max_vs_k1_unweighted);
        got["max_vs_k1_weighted"].push_back(stats.max_vs_k1_weighted);
        got["max_vs_k_unweighted"].push_back(stats.max_vs_k_unweighted);
        got["max_vs_k_weighted"].push_back(stats.max_vs_k_weighted);
        got["std_by_id"].push_back(stats.std_by_id);
        got["std_by_position"].push_back(stats.std_by_position);
        got["predictor_recall"].push_back(stats.predictor_recall);
        got["uncertainty"].push_back(stats.uncertainty);
      }
      expect_fields(check, got, {});
    }
    ++compared;
  }
  EXPECT_EQ(compared, 3);
}

// MT1 layer 0, by hand: token id 4 stands at tokens 8, 11, 13 with sets 01 01 10, so both experts have share 1.
TEST(VocabularyUse, ListsTheIdsOfAnExpert) {
  VocabularyUse vocabulary(3, 4, 2, 1);
  const SlabTrace slabs(mt1());
  vocabulary.count_ids(slabs.whole());
  ASSERT_TRUE(vocabulary.prepare());
  ASSERT_TRUE(vocabulary.feed(slabs.whole(), 0));
  const auto top = vocabulary.strongest(0, 0, 2);
  ASSERT_EQ(top.size(), 2u);
  EXPECT_EQ(top[0].id, 4);
  EXPECT_EQ(top[0].count, 3u);
  EXPECT_EQ(top[0].share, 1);
}

TEST(VocabularyUse, RefusesTablesThatDoNotFitAndSaysWhatDoes) {
  VocabularyUse vocabulary(3, 4, 2, 1);
  vocabulary.count_ids(SlabTrace(mt1()).whole());
  const auto refused = vocabulary.prepare(100);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kMemory);
  EXPECT_NE(refused.error().hint.find("--min-count"), std::string::npos);
}

TEST(Saturation, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_with_data("saturation")) {
    const std::string base = check["input"]["base"], other = check["input"]["other"];  // "SYN layer 1"
    const CheckTrace& trace = trace_named(base.substr(0, base.find(' ')));
    Saturation saturation(1, trace.k);
    ASSERT_TRUE(saturation.feed(0, trace.ids[base.back() - '0'], trace.ids[other.back() - '0']));
    json got = {{"jaccard", saturation.jaccard(0)}};
    for (int j = 1; j <= trace.k; ++j) got["k" + std::to_string(j)] = saturation.overlap(0, j);
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

TEST(Repetition, MatchesTheSpec) {
  int compared = 0;
  for (const char* name : {"repetition", "reuse-distance"}) {
    for (const auto& check : checks_of(name)) {
      for (const int piece : kPieces) {
        const CheckTrace& trace = trace_named(check["input"]);
        Repetition repetition(trace.layers, trace.experts, trace.k);
        SlabTrace(trace).walk(piece, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(repetition.feed(slab, row)); });
        json got;
        for (int l = 0; l < trace.layers; ++l) {
          const RepetitionStats stats = repetition.stats(l);
          got["pairs"] = stats.pairs;
          got["same_first"].push_back(stats.same_first);
          got["any_shared"].push_back(stats.any_shared);
          got["mean_overlap"].push_back(stats.mean_overlap);
          got["histogram"].push_back(stats.reuse_distance);
          got["first_uses"].push_back(stats.first_uses);
        }
        expect_fields(check, got, {});
      }
      ++compared;
    }
  }
  EXPECT_EQ(compared, 4);
}

// analyses.md §0: Mixtral, 8 experts, 2 chosen: at least one shared 46 %.
TEST(Repetition, KnowsWhatChanceGives) {
  const RandomRepetition chance = random_repetition(8, 2);
  EXPECT_NEAR(chance.any_shared, 1 - 15.0 / 28, 1e-12);
  EXPECT_EQ(chance.same_first, 0.125);
  EXPECT_EQ(chance.overlap, 0.25);
}

json srp_json(const std::optional<SrpStats>& stats) {
  if (!stats) return {};
  return {{"srp", stats->srp}, {"rho", stats->rho}, {"threshold", stats->threshold}};
}

TEST(Locality, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("srp")) {
    for (const int piece : kPieces) {
      const CheckTrace& trace = trace_named(check["input"]);
      Locality locality(trace.layers, trace.experts, {check["params"]["m"].get<int>()});
      SlabTrace(trace).walk(piece, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(locality.feed(slab, row)); });
      locality.finish();
      json got = srp_json(srp_stats(locality.all(0)));
      for (int l = 0; l < trace.layers; ++l) {
        got["layers"].push_back(srp_json(srp_stats(locality.row(0, l))));
        got["histogram_layers"].push_back(locality.row(0, l));
      }
      for (int e = 0; e < trace.experts; ++e) got["experts_layer0"].push_back(srp_json(srp_stats(locality.expert(0, 0, ExpertId(e)))));
      expect_fields(check, got, {});
    }
    ++compared;
  }
  EXPECT_EQ(compared, 5);
}

TEST(Locality, HandCase) {
  for (const auto& check : checks_with_data("srp")) {
    const std::vector<int> used = check["input"]["used"];
    const int m = check["params"]["m"];
    std::vector<uint64_t> histogram(m + 1);
    for (size_t t = m; t <= used.size(); ++t) ++histogram[std::accumulate(used.begin() + (t - m), used.begin() + t, 0)];
    json got = srp_json(srp_stats(histogram));
    for (int a = 0; a <= m; ++a) got["f1"].push_back(srp_f1(histogram, a));
    expect_fields(check, got, {});
  }
}

// Histograms by sliding one window at a time, token by token: nothing shared with the runs of locality.cpp.
TEST(Locality, RunsGiveTheHistogramOfEveryWindow) {
  const CheckTrace& trace = syn();
  Locality locality(trace.layers, trace.experts, {5, 64}, true);
  SlabTrace(trace).walk(33, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(locality.feed(slab, row)); });
  locality.finish();
  for (const int w : {0, 1}) {
    const int m = locality.windows()[w];
    std::vector<uint64_t> expected(m + 1);
    for (int first = 0; first + m <= trace.tokens; ++first) {
      if (trace.sequence[first] != trace.sequence[first + m - 1]) continue;
      for (int e = 0; e < trace.experts; ++e) {
        int count = 0;
        for (int t = first; t < first + m; ++t)
          for (const ExpertId id : trace.token(2, t)) count += id == e;
        ++expected[count];
      }
    }
    EXPECT_EQ(locality.row(w, 2), expected);
  }
  // Ten sequences, one shorter than 64: the interval holds the estimate and is no wider than all values.
  const auto interval = locality.interval(1, 500, 7);
  ASSERT_TRUE(interval);
  const double srp = srp_stats(locality.all(1))->srp;
  EXPECT_LT(interval->low, srp);
  EXPECT_GT(interval->high, srp);
  EXPECT_LT(interval->high - interval->low, 0.1);
  EXPECT_EQ(locality.interval(1, 500, 7)->low, interval->low);  // replays from its seed
}

// Routing by chance, simulated against the binomial.
TEST(Locality, KnowsWhatChanceGives) {
  Locality locality(1, 16, {16});
  std::vector<ExpertId> ids;
  std::vector<uint32_t> sequence, position;
  uint64_t state = 88172645463325252u;
  const auto draw = [&] { state ^= state << 13, state ^= state >> 7, state ^= state << 17; return state; };
  constexpr int kTokens = 40'000;
  for (int t = 0; t < kTokens; ++t) {
    std::vector<ExpertId> all(16);
    for (int e = 0; e < 16; ++e) all[e] = ExpertId(e);
    for (int slot = 0; slot < 4; ++slot) std::swap(all[slot], all[slot + draw() % (16 - slot)]);
    ids.insert(ids.end(), all.begin(), all.begin() + 4);
    sequence.push_back(0), position.push_back(t);
  }
  RoutingSlab slab;
  slab.tokens = kTokens, slab.rows = 1, slab.experts = 16, slab.k = 4;
  slab.ids = ids, slab.sequence = sequence, slab.position = position;
  ASSERT_TRUE(locality.feed(slab, 0));
  locality.finish();
  EXPECT_NEAR(srp_stats(locality.all(0))->srp, random_srp(16, 16, 4), 0.003);
}

TEST(Locality, ASequenceShorterThanTheWindowGivesNone) {
  Locality locality(3, 4, {9}, true);
  ASSERT_TRUE(locality.feed(SlabTrace(mt1()).whole(), 0));
  locality.finish();
  EXPECT_FALSE(srp_stats(locality.all(0)));
  EXPECT_FALSE(locality.interval(0, 10, 0));
}

TEST(NextExpert, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("next-layer-prediction")) {
    for (const int piece : kPieces) {
      const CheckTrace& trace = trace_named(check["input"]);
      const SlabTrace slabs(trace);
      Affinity affinity(trace.layers, trace.experts);
      Load load(trace.layers, trace.experts);
      slabs.walk(piece, [&](const RoutingSlab& slab, int row) {
        ASSERT_TRUE(load.feed(row, slab.row_ids(row), slab.k));
        for (int t = 0; t < slab.tokens && row + 1 < slab.rows; ++t) ASSERT_TRUE(affinity.feed(row, slab.token(row, t), slab.token(row + 1, t)));
      });
      const int from = check["params"]["from"];
      NextExpert next(trace.layers, trace.experts, trace.k);
      next.train(from, affinity.topk(from), load.counts(from + 1));
      slabs.walk(piece, [&](const RoutingSlab& slab, int row) { if (row == from) { ASSERT_TRUE(next.feed(slab, row)); } });
      const PredictionStats stats = next.stats(from);
      expect_fields(check, {{"transition_recall", stats.transition_recall}, {"transition_exact", stats.transition_exact},
                            {"frequency_recall", stats.frequency_recall}, {"frequency_exact", stats.frequency_exact}}, {});
    }
    ++compared;
  }
  EXPECT_EQ(compared, 5);
}

// Three tokens, two rows, k = 2: guessed {0,1}, none, {3,2}; chosen {1,0}, {1,2}, {2,0}.
TEST(NextExpert, ScoresRecordedGuessesWhereThereAreSome) {
  const std::vector<ExpertId> ids = {0, 1, 2, 3, 0, 2, 1, 0, 1, 2, 2, 0};
  std::vector<ExpertId> guessed(12, kNoExpert);
  guessed[6] = 0, guessed[7] = 1, guessed[10] = 3, guessed[11] = 2;
  const std::vector<uint32_t> sequence(3), position = {0, 1, 2};
  const RoutingSlab slab{.tokens = 3, .rows = 2, .experts = 4, .k = 2, .ids = ids, .sequence = sequence, .position = position, .guessed = guessed};
  NextExpert next(2, 4, 2);
  next.train(0, std::vector<uint64_t>(16, 1), std::vector<uint64_t>(4, 1));
  ASSERT_TRUE(next.feed(slab, 0));
  const PredictionStats stats = next.stats(0);
  EXPECT_EQ(stats.tokens, 3u);
  EXPECT_EQ(stats.gate_tokens, 2u);
  EXPECT_DOUBLE_EQ(stats.gate_recall, 3.0 / 4);
  EXPECT_DOUBLE_EQ(stats.gate_exact, 1.0 / 2);
}

TEST(GateSharpness, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("entropy")) {
    if (check["params"].contains("tokens")) continue;
    for (const int piece : kPieces) {
      const CheckTrace& trace = trace_named(check["input"]);
      const SlabTrace slabs(trace, false);
      GateSharpness sharpness(trace.layers);
      GateEntropy gates(trace.layers, trace.experts);
      slabs.walk(piece, [&](const RoutingSlab& slab, int row) {
        ASSERT_TRUE(sharpness.feed(slab, row));
        ASSERT_TRUE(gates.feed(row, slab.of_row(slab.router_logits, row)));
      });
      sharpness.begin_second_walk();
      slabs.walk(piece, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(sharpness.feed_again(slab, row)); });
      json got;
      for (int l = 0; l < trace.layers; ++l) {
        const SharpnessStats stats = sharpness.stats(l);
        EXPECT_EQ(difference(*stats.mean_entropy, gates.stats(l).mean_entropy, 1e-9), "");
        got["mean_entropy"].push_back(*stats.mean_entropy);
        got["mean_topk_mass"].push_back(*stats.mean_topk_mass);
        got["mean_margin"].push_back(*stats.mean_margin);
        got["median_w2_over_w1"].push_back(*stats.median_w2_over_w1);
        got["entropy_of_mean"].push_back(gates.stats(l).entropy_of_mean);
        got["mutual_information"].push_back(gates.stats(l).mutual_information);
        got["mean_top1_prob"].push_back(gates.stats(l).mean_top1_prob);
      }
      expect_fields(check, got, {});
    }
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

// What the engine wrote of its decision counts before what the raw logits say; a token that is masked counts in nothing.
TEST(GateSharpness, TakesTheDecisionAsItWas) {
  const ExpertId ids[] = {1, 0, 0, 1, kNoExpert, kNoExpert};
  const float weights[] = {0.5f, 0.25f, 0.75f, 0.1875f, 0, 0}, entropy[] = {1, 2, 50}, mass[] = {0.5f, 0.75f, 50}, margin[] = {3, 5, 50};
  const float logits[] = {0, 0, 9, 9, 0, 0, 1, 2, 3};
  const uint32_t sequence[] = {0, 0, 0}, position[] = {0, 1, 2};
  const uint8_t mask[] = {1, 1, 0};
  RoutingSlab slab;
  slab.tokens = 3, slab.rows = 1, slab.experts = 3, slab.k = 2;
  slab.ids = ids, slab.weights = weights, slab.entropy = entropy, slab.topk_mass = mass, slab.margin = margin, slab.router_logits = logits;
  slab.sequence = sequence, slab.position = position, slab.mask = mask;
  GateSharpness sharpness(1);
  ASSERT_TRUE(sharpness.feed(slab, 0));
  sharpness.begin_second_walk();
  ASSERT_TRUE(sharpness.feed_again(slab, 0));
  const SharpnessStats stats = sharpness.stats(0);
  EXPECT_EQ(stats.tokens, 2u);
  EXPECT_EQ(*stats.mean_entropy, 1.5);
  EXPECT_EQ(*stats.mean_topk_mass, 0.625);
  EXPECT_EQ(*stats.mean_margin, 4);
  EXPECT_EQ(*stats.median_w2_over_w1, 0.375);  // of 1/2 and 1/4
}

TEST(GateSharpness, EntropyOfATemperatureAndFlipRadius) {
  for (const auto& check : checks_with_data("softmax-entropy")) {
    const std::vector<float> logits = check["input"]["logits"];
    expect_fields(check, {{"entropy", softmax_entropy(logits, check["params"]["temperature"])}}, {});
  }
  for (const auto& check : checks_with_data("flip-radius")) {
    const std::vector<float> a = check["input"]["w_k"], b = check["input"]["w_k1"];
    expect_fields(check, {{"radius", flip_radius(check["input"]["margin"], a, b)}}, {});
  }
}

TEST(BalanceLosses, MatchTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("balance-loss")) {
    const CheckTrace& trace = trace_named(check["input"]);
    GateEntropy gates(trace.layers, trace.experts);
    Load load(trace.layers, trace.experts);
    std::vector<std::span<const uint64_t>> counts;
    std::vector<std::span<const double>> sums;
    json got;
    for (int l = 0; l < trace.layers; ++l) {
      ASSERT_TRUE(gates.feed(l, trace.logits[l]));
      ASSERT_TRUE(load.feed(l, trace.ids[l], trace.k));
    }
    for (int l = 0; l < trace.layers; ++l) {
      counts.push_back(load.counts(l)), sums.push_back(gates.prob_sum(l));
      const BalanceLosses losses = balance_losses(load.counts(l), load.first_choice_counts(l), gates.prob_sum(l), trace.tokens, trace.k);
      got["normalised"].push_back(losses.normalised);
      got["hf_per_layer"].push_back(losses.per_layer);
      got["switch"].push_back(losses.switch_form);
      got["z_loss"].push_back(gates.stats(l).z_loss);
    }
    got["hf_pooled"] = pooled_balance_loss(counts, sums, trace.tokens);
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

// Criteria of one row as checks.json names them.
json criteria_of(std::span<const Saliency> row) {
  json out;
  for (const Saliency& one : row) {
    out["frequency"].push_back(one.frequency);
    out["seer_soft"].push_back(one.seer_soft);
    out["ean_sum"].push_back(one.ean_sum);
    out["ean_mean"].push_back(one.ean_mean());
    out["weighted_ean"].push_back(one.weighted_ean);
    out["reap"].push_back(one.reap());
    out["easy_ep"].push_back(one.easy_ep);
  }
  return out;
}

// SYN's weights are stored as float32, as a trace has them: 6e-8 of each.
TEST(Saliency, MatchesTheSpecOnSyn) {
  const SlabTrace slabs(syn());
  ExpertSaliency saliency(syn().layers, syn().experts);
  slabs.walk(97, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(saliency.feed(slab, row)); });
  int compared = 0;
  for (auto check : checks_of("saliency")) {
    check["tolerance"] = 1e-7;
    expect_fields(check, criteria_of(saliency.row(check["params"]["layer"])), {});
    ++compared;
  }
  for (const auto& check : checks_of("pruned-set")) {
    const json criteria = criteria_of(saliency.row(check["params"]["layer"]));
    json got;
    for (const auto& [name, scores] : criteria.items()) got[name] = pruned_set(scores.get<std::vector<double>>(), check["params"]["keep"]);
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 8);
}

// The repository's own example: 3 experts, 2 chosen, 2 tokens; and EASY-EP's two tokens.
TEST(Saliency, MatchesTheWorkedExamples) {
  int compared = 0;
  for (const char* name : {"saliency", "easy-ep"}) {
    for (auto check : checks_with_data(name)) {
      const json& input = check["input"];
      RoutingSlab slab;
      slab.rows = 1, slab.tokens = int(input["chosen"].size()), slab.k = int(input["chosen"][0].size());
      slab.experts = input.contains("logits") ? int(input["logits"][0].size()) : check["params"]["experts"].get<int>();
      std::vector<ExpertId> ids;
      std::vector<float> weights, norms, cosines;
      std::vector<uint32_t> places(slab.tokens);
      for (int t = 0; t < slab.tokens; ++t) {
        double total = 0;
        if (input.contains("logits"))
          for (const double z : input["logits"][t].get<std::vector<double>>()) total += std::exp(z);
        for (int slot = 0; slot < slab.k; ++slot) {
          const int e = input["chosen"][t][slot];
          ids.push_back(ExpertId(e));
          weights.push_back(input.contains("weight") ? input["weight"][t][slot].get<float>() : float(std::exp(input["logits"][t][e].get<double>()) / total));
          norms.push_back(input["out_norm"][t][slot]);
        }
        if (input.contains("block_cos")) cosines.push_back(input["block_cos"][t]);
      }
      slab.ids = ids, slab.weights = weights, slab.out_norm = norms, slab.block_cos = cosines, slab.sequence = places, slab.position = places;
      ExpertSaliency saliency(1, slab.experts, check["params"].value("renormalise", false));
      ASSERT_TRUE(saliency.feed(slab, 0));
      check["tolerance"] = 1e-6;  // weights are float32
      expect_fields(check, criteria_of(saliency.row(0)), {});
      ++compared;
    }
  }
  EXPECT_EQ(compared, 3);
}

TEST(Pruning, NaeeMergeAndSuperExperts) {
  for (const auto& check : checks_with_data("naee")) {
    const auto outputs = doubles(check["input"]["outputs"]), logits = doubles(check["input"]["logits"]);
    const bool together = check["params"]["blocks"] == "both tokens in one block";
    const std::vector<int> blocks = together ? std::vector<int>{0, 2} : std::vector<int>{0, 1, 2};
    const auto losses = naee_losses(outputs, logits, 3, check["params"]["k"], 1, blocks);
    expect_fields(check, {{"loss_if_dropped", losses}, {"drop", std::min_element(losses.begin(), losses.end()) - losses.begin()}}, {});
  }
  for (const auto& check : checks_with_data("merge")) {
    const auto weights = check["input"]["W"].get<std::vector<std::vector<double>>>();
    expect_fields(check, {{"merged", merged_weights(check["input"]["f"].get<std::vector<double>>(), weights, check["params"]["members"].get<std::vector<int>>())}}, {});
  }
  int compared = 0;
  for (const auto& check : checks_with_data("super-experts")) {
    std::vector<float> max_act;
    for (const double value : doubles(check["input"]["max_act"])) max_act.push_back(float(value));
    const SuperExperts got = super_experts(max_act, int(check["input"]["max_act"].size()), check["params"]["percentile"], check["params"]["first_layers_share"]);
    expect_fields(check, {{"quantile", got.quantile}, {"threshold", got.threshold}, {"experts", got.experts}}, {});
    ++compared;
  }
  EXPECT_EQ(compared, 7);
}

TEST(Pruning, SpearmanByHand) {
  const double a[] = {1, 2, 3, 4}, b[] = {10, 30, 20, 40}, flat[] = {1, 1, 1, 1}, tied[] = {1, 2, 2, 3};
  EXPECT_NEAR(rank_correlation(a, b), 0.8, 1e-12);  // 1 - 6 * 2 / (4 * 15)
  EXPECT_NEAR(rank_correlation(a, tied), 0.948683298050514, 1e-12);  // Pearson of the ranks 0, 1.5, 1.5, 3
  EXPECT_EQ(rank_correlation(a, flat), 0);
}

TEST(LongTail, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("long-tail")) {
    const CheckTrace& trace = trace_named(check["input"]);
    Load load(trace.layers, trace.experts);
    json got;
    for (int l = 0; l < trace.layers; ++l) {
      ASSERT_TRUE(load.feed(l, trace.ids[l], trace.k));
      got["n80"].push_back(experts_for_share(load.counts(l), 80));
      got["n90"].push_back(experts_for_share(load.counts(l), 90));
    }
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

TEST(Similarity, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("logit-similarity")) {
    const CheckTrace& trace = trace_named(check["input"]);
    const int layer = check["params"]["layer"];
    LogitSimilarity similarity(trace.layers, trace.experts);
    SlabTrace(trace).walk(111, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(similarity.feed(slab, row)); });
    const auto cosines = similarity.cosines(layer);
    expect_fields(check, {{"cosine_row0", std::vector<double>(cosines.begin(), cosines.begin() + trace.experts)}}, {});
    ++compared;
  }
  for (const auto& check : checks_with_data("router-similarity")) {
    const bool scaled = check["input"].contains("rows_x64");
    const json& rows = check["input"][scaled ? "rows_x64" : "rows"];
    const int n = int(rows.size());
    std::vector<float> values;
    for (const double value : doubles(rows)) values.push_back(float(value / (scaled ? 64 : 1)));
    const auto cosines = cosine_matrix(values, n, int(rows[0].size()));
    json matrix = json::array();
    double above = 0;
    for (int i = 0; i < n; ++i) {
      matrix.push_back(std::vector<double>(cosines.begin() + i * n, cosines.begin() + (i + 1) * n));
      for (int j = i + 1; j < n; ++j) above += cosines[i * n + j];
    }
    expect_fields(check, {{"cosine", matrix}, {"cosine_row0", matrix[0]}, {"sum_above_diagonal", above}}, {});
    ++compared;
  }
  for (const auto& check : checks_with_data("cka")) {
    const bool scaled = check["input"].contains("X_x64");
    const json &xs = check["input"][scaled ? "X_x64" : "X"], &ys = check["input"][scaled ? "Y_x64" : "Y"];
    const auto x = doubles(xs), y = doubles(ys);
    const int n = int(xs.size()), d = int(xs[0].size());
    std::vector<double> sum(x);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += y[i];
    expect_fields(check, {{"cka", linear_cka(x, d, y, d, n)}, {"flattened_cosine", flattened_cosine(x, y)}, {"cka_X_with_X_plus_Y", linear_cka(x, d, sum, d, n)}}, {});
    ++compared;
  }
  EXPECT_EQ(compared, 8);
}

TEST(Cohort, MatchesTheSpec) {
  int compared = 0;
  for (const auto& check : checks_of("cohort")) {
    const CheckTrace& trace = trace_named(check["input"]);
    DomainLoad load(trace.layers, trace.experts, trace.domains);
    SlabTrace(trace).walk(50, [&](const RoutingSlab& slab, int row) { ASSERT_TRUE(load.feed(slab, row)); });
    json got;
    std::vector<double> all_p;
    for (int l = 0; l < trace.layers; ++l) {
      const RoutingDifference difference = routing_difference(load.counts(0, l), load.tokens(0), load.counts(1, l), load.tokens(1));
      got["delta"].push_back(difference.rd);
      got["z"].push_back(difference.z);
      json p;
      for (const double z : difference.z) {
        all_p.push_back(two_sided_p(z));
        p.push_back(all_p.back());
      }
      got["p"].push_back(p);
    }
    const auto q = benjamini_hochberg(all_p);
    int below = 0;
    for (const double value : q) below += value < 0.05;
    for (int l = 0; l < trace.layers; ++l) got["q"].push_back(std::vector<double>(q.begin() + l * trace.experts, q.begin() + (l + 1) * trace.experts));
    for (const char* field : {"delta", "z", "p", "q"}) got[std::string(field) + "_layer0"] = got[field][0];
    got["below_q_0.05"] = below;
    expect_fields(check, got, {});
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

}  // namespace
}  // namespace switchyard::testing
