// How often, how sharply and for which tokens experts are chosen, as analyses over a trace.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

#include "engine/analysis/affinity.h"
#include "engine/analysis/coactivation.h"
#include "engine/analysis/domain_load.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/gate_sharpness.h"
#include "engine/analysis/load.h"
#include "engine/analysis/pruning.h"
#include "engine/analysis/shaped_analysis.h"
#include "engine/analysis/vocabulary.h"

namespace switchyard::analysis {
namespace {

class LoadAnalysis final : public ShapedAnalysis {
 public:
  LoadAnalysis(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), load_(shape.rows, shape.experts), batch_tokens_(options.batch_tokens),
        tokens_(shape.rows), batches_(shape.rows, Batches{Load(1, shape.experts)}) {}

  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    SY_CHECK(load_.feed(row, slab.row_ids(row), slab.k));
    for (int t = 0; t < slab.tokens; ++t) tokens_[row] += slab.mask.empty() || slab.mask[t] != 0;
    for (int t = 0; batch_tokens_ > 0 && t < slab.tokens; ++t) {
      if (!slab.mask.empty() && slab.mask[t] == 0) continue;
      Batches& batches = batches_[row];
      SY_CHECK(batches.load.feed(0, slab.token(row, t), slab.k));
      if (++batches.tokens % uint64_t(batch_tokens_) != 0) continue;
      batches.sum += batches.load.stats(0).max_vio;
      batches.load.clear();
    }
    return {};
  }

  Result<void> take_counts(int row, std::span<const uint64_t> counts, uint64_t tokens) override {
    tokens_[row] += tokens;
    return load_.add(row, counts);
  }

  Document result() override {
    Document out;
    double mean = 0;
    out["layers"] = layers([&](int r, Document& one) {
      const LoadStats stats = load_.stats(r), top1 = load_stats(load_.first_choice_counts(r));
      one["counts"] = list(load_.counts(r));
      one["max_over_mean"] = stats.max_vio + 1;
      one["cv"] = stats.cv;
      one["gini"] = stats.gini;
      one["entropy_bits"] = stats.entropy / std::log(2.0);
      one["dead"] = stats.dead;
      one["maxvio"] = stats.max_vio;
      one["minvio"] = stats.min_vio;
      one["entropy_normalised"] = shape_.experts > 1 ? stats.entropy / std::log(double(shape_.experts)) : 0;
      one["effective_experts"] = stats.effective_experts;
      one["mean_over_max"] = 1 / (stats.max_vio + 1);
      one["std_100f"] = tokens_[r] > 0 ? 100 * stats.cv * double(stats.total) / double(shape_.experts) / double(tokens_[r]) : 0;
      one["nearly_dead"] = stats.nearly_dead;
      if (shape_.ranked && !shape_.counts_only) {
        one["counts_top1"] = list(load_.first_choice_counts(r));
        one["maxvio_top1"] = top1.max_vio;
      }
      if (batch_tokens_ > 0) {
        const uint64_t whole = batches_[r].tokens / uint64_t(batch_tokens_);
        one["maxvio_batch_mean"] = whole > 0 ? Document(batches_[r].sum / double(whole)) : Document();
      }
      mean += (stats.max_vio + 1) / shape_.rows;
    });
    out["mean_max_over_mean"] = mean;
    return out;
  }

 private:
  struct Batches {
    Load load;
    uint64_t tokens = 0;
    double sum = 0;
  };
  Load load_;
  int batch_tokens_;
  std::vector<uint64_t> tokens_;  // [rows]
  std::vector<Batches> batches_;  // [rows]
};

// Windows are stretches of as many tokens, whatever the sequences; the last holds what is left.
class LoadOverTime final : public ShapedAnalysis {
 public:
  LoadOverTime(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), window_(options.batch_tokens > 0 ? uint64_t(options.batch_tokens) : std::max<uint64_t>(kLeast, (shape.tokens + kMost - 1) / kMost)),
        rows_(size_t(shape.rows), Row{Load(1, shape.experts), 0, 0, Document::array()}) {}

  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    Row& own = rows_[size_t(row)];
    for (int t = 0; t < slab.tokens; ++t) {
      if (!slab.mask.empty() && slab.mask[t] == 0) continue;
      if (own.tokens == 0) own.first_token = slab.first_token + uint64_t(t);
      SY_CHECK(own.load.feed(0, slab.token(row, t), slab.k));
      if (++own.tokens == window_) close(own);
    }
    return {};
  }

  Document result() override {
    Document out = {{"batch_tokens", window_}, {"random_maxvio", number(random_max_vio(shape_.experts, shape_.k, window_))}};
    out["layers"] = layers([&](int r, Document& one) {
      if (rows_[size_t(r)].tokens > 0) close(rows_[size_t(r)]);
      one["windows"] = rows_[size_t(r)].windows;
    });
    return out;
  }

 private:
  static constexpr uint64_t kLeast = 16, kMost = 128;  // tokens of a window, and windows, where nobody chose
  struct Row {
    Load load;
    uint64_t tokens = 0, first_token = 0;  // of the window in hand
    Document windows;
  };
  static void close(Row& row) {
    const LoadStats stats = row.load.stats(0);
    row.windows.push_back({{"window", row.windows.size()}, {"first_token", row.first_token}, {"tokens", row.tokens}, {"maxvio", stats.max_vio}, {"cv", stats.cv},
                           {"gini", stats.gini}, {"effective_experts", stats.effective_experts}, {"dead", stats.dead}});
    row.load.clear();
    row.tokens = 0;
  }
  const uint64_t window_;
  std::vector<Row> rows_;
};

// Histograms of what a decision says of itself: [rows][quantities][bins].
class DistributionAnalysis final : public ShapedAnalysis {
 public:
  explicit DistributionAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), counts_(size_t(shape.rows) * kQuantities * kBins) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    const std::span<const float> all[kQuantities] = {slab.of_row(slab.entropy, row), slab.of_row(slab.topk_mass, row), slab.of_row(slab.margin, row)};
    for (size_t q = 0; q < kQuantities; ++q)
      for (size_t t = 0; t < all[q].size(); ++t) {
        if ((!slab.mask.empty() && slab.mask[t] == 0) || !std::isfinite(all[q][t])) continue;
        const double share = double(all[q][t]) / top(q);
        const int bin = std::clamp(int(share * kBins), 0, kBins - 1);
        ++counts_[(size_t(row) * kQuantities + q) * kBins + size_t(bin)];
        if (q == 2 && share >= 1) above_.fetch_add(1, std::memory_order_relaxed);
      }
    return {};
  }
  Document result() override {
    Document out = {{"bins", kBins}, {"top", {{"entropy", top(0)}, {"topk_mass", top(1)}, {"margin", top(2)}}}, {"margins_above", above_.load()}};
    out["layers"] = layers([&](int r, Document& one) {
      constexpr const char* kNames[kQuantities] = {"entropy", "topk_mass", "margin"};
      for (size_t q = 0; q < kQuantities; ++q) one[kNames[q]] = list(std::span<const uint64_t>(counts_).subspan((size_t(r) * kQuantities + q) * kBins, kBins));
    });
    return out;
  }

 private:
  static constexpr size_t kQuantities = 3;
  static constexpr int kBins = 32;
  // Where the last bin ends: ln E nats; all of the mass; a margin of 8 between logits, and what is above it.
  double top(size_t quantity) const { return quantity == 0 ? std::log(double(std::max(shape_.experts, 2))) : quantity == 1 ? 1 : 8; }

  std::vector<uint64_t> counts_;
  std::atomic<uint64_t> above_{0};
};

class BalanceLossAnalysis final : public ShapedAnalysis {
 public:
  explicit BalanceLossAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), load_(shape.rows, shape.experts), gates_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    SY_CHECK(load_.feed(row, slab.row_ids(row), slab.k));
    return gates_.feed(row, slab.of_row(slab.router_logits, row), slab.mask);
  }
  Document result() override {
    Document out;
    std::vector<std::span<const uint64_t>> counts;
    std::vector<std::span<const double>> sums;
    uint64_t tokens = 0;
    out["layers"] = layers([&](int r, Document& one) {
      counts.push_back(load_.counts(r)), sums.push_back(gates_.prob_sum(r));
      const GateEntropyStats stats = gates_.stats(r);
      tokens = std::max(tokens, stats.tokens);
      if (stats.tokens == 0) return;
      const BalanceLosses losses = balance_losses(counts.back(), load_.first_choice_counts(r), sums.back(), stats.tokens, shape_.k);
      one["normalised"] = losses.normalised;
      one["hf_per_layer"] = losses.per_layer;
      one["switch"] = losses.switch_form;
      one["z_loss"] = stats.z_loss;
    });
    out["hf_pooled"] = pooled_balance_loss(counts, sums, tokens);
    return out;
  }

 private:
  Load load_;
  GateEntropy gates_;
};

class EntropyAnalysis final : public ShapedAnalysis {
 public:
  explicit EntropyAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), sharpness_(shape.rows), gates_(shape.rows, shape.experts) {}
  int walks() const override { return 2; }
  Result<void> begin(int walk) override {
    if (walk == 1) sharpness_.begin_second_walk();
    return {};
  }
  Result<void> feed(int walk, const RoutingSlab& slab, int row) override {
    if (walk == 1) return sharpness_.feed_again(slab, row);
    if (!slab.router_logits.empty()) SY_CHECK(gates_.feed(row, slab.of_row(slab.router_logits, row), slab.mask));
    return sharpness_.feed(slab, row);
  }
  // Without recorded logits the mean gate is unknown: those fields are null.
  Document result() override {
    Document out;
    out["layers"] = layers([&](int r, Document& one) {
      const SharpnessStats stats = sharpness_.stats(r);
      const GateEntropyStats gates = gates_.stats(r);
      const auto of_logits = [&](double value) { return gates.tokens > 0 ? Document(value) : Document(); };
      one["mean_entropy"] = number(stats.mean_entropy);
      one["entropy_of_mean"] = of_logits(gates.entropy_of_mean);
      one["mutual_information"] = of_logits(gates.mutual_information);
      one["mean_top1_prob"] = of_logits(gates.mean_top1_prob);
      one["mean_topk_mass"] = number(stats.mean_topk_mass);
      one["mean_margin"] = number(stats.mean_margin);
      one["median_w2_over_w1"] = number(stats.median_w2_over_w1);
    });
    return out;
  }

 private:
  GateSharpness sharpness_;
  GateEntropy gates_;
};

class CoactivationAnalysis final : public ShapedAnalysis {
 public:
  CoactivationAnalysis(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), options_(options),
        pairs_(shape.rows, shape.experts, options.neighbours ? Coactivation::Pairs::kNeighbours : Coactivation::Pairs::kAll), tokens_(shape.rows) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    for (int t = 0; t < slab.tokens; ++t) tokens_[row] += slab.mask.empty() || slab.mask[t] != 0;
    return pairs_.feed(row, slab.row_ids(row), slab.k);
  }
  Document result() override {
    Document out;
    if (options_.neighbours) out["pairs"] = "neighbouring ranks";
    out["layers"] = layers([&](int r, Document& one) {
      const auto upper = pairs_above_diagonal(pairs_.counts(r), shape_.experts);
      one["top_pairs"] = pairs_json(upper, shape_.experts, options_.top);
      one["total"] = std::accumulate(upper.begin(), upper.end(), uint64_t(0));
      if (!options_.matrices) return;
      Document counts = Document::array();
      for (int e = 0; e < shape_.experts; ++e) counts.push_back(list(pairs_.counts(r).subspan(size_t(e) * shape_.experts, shape_.experts)));
      one["pairs"] = std::move(counts);
      one["conditional"] = matrix(coactivation_rate(pairs_.counts(r), shape_.experts), shape_.experts);
      one["jaccard"] = matrix(coactivation_jaccard(pairs_.counts(r), shape_.experts), shape_.experts);
      one["pmi"] = matrix(coactivation_pmi(pairs_.counts(r), shape_.experts, tokens_[r]), shape_.experts);
    });
    return out;
  }

 private:
  AnalysisOptions options_;
  Coactivation pairs_;
  std::vector<uint64_t> tokens_;
};

class DomainAnalysis final : public ShapedAnalysis {
 public:
  explicit DomainAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), load_(shape.rows, shape.experts, int(shape.domains.size())) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return load_.feed(slab, row); }
  Document result() override {
    Document out = {{"domains", shape_.domains}, {"uniform", double(shape_.k) / shape_.experts}};
    for (int d = 0; d < load_.domains(); ++d) out["tokens"].push_back(load_.tokens(d) + (shape_.sides > 1 ? load_.tokens(d, shape_.rows - 1) : 0));
    out["layers"] = layers([&](int r, Document& one) {
      for (int d = 0; d < load_.domains(); ++d) {
        const auto share = load_.specialisation(d, r);
        const auto top = std::max_element(share.begin(), share.end());
        one["count"].push_back(list(load_.counts(d, r)));
        one["specialisation"].push_back(list(share));
        one["max_specialisation"].push_back(*top);
        one["max_expert"].push_back(top - share.begin());
      }
      one["mean_cv_across_domains"] = load_.mean_cv_across_domains(r);
    });
    return out;
  }

 private:
  DomainLoad load_;
};

class VocabularyAnalysis final : public ShapedAnalysis {
 public:
  VocabularyAnalysis(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), options_(options), vocabulary_(shape.rows, shape.experts, shape.k, options.min_count) {}
  int walks() const override { return 2; }
  Result<void> begin(int walk) override { return walk == 1 ? vocabulary_.prepare() : Result<void>{}; }
  Result<void> feed(int walk, const RoutingSlab& slab, int row) override {
    if (walk == 1) return vocabulary_.feed(slab, row);
    if (row == 0) vocabulary_.count_ids(slab);
    return {};
  }
  Document result() override {
    Document out = {{"min_count", options_.min_count}, {"ids", vocabulary_.ids()}, {"tokens", vocabulary_.tokens()},
                    {"random_recall", double(shape_.k) / shape_.experts}};
    out["layers"] = layers([&](int r, Document& one) {
      const VocabularyStats stats = vocabulary_.stats(r);
      one["max_vs_k1_unweighted"] = stats.max_vs_k1_unweighted;
      one["max_vs_k1_weighted"] = stats.max_vs_k1_weighted;
      one["max_vs_k_unweighted"] = stats.max_vs_k_unweighted;
      one["max_vs_k_weighted"] = stats.max_vs_k_weighted;
      one["std_by_id"] = stats.std_by_id;
      one["std_by_position"] = stats.std_by_position;
      one["predictor_recall"] = stats.predictor_recall;
      one["uncertainty"] = stats.uncertainty;
      Document experts = Document::array();
      for (int e = 0; e < shape_.experts; ++e) {
        Document top = Document::array();
        for (const TokenShare& token : vocabulary_.strongest(r, ExpertId(e), size_t(std::max(options_.top, 0))))
          top.push_back({{"id", token.id}, {"count", token.count}, {"share", token.share}});
        experts.push_back({{"expert", e}, {"top", std::move(top)}});
      }
      one["experts"] = std::move(experts);
    });
    return out;
  }

 private:
  AnalysisOptions options_;
  VocabularyUse vocabulary_;
};

class LongTailAnalysis final : public ShapedAnalysis {
 public:
  explicit LongTailAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), load_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return load_.feed(row, slab.row_ids(row), slab.k); }
  Result<void> take_counts(int row, std::span<const uint64_t> counts, uint64_t) override { return load_.add(row, counts); }
  Document result() override {
    Document out;
    out["layers"] = layers([&](int r, Document& one) {
      one["n80"] = experts_for_share(load_.counts(r), 80);
      one["n90"] = experts_for_share(load_.counts(r), 90);
      std::vector<uint64_t> falling(load_.counts(r).begin(), load_.counts(r).end());
      std::sort(falling.begin(), falling.end(), std::greater<>());
      one["counts_by_rank"] = falling;
    });
    return out;
  }

 private:
  Load load_;
};

Made make_vocabulary(const TraceShape& shape, const AnalysisOptions& options) {
  if (shape.sides > 1) return usage("the token ids of an encoder and of a decoder are counted apart.", "Choose the layers of one side with --layers.");
  return std::make_unique<VocabularyAnalysis>(shape, options);
}

}  // namespace

std::vector<AnalysisInfo> load_analyses() {
  return {
      {.name = "load", .section = "A1", .title = "Expert load and imbalance",
       .needs = {kIds}, .counts_do = true, .options = {"batch-tokens"}, .make = with_options<LoadAnalysis>},
      {.name = "load-over-time", .section = "A1", .title = "Expert load, window after window",
       .needs = {kIds}, .options = {"batch-tokens"}, .make = with_options<LoadOverTime>},
      {.name = "balance-loss", .section = "A1", .title = "Balance and z losses, in their three scalings",
       .needs = {kIds, kLogits}, .needs_rank = true, .make = plain<BalanceLossAnalysis>},
      {.name = "entropy", .section = "A2", .title = "Routing entropy, gate sharpness and margin",
       .needs = {"/routing/entropy"}, .instead = {kLogits}, .uses = {kWeights, "/routing/topk_mass", "/routing/margin", kLogits}, .needs_rank = true, .make = plain<EntropyAnalysis>},
      {.name = "distribution", .section = "A2", .title = "How entropy, top-k mass and margin are spread over the tokens",
       .needs = {"/routing/entropy", "/routing/topk_mass", "/routing/margin"}, .make = plain<DistributionAnalysis>},
      {.name = "coactivation", .section = "A3", .title = "Experts chosen for the same token",
       .needs = {kIds}, .options = {"top", "neighbours", "matrices"}, .make = with_options<CoactivationAnalysis>},
      {.name = "domain", .section = "A4", .title = "Which domains an expert serves",
       .needs = {kIds, kDomain}, .make = plain<DomainAnalysis>},
      {.name = "vocabulary", .section = "A5", .title = "Which token ids an expert serves",
       .needs = {kIds, "/tokens/token_id"}, .needs_rank = true, .options = {"top", "min-count"}, .make = make_vocabulary},
      {.name = "long-tail", .section = "A16", .title = "How few experts carry most of the load",
       .needs = {kIds}, .counts_do = true, .make = plain<LongTailAnalysis>},
  };
}

}  // namespace switchyard::analysis
