// Which experts to keep, prune, tune or compare, as analyses over a trace.
#include <algorithm>

#include "engine/analysis/contrast.h"
#include "engine/analysis/esft.h"
#include "engine/analysis/pruning.h"
#include "engine/analysis/shaped_analysis.h"
#include "engine/analysis/similarity.h"

namespace switchyard::analysis {
namespace {

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
      // Side by side on one scale: 0 the first to go, 1 the last.
      for (const auto& [name, scores] : criteria) {
        std::vector<double> rank = mean_ranks(scores);
        for (double& place : rank) place /= std::max(shape_.experts - 1, 1);
        Document side = {{"criterion", name}, {"rank", list(rank)}};
        if (options_.keep > 0) {
          std::vector<int> pruned(size_t(shape_.experts));
          for (const ExpertId id : pruned_set(scores, options_.keep)) pruned[id] = 1;
          side["pruned"] = list(pruned);
        }
        one["criteria"].push_back(std::move(side));
      }
    });
    return out;
  }

 private:
  AnalysisOptions options_;
  ExpertSaliency saliency_;
  bool has_norms_ = false, has_cosines_ = false;
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

class RouterSimilarityAnalysis final : public ShapedAnalysis {
 public:
  explicit RouterSimilarityAnalysis(const TraceShape& shape) : ShapedAnalysis(shape), cosines_(size_t(shape.rows)), width_(size_t(shape.rows)) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    if (!cosines_[size_t(row)].empty()) return {};
    const auto own = slab.of_row(slab.router_weight, row);
    width_[size_t(row)] = int(own.size()) / shape_.experts;
    cosines_[size_t(row)] = cosine_matrix(own, shape_.experts, width_[size_t(row)]);
    return {};
  }
  Document result() override {
    Document out;
    out["layers"] = layers([&](int r, Document& one) {
      const auto& cosines = cosines_[size_t(r)];
      double sum = 0;
      for (int i = 0; i < shape_.experts && !cosines.empty(); ++i)
        for (int j = 0; j < i; ++j) sum += cosines[size_t(i) * size_t(shape_.experts) + size_t(j)];
      const int pairs = shape_.experts * (shape_.experts - 1) / 2;
      one["mean_cosine"] = number(pairs > 0 && !cosines.empty() ? std::optional(sum / pairs) : std::nullopt);
      one["random_std"] = number(width_[size_t(r)] > 0 ? std::optional(1 / std::sqrt(double(width_[size_t(r)]))) : std::nullopt);
      one["cosine"] = matrix(cosines, shape_.experts);
    });
    return out;
  }

 private:
  std::vector<std::vector<double>> cosines_;  // [rows][E, E]
  std::vector<int> width_;
};

class CohortAnalysis final : public ShapedAnalysis {
 public:
  CohortAnalysis(const TraceShape& shape, const AnalysisOptions& options, int a, int b)
      : ShapedAnalysis(shape), options_(options), a_(a), b_(b), profile_(shape.rows, shape.experts) {}
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    if (row != slab.begin_row) return {};  // a sequence is counted over all rows together
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
      below += one.q < kSignificanceLevel;
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

Made make_esft(const TraceShape& shape, const AnalysisOptions& options) {
  if (options.score == "gate" && std::find(shape.fields.begin(), shape.fields.end(), "/routing/weight") == shape.fields.end())
    return usage("gate scores need /routing/weight, which the trace does not hold.", "Use --score token, or record with --capture weights.");
  return std::make_unique<EsftAnalysis>(shape, options);
}

Made make_cohort(const TraceShape& shape, const AnalysisOptions& options) {
  if (shape.sides > 1) return usage("tokens of an encoder and of a decoder cannot be one cohort.", "Choose the layers of one side with --layers.");
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

std::vector<AnalysisInfo> choice_analyses() {
  return {
      {.name = "saliency", .section = "A15", .title = "Pruning criteria side by side",
       .needs = {kIds, kWeights}, .uses = {"/routing/out_norm", "/routing/block_cos"}, .options = {"keep", "no-renormalise"}, .make = with_options<SaliencyAnalysis>},
      {.name = "logit-similarity", .section = "A17", .title = "Cosines of router logits",
       .needs = {kLogits}, .make = plain<LogitSimilarityAnalysis>},
      {.name = "router-similarity", .section = "A17", .title = "Cosines of the routers' rows",
       .needs = {kIds, "/model/router_weight"}, .make = plain<RouterSimilarityAnalysis>},
      {.name = "cohort", .section = "A18", .title = "Experts that two domains use differently",
       .needs = {kIds, kDomain}, .options = {"a", "b", "resamples", "seed"}, .make = make_cohort},
      {.name = "esft", .section = "ESFT", .title = "The experts that a task relies on, for expert-specialised fine-tuning",
       .needs = {kIds}, .uses = {kWeights}, .options = {"threshold", "score", "decimals"}, .make = make_esft},
  };
}

}  // namespace switchyard::analysis
