// The analyses over traces: each feeds the mathematics of its own file and names its numbers (specs/cli-json.md, and
// about.fields of the specs' check file).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "engine/analysis/affinity.h"
#include "engine/analysis/analysis.h"
#include "engine/analysis/check_ids.h"
#include "engine/analysis/coactivation.h"
#include "engine/analysis/contrast.h"
#include "engine/analysis/domain_load.h"
#include "engine/analysis/esft.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/gate_sharpness.h"
#include "engine/analysis/load.h"
#include "engine/analysis/locality.h"
#include "engine/analysis/next_expert.h"
#include "engine/analysis/pruning.h"
#include "engine/analysis/repetition.h"
#include "engine/analysis/similarity.h"
#include "engine/analysis/vocabulary.h"

namespace switchyard {
namespace {

using Document = nlohmann::ordered_json;
using Made = Result<std::unique_ptr<Analysis>>;

template <class T>
Document list(std::span<const T> values) {
  Document out = Document::array();
  for (const T value : values) {
    if constexpr (std::is_floating_point_v<T>) out.push_back(std::isfinite(value) ? Document(value) : Document());
    else out.push_back(value);
  }
  return out;
}
template <class T>
Document list(const std::vector<T>& values) { return list(std::span<const T>(values)); }

Document matrix(std::span<const double> values, int columns) {
  Document out = Document::array();
  for (size_t first = 0; first < values.size(); first += size_t(columns)) out.push_back(list(values.subspan(first, size_t(columns))));
  return out;
}

Document number(const std::optional<double>& value) { return value ? Document(*value) : Document(); }

// What every analysis of a shape shares.
class ShapedAnalysis : public Analysis {
 public:
  explicit ShapedAnalysis(const TraceShape& shape) : shape_(shape) {}

 protected:
  // {"layer": 3}, and which router where a layer has several.
  Document row(int row) const {
    Document out = {{"layer", shape_.layers[row]}};
    const bool several = (row > 0 && shape_.layers[row - 1] == shape_.layers[row]) ||
                         (row + 1 < shape_.rows && shape_.layers[row + 1] == shape_.layers[row]);
    if (several && size_t(row) < shape_.row_names.size()) out["router"] = shape_.row_names[row];
    return out;
  }
  template <class Fill>
  Document layers(Fill&& fill) const {
    Document out = Document::array();
    for (int r = 0; r < shape_.rows; ++r) {
      Document one = row(r);
      fill(r, one);
      out.push_back(std::move(one));
    }
    return out;
  }
  const TraceShape shape_;
};

class LoadAnalysis final : public ShapedAnalysis {
 public:
  LoadAnalysis(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), load_(shape.rows, shape.experts), batch_tokens_(options.batch_tokens),
        tokens_(shape.rows), batches_(shape.rows, Batches{Load(1, shape.experts)}) {}

  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    SY_CHECK(load_.feed(row, slab.row_ids(row), slab.k));
    for (int t = 0; t < slab.tokens; ++t) tokens_[row] += slab.mask.empty() || slab.mask[t] != 0;
    for (int t = 0; batch_tokens_ > 0 && t < slab.tokens; ++t) {
      Batches& batches = batches_[row];
      SY_CHECK(batches.load.feed(0, slab.token(row, t), slab.k));
      if (++batches.tokens % uint64_t(batch_tokens_) != 0) continue;
      batches.sum += batches.load.stats(0).max_vio;
      batches.load.clear();
    }
    return {};
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
      if (shape_.ranked) {
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

Document pairs_json(std::span<const uint64_t> counts, int experts, int top) {
  Document out = Document::array();
  for (const ExpertPair& pair : strongest_pairs(counts, experts, top)) out.push_back({{"i", pair.from}, {"j", pair.to}, {"count", pair.count}});
  return out;
}

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
    for (int d = 0; d < load_.domains(); ++d) out["tokens"].push_back(load_.tokens(d));
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
  Vocabulary vocabulary_;
};

class RepetitionAnalysis final : public ShapedAnalysis {
 public:
  explicit RepetitionAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), repetition_(shape.rows, shape.experts, shape.k) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return repetition_.feed(slab, row); }
  Document result() override {
    const RandomRepetition chance = random_repetition(shape_.experts, shape_.k);
    Document out = {{"pairs", shape_.rows > 0 ? repetition_.stats(0).pairs : 0},
                    {"random", {{"same_first", chance.same_first}, {"any_shared", chance.any_shared}, {"overlap", chance.overlap}}}};
    out["layers"] = layers([&](int r, Document& one) {
      const RepetitionStats stats = repetition_.stats(r);
      const auto share = [&](uint64_t count) { return stats.pairs > 0 ? Document(double(count) / double(stats.pairs)) : Document(); };
      if (shape_.ranked) {
        one["same_first"] = stats.same_first;
        one["same_first_rate"] = share(stats.same_first);
      }
      one["any_shared"] = stats.any_shared;
      one["any_shared_rate"] = share(stats.any_shared);
      one["mean_overlap"] = stats.mean_overlap;
      one["reuse_distance"] = list(std::span<const uint64_t>(stats.reuse_distance));
      one["first_uses"] = stats.first_uses;
    });
    return out;
  }

 private:
  Repetition repetition_;
};

class SrpAnalysis final : public ShapedAnalysis {
 public:
  SrpAnalysis(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), options_(options), locality_(shape.rows, shape.experts, options.windows, keeps_sequences(shape, options)) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return locality_.feed(slab, row); }
  Document result() override {
    locality_.finish();
    Document out;
    for (size_t w = 0; w < options_.windows.size(); ++w) {
      Document one = {{"m", options_.windows[w]}};
      put(one, srp_stats(locality_.all(int(w))));
      one["random_srp"] = random_srp(options_.windows[w], shape_.experts, shape_.k);
      if (const auto interval = locality_.interval(int(w), options_.resamples, options_.seed)) one["interval95"] = {interval->low, interval->high};
      one["layers"] = layers([&](int r, Document& row) { put(row, srp_stats(locality_.row(int(w), r))); });
      out["windows"].push_back(std::move(one));
    }
    return out;
  }

 private:
  // Histograms of every sequence are kept for the intervals while they stay below 256 MiB.
  static bool keeps_sequences(const TraceShape& shape, const AnalysisOptions& options) {
    const uint64_t bins = std::accumulate(options.windows.begin(), options.windows.end(), uint64_t(options.windows.size()));
    return options.resamples > 0 && shape.sequences * uint64_t(shape.rows) * bins * sizeof(uint64_t) <= uint64_t(256) << 20;
  }
  static void put(Document& out, const std::optional<SrpStats>& stats) {
    out["srp"] = stats ? Document(stats->srp) : Document();
    out["rho"] = stats ? Document(stats->rho) : Document();
    out["threshold"] = stats ? Document(stats->threshold) : Document();
  }
  AnalysisOptions options_;
  Locality locality_;
};

class AffinityAnalysis final : public ShapedAnalysis {
 public:
  AffinityAnalysis(const TraceShape& shape, const AnalysisOptions& options) : ShapedAnalysis(shape), options_(options), affinity_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    if (row + 1 >= shape_.rows) return {};
    return affinity_.feed(row, slab.row_ids(row), slab.row_ids(row + 1), slab.k);
  }
  Document result() override {
    Document out;
    out["transitions"] = Document::array();
    std::vector<uint64_t> same(options_.gpus.size());
    uint64_t hops = 0;
    for (int t = 0; t < affinity_.transitions(); ++t) {
      const auto top1 = affinity_.top1(t);
      const AffinityStats stats = affinity_stats(top1, shape_.experts);
      Document one = {{"from", shape_.layers[t]}, {"to", shape_.layers[t + 1]}};
      if (shape_.layers[t] == shape_.layers[t + 1] && !shape_.row_names.empty())
        one["from_router"] = shape_.row_names[t], one["to_router"] = shape_.row_names[t + 1];
      if (shape_.ranked) {
        one["top1"] = {{"top_pairs", pairs_json(top1, shape_.experts, options_.top)}, {"mi_bits", stats.mi_bits}, {"chance_mi_bits", stats.chance_mi_bits}, {"uncertainty", stats.uncertainty},
                       {"expected_max_p", stats.expected_max_p}, {"marginal_max", stats.marginal_max}};
      }
      one["topk"] = {{"top_pairs", pairs_json(affinity_.topk(t), shape_.experts, options_.top)}};
      const uint64_t all = std::accumulate(top1.begin(), top1.end(), uint64_t(0));
      hops += all;
      for (size_t g = 0; g < options_.gpus.size(); ++g) {
        const uint64_t here = stays(top1, options_.gpus[g]);
        same[g] += here;
        one["same_gpu"].push_back({{"gpus", options_.gpus[g]}, {"fraction", all > 0 ? Document(double(here) / double(all)) : Document()}});
      }
      out["transitions"].push_back(std::move(one));
    }
    for (size_t g = 0; g < options_.gpus.size(); ++g)
      out["same_gpu"].push_back({{"gpus", options_.gpus[g]}, {"fraction", hops > 0 ? Document(double(same[g]) / double(hops)) : Document()}});
    return out;
  }

 private:
  // First-choice hops whose experts share a GPU when expert e of every layer is on GPU e * G / E.
  uint64_t stays(std::span<const uint64_t> top1, int gpus) const {
    uint64_t sum = 0;
    for (int i = 0; i < shape_.experts; ++i)
      for (int j = 0; j < shape_.experts; ++j)
        if (i * gpus / shape_.experts == j * gpus / shape_.experts) sum += top1[size_t(i) * shape_.experts + j];
    return sum;
  }
  AnalysisOptions options_;
  Affinity affinity_;
};

class PredictionAnalysis final : public ShapedAnalysis {
 public:
  explicit PredictionAnalysis(const TraceShape& shape)
      : ShapedAnalysis(shape), affinity_(shape.rows, shape.experts), load_(shape.rows, shape.experts), next_(shape.rows, shape.experts, shape.k) {}
  int walks() const override { return 2; }
  Result<void> begin(int walk) override {
    for (int t = 0; walk == 1 && t < affinity_.transitions(); ++t) next_.train(t, affinity_.topk(t), load_.counts(t + 1));
    return {};
  }
  Result<void> feed(int walk, const RoutingSlab& slab, int row) override {
    if (walk == 0) SY_CHECK(load_.feed(row, slab.row_ids(row), slab.k));
    if (row + 1 >= shape_.rows) return {};
    if (walk == 1) return next_.feed(slab, row);
    return affinity_.feed(row, slab.row_ids(row), slab.row_ids(row + 1), slab.k);
  }
  Document result() override {
    Document out = {{"trained_on", "the same tokens"}, {"random_recall", double(shape_.k) / shape_.experts}};
    out["transitions"] = Document::array();
    for (int t = 0; t < affinity_.transitions(); ++t) {
      const PredictionStats stats = next_.stats(t);
      out["transitions"].push_back({{"from", shape_.layers[t]}, {"to", shape_.layers[t + 1]}, {"tokens", stats.tokens},
                                    {"transition_recall", stats.transition_recall}, {"transition_exact", stats.transition_exact},
                                    {"frequency_recall", stats.frequency_recall}, {"frequency_exact", stats.frequency_exact}});
    }
    return out;
  }

 private:
  Affinity affinity_;
  Load load_;
  NextExpert next_;
};

class SaliencyAnalysis final : public ShapedAnalysis {
 public:
  SaliencyAnalysis(const TraceShape& shape, const AnalysisOptions& options)
      : ShapedAnalysis(shape), options_(options), saliency_(shape.rows, shape.experts, options.renormalise) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    if (row == 0) has_norms_ = !slab.out_norm.empty(), has_cosines_ = has_norms_ && !slab.block_cos.empty();
    return saliency_.feed(slab, row);
  }
  Document result() override {
    Document out = {{"renormalised", options_.renormalise}, {"keep", options_.keep}};
    if (!has_norms_) out["missing"].push_back("/routing/out_norm");
    if (!has_cosines_) out["missing"].push_back("/routing/block_cos");
    out["layers"] = layers([&](int r, Document& one) {
      std::vector<std::pair<const char*, std::vector<double>>> criteria;
      const auto put = [&](const char* name, auto&& of) {
        auto& scores = criteria.emplace_back(name, std::vector<double>()).second;
        for (const Saliency& expert : saliency_.row(r)) scores.push_back(of(expert));
      };
      put("frequency", [](const Saliency& s) { return double(s.frequency); });
      put("seer_soft", [](const Saliency& s) { return s.seer_soft; });
      if (has_norms_) {
        put("ean_sum", [](const Saliency& s) { return s.ean_sum; });
        put("ean_mean", [](const Saliency& s) { return s.ean_mean(); });
        put("weighted_ean", [](const Saliency& s) { return s.weighted_ean; });
        put("reap", [](const Saliency& s) { return s.reap(); });
      }
      if (has_cosines_) put("easy_ep", [](const Saliency& s) { return s.easy_ep; });
      for (const auto& [name, scores] : criteria) one[name] = list(scores);
      for (const Saliency& expert : saliency_.row(r)) one["frequency"][size_t(&expert - saliency_.row(r).data())] = expert.frequency;
      for (size_t a = 0; a < criteria.size(); ++a) {
        for (size_t b = a + 1; b < criteria.size(); ++b) {
          Document pair = {{"a", criteria[a].first}, {"b", criteria[b].first}, {"rank_correlation", rank_correlation(criteria[a].second, criteria[b].second)}};
          if (options_.keep > 0) pair["pruned_jaccard"] = set_jaccard(pruned_set(criteria[a].second, options_.keep), pruned_set(criteria[b].second, options_.keep));
          one["agreement"].push_back(std::move(pair));
        }
        if (options_.keep > 0) one["pruned"][criteria[a].first] = pruned_set(criteria[a].second, options_.keep);
      }
    });
    return out;
  }

 private:
  AnalysisOptions options_;
  ExpertSaliency saliency_;
  bool has_norms_ = false, has_cosines_ = false;
};

class LongTailAnalysis final : public ShapedAnalysis {
 public:
  explicit LongTailAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), load_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return load_.feed(row, slab.row_ids(row), slab.k); }
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

class LogitSimilarityAnalysis final : public ShapedAnalysis {
 public:
  explicit LogitSimilarityAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), similarity_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return similarity_.feed(slab, row); }
  Document result() override {
    Document out;
    out["layers"] = layers([&](int r, Document& one) { one["cosine"] = matrix(similarity_.cosines(r), shape_.experts); });
    return out;
  }

 private:
  LogitSimilarity similarity_;
};

class CohortAnalysis final : public ShapedAnalysis {
 public:
  CohortAnalysis(const TraceShape& shape, const AnalysisOptions& options, int a, int b)
      : ShapedAnalysis(shape), options_(options), a_(a), b_(b), profile_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    if (row != 0) return {};  // a sequence is counted over all rows together
    for (int t = 0; t < slab.tokens; ++t) {
      const int side = slab.domain[t] == a_ ? 0 : slab.domain[t] == b_ ? 1 : -1;
      if (side < 0 || (!slab.mask.empty() && slab.mask[t] == 0)) continue;
      if (sequence_ != int64_t(slab.sequence[t])) profile_.begin_text(side);
      sequence_ = slab.sequence[t];
      for (int r = 0; r < shape_.rows; ++r) {
        const auto chosen = slab.token(r, t);
        SY_CHECK(profile_.feed(r, chosen.first(size_t(std::find(chosen.begin(), chosen.end(), kNoExpert) - chosen.begin()))));
      }
      profile_.count_token();
    }
    return {};
  }
  Document result() override {
    Document out = {{"a", {{"domain", shape_.domains[a_]}, {"sequences", profile_.texts(0)}, {"tokens", profile_.tokens(0)}}},
                    {"b", {{"domain", shape_.domains[b_]}, {"sequences", profile_.texts(1)}, {"tokens", profile_.tokens(1)}}},
                    {"unit_of_p", "token"}, {"unit_of_interval", "sequence"}};
    const auto sorted = profile_.result(options_.resamples, options_.seed);
    std::vector<std::vector<const ExpertContrast*>> by_row(shape_.rows, std::vector<const ExpertContrast*>(shape_.experts));
    int below = 0;
    for (const ExpertContrast& one : sorted) {
      by_row[one.row][one.expert] = &one;
      below += one.q < 0.05;
    }
    out["below_q_0.05"] = below;
    out["layers"] = layers([&](int r, Document& one) {
      for (const char* field : {"delta", "z", "p", "q", "low", "high"}) one[field] = Document::array();
      for (const ExpertContrast* expert : by_row[r]) {
        if (expert == nullptr) continue;
        one["delta"].push_back(expert->rd), one["z"].push_back(expert->z), one["p"].push_back(expert->p), one["q"].push_back(expert->q);
        one["low"].push_back(expert->low), one["high"].push_back(expert->high);
      }
    });
    return out;
  }

 private:
  AnalysisOptions options_;
  int a_, b_;
  int64_t sequence_ = -1;
  ContrastProfile profile_;
};

class EsftAnalysis final : public ShapedAnalysis {
 public:
  EsftAnalysis(const TraceShape& shape, const AnalysisOptions& options) : ShapedAnalysis(shape), options_(options), scores_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override { return scores_.feed(slab, row); }
  Document result() override {
    Document out = {{"score", options_.score}, {"threshold", options_.threshold}, {"decimals", options_.decimals}};
    size_t total = 0;
    out["layers"] = layers([&](int r, Document& one) {
      const auto scores = options_.score == "gate" ? scores_.gate_scores(r) : scores_.token_scores(r, shape_.k);
      const auto experts = esft_set(scores, options_.threshold, options_.decimals);
      one["scores"] = list(scores);
      one["experts"] = experts;
      total += experts.size();
    });
    out["total_experts"] = total;
    return out;
  }

 private:
  AnalysisOptions options_;
  EsftScores scores_;
};

tl::unexpected<Error> usage(std::string what, std::string hint = {}) { return fail(ErrorCode::kUsage, std::move(what), "", std::move(hint)); }

template <class T>
Made plain(const TraceShape& shape, const AnalysisOptions&) { return std::make_unique<T>(shape); }
template <class T>
Made with_options(const TraceShape& shape, const AnalysisOptions& options) { return std::make_unique<T>(shape, options); }

Made make_affinity(const TraceShape& shape, const AnalysisOptions& options) {
  for (const int gpus : options.gpus)
    if (gpus < 1 || shape.experts % gpus != 0)
      return usage(std::to_string(shape.experts) + " experts do not divide evenly over " + std::to_string(gpus) + " GPUs.");
  return std::make_unique<AffinityAnalysis>(shape, options);
}

Made make_srp(const TraceShape& shape, const AnalysisOptions& options) {
  for (const int window : options.windows)
    if (window < 1 || window > 65536) return usage("a window of " + std::to_string(window) + " tokens was asked for; 1 to 65536 can be.");
  return std::make_unique<SrpAnalysis>(shape, options);
}

Made make_esft(const TraceShape& shape, const AnalysisOptions& options) {
  if (options.score != "token" && options.score != "gate") return usage("--score is " + options.score + ", needs token or gate.");
  if (options.decimals < 0 || options.decimals > 15) return usage("--decimals is " + std::to_string(options.decimals) + ", needs 0 to 15.");
  if (options.score == "gate" && std::find(shape.fields.begin(), shape.fields.end(), "/routing/weight") == shape.fields.end())
    return usage("gate scores need /routing/weight, which the trace does not hold.", "Use --score token, or record with --capture weights.");
  return std::make_unique<EsftAnalysis>(shape, options);
}

Made make_cohort(const TraceShape& shape, const AnalysisOptions& options) {
  const auto find = [&](const std::string& name) { return int(std::find(shape.domains.begin(), shape.domains.end(), name) - shape.domains.begin()); };
  const int count = int(shape.domains.size());
  const bool chosen = !options.domain_a.empty() || !options.domain_b.empty();
  const int a = chosen ? find(options.domain_a) : 0, b = chosen ? find(options.domain_b) : 1;
  if (a >= count || b >= count || a == b) {
    std::string names;
    for (const std::string& name : shape.domains) names += (names.empty() ? "" : ", ") + name;
    return usage("two different domains of the trace are needed; it has " + (names.empty() ? "none" : names) + ".", "Name them with --a and --b.");
  }
  return std::make_unique<CohortAnalysis>(shape, options, a, b);
}

}  // namespace

std::span<const AnalysisInfo> analyses() {
  constexpr const char *kIds = "/routing/expert_id", *kWeights = "/routing/weight", *kLogits = "/routing/router_logits", *kDomain = "/sequences/domain";
  static const std::vector<AnalysisInfo> list = {
      {"load", "A1", "Expert load and imbalance", {kIds}, {}, false, {"batch-tokens"}, with_options<LoadAnalysis>},
      {"balance-loss", "A1", "Balance and z losses, in their three scalings", {kIds, kLogits}, {}, true, {}, plain<BalanceLossAnalysis>},
      {"entropy", "A2", "Routing entropy, gate sharpness and margin", {"/routing/entropy"}, {kWeights, "/routing/topk_mass", "/routing/margin", kLogits}, true, {}, plain<EntropyAnalysis>},
      {"coactivation", "A3", "Experts chosen for the same token", {kIds}, {}, false, {"top", "neighbours", "matrices"}, with_options<CoactivationAnalysis>},
      {"domain", "A4", "Which domains an expert serves", {kIds, kDomain}, {}, false, {}, plain<DomainAnalysis>},
      {"vocabulary", "A5", "Which token ids an expert serves", {kIds, "/tokens/token_id"}, {}, true, {"top", "min-count"}, with_options<VocabularyAnalysis>},
      {"repetition", "A7", "Neighbouring tokens that share experts, and reuse distances", {kIds}, {}, false, {}, plain<RepetitionAnalysis>},
      {"srp", "A8", "Local routing consistency (segment routing best performance)", {kIds}, {}, false, {"windows", "resamples", "seed"}, make_srp},
      {"affinity", "A10", "Which expert follows which in the next layer", {kIds}, {}, false, {"top", "gpus"}, make_affinity},
      {"next-layer-prediction", "A10", "How well this layer's experts tell the next layer's", {kIds}, {}, false, {}, plain<PredictionAnalysis>},
      {"saliency", "A15", "Pruning criteria side by side", {kIds, kWeights}, {"/routing/out_norm", "/routing/block_cos"}, false, {"keep", "no-renormalise"}, with_options<SaliencyAnalysis>},
      {"long-tail", "A16", "How few experts carry most of the load", {kIds}, {}, false, {}, plain<LongTailAnalysis>},
      {"logit-similarity", "A17", "Cosines of router logits", {kLogits}, {}, false, {}, plain<LogitSimilarityAnalysis>},
      {"cohort", "A18", "Experts that two domains use differently", {kIds, kDomain}, {}, false, {"a", "b", "resamples", "seed"}, make_cohort},
      {"esft", "A1", "Expert-specialised fine-tuning: the experts a task relies on", {kIds}, {kWeights}, false, {"threshold", "score", "decimals"}, make_esft},
  };
  return list;
}

const AnalysisInfo* find_analysis(std::string_view name) {
  for (const AnalysisInfo& info : analyses())
    if (info.name == name) return &info;
  return nullptr;
}

std::vector<std::string> missing_fields(const AnalysisInfo& info, const TraceShape& shape) {
  std::vector<std::string> missing;
  for (const char* field : info.needs)
    if (std::find(shape.fields.begin(), shape.fields.end(), field) == shape.fields.end()) missing.emplace_back(field);
  return missing;
}

Made make_analysis(const AnalysisInfo& info, const TraceShape& shape, const AnalysisOptions& options) {
  std::string missing;
  for (const std::string& field : missing_fields(info, shape)) missing += (missing.empty() ? "" : ", ") + field;
  if (!missing.empty()) return usage(std::string(info.name) + " needs " + missing + ", which the trace does not hold.");
  if (info.needs_rank && !shape.ranked)
    return usage(std::string(info.name) + " needs experts in the order of their weights; the trace's source did not tell it.");
  return info.make(shape, options);
}

}  // namespace switchyard
