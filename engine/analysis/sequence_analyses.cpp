// From token to token and from layer to layer, as analyses over a trace.
#include <numeric>

#include "engine/analysis/affinity.h"
#include "engine/analysis/load.h"
#include "engine/analysis/locality.h"
#include "engine/analysis/next_expert.h"
#include "engine/analysis/repetition.h"
#include "engine/analysis/shaped_analysis.h"

namespace switchyard::analysis {
namespace {

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
      if (shape_.sides > 1) one["pairs"] = stats.pairs;
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
      Document one = {{"from", shape_.layers[t]}, {"to", shape_.layers[t + 1]}, {"tokens", stats.tokens},
                      {"transition_recall", stats.transition_recall}, {"transition_exact", stats.transition_exact},
                      {"frequency_recall", stats.frequency_recall}, {"frequency_exact", stats.frequency_exact}};
      if (stats.gate_tokens > 0) one.update({{"gate_tokens", stats.gate_tokens}, {"gate_recall", stats.gate_recall}, {"gate_exact", stats.gate_exact}});
      out["transitions"].push_back(std::move(one));
    }
    return out;
  }

 private:
  Affinity affinity_;
  Load load_;
  NextExpert next_;
};

Made make_affinity(const TraceShape& shape, const AnalysisOptions& options) {
  for (const int gpus : options.gpus)
    if (gpus < 1 || shape.experts % gpus != 0)
      return usage(std::to_string(shape.experts) + " experts do not divide evenly over " + std::to_string(gpus) + " GPUs.");
  return std::make_unique<AffinityAnalysis>(shape, options);
}

Made make_srp(const TraceShape& shape, const AnalysisOptions& options) {
  if (options.windows.empty()) return usage("srp needs at least one window.", "Give their lengths with --windows.");
  for (const int window : options.windows)
    if (window < 1 || window > 65536) return usage("a window of " + std::to_string(window) + " tokens was asked for; 1 to 65536 can be.");
  return std::make_unique<SrpAnalysis>(shape, options);
}

}  // namespace

std::vector<AnalysisInfo> sequence_analyses() {
  return {
      {.name = "repetition", .section = "A7", .title = "Neighbouring tokens that share experts, and reuse distances",
       .needs = {kIds}, .make = plain<RepetitionAnalysis>},
      {.name = "srp", .section = "A8", .title = "Local routing consistency (segment routing best performance)",
       .needs = {kIds}, .options = {"windows", "resamples", "seed"}, .make = make_srp},
      {.name = "affinity", .section = "A10", .title = "Which expert follows which in the next layer",
       .needs = {kIds}, .options = {"top", "gpus"}, .make = make_affinity},
      {.name = "next-layer-prediction", .section = "A10", .title = "How well this layer's experts tell the next layer's",
       .needs = {kIds}, .uses = {"/routing/pred_gate_id"}, .make = plain<PredictionAnalysis>},
  };
}

}  // namespace switchyard::analysis
