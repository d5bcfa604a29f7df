// See adapt.h.
#include "engine/runtime/adapt.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

#include "engine/analysis/compare.h"
#include "engine/backend/differentiable.h"
#include "engine/base/philox.h"
#include "engine/routing/adaptation.h"
#include "engine/runtime/forced_pass.h"

namespace switchyard {
namespace {

constexpr size_t kPiece = 256;  // tokens whose logits are held at a time

// What one forward pass of the text says.
struct Reading {
  double loss = 0;
  std::vector<RoutingFrame> frames;
};

class Loop {
 public:
  Loop(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens, const Recipe& start,
       const AdaptOptions& options, const Task* task)
      : backend_(backend), plan_(plan), tokens_(tokens), start_(start), options_(options), task_(task) {}

  Result<Adaptation> run() {
    SY_TRY(const Reading first, read(start_));
    experts_of_start_ = &first.frames;
    out_.loss_before = out_.loss_after = first.loss;
    choose_rows(first);
    bias_.resize(plan_.rows.size());
    for (size_t row = 0; row < bias_.size(); ++row) {
      bias_[row].assign(plan_.routed(int(row)).router.experts, 0);
      if (const LayerRecipe* layer = start_.layer(int(row)); layer && !layer->logit_bias.empty())
        bias_[row].assign(layer->logit_bias.begin(), layer->logit_bias.end());
    }
    best_ = bias_;
    SY_CHECK(options_.method == AdaptMethod::kUsageBias ? count_usage() : descend());
    write_edits();
    return std::move(out_);
  }

 private:
  using Biases = std::vector<std::vector<double>>;

  Recipe recipe_of(const Biases& biases) const {
    Recipe recipe = start_;
    recipe.layers.resize(plan_.rows.size());
    for (const int row : out_.rows) recipe.layers[row].logit_bias.assign(biases[row].begin(), biases[row].end());
    return recipe;
  }

  Result<Reading> read(const Recipe& recipe) const {
    Reading reading;
    ForcedPass pass(backend_, plan_, {{0, std::make_shared<const Recipe>(recipe), {}}}, int(tokens_.size()));
    pass.begin(0);
    const auto vocab = size_t(plan_.vocab);
    const size_t piece = plan_.couples_tokens() ? tokens_.size() : kPiece;
    std::vector<float> logits(std::min(piece, tokens_.size()) * vocab);
    std::vector<RoutingFrame> frames;
    double sum = 0;
    for (size_t from = 0; from < tokens_.size(); from += piece) {
      const size_t count = std::min(piece, tokens_.size() - from);
      SY_CHECK(pass.forward(tokens_.subspan(from, count), std::span(logits).first(count * vocab), CaptureLevel::kLogits, frames, task_));
      for (size_t i = 0; i < count && from + i + 1 < tokens_.size(); ++i)
        sum += negative_log_likelihood({logits.data() + i * vocab, vocab}, tokens_[from + i + 1]);
      std::move(frames.begin(), frames.end(), std::back_inserter(reading.frames));
    }
    reading.loss = sum / double(tokens_.size() - 1);
    return reading;
  }

  // The ceil(r L) rows of largest (or smallest) C; ties: lower row.
  void choose_rows(const Reading& reading) {
    const int rows = int(plan_.rows.size());
    for (int row = 0; row < rows; ++row) {
      const RouterSpec& router = plan_.routed(row).router;
      double sum = 0;
      for (const RoutingFrame& frame : reading.frames)
        sum += rewire_confidence(frame.logits(row).first(size_t(router.experts)), router.experts_per_token);
      out_.confidence.push_back(sum / double(reading.frames.size()));
    }
    std::vector<int> order(rows);
    std::iota(order.begin(), order.end(), 0);
    const double sign = options_.least_uncertain ? -1 : 1;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sign * out_.confidence[a] > sign * out_.confidence[b]; });
    order.resize(std::clamp<size_t>(size_t(std::ceil(options_.layer_share * rows)), 1, size_t(rows)));
    std::sort(order.begin(), order.end());
    out_.rows = order;
  }

  double rerouted(const std::vector<RoutingFrame>& frames) const {
    uint64_t moved = 0, all = 0;
    for (size_t t = 0; t < frames.size(); ++t)
      for (int row = 0; row < int(plan_.rows.size()); ++row) {
        const auto a = frames[t].used_ids(row), b = (*experts_of_start_)[t].used_ids(row);
        moved += !std::is_permutation(a.begin(), a.end(), b.begin(), b.end());
        ++all;
      }
    return double(moved) / double(all);
  }

  void bound(std::vector<double>& bias) const {
    const double norm = std::sqrt(std::inner_product(bias.begin(), bias.end(), bias.begin(), 0.0));
    if (options_.max_norm <= 0 || norm <= options_.max_norm) return;
    for (double& value : bias) value *= options_.max_norm / norm;
  }

  void log_step(const Reading& before) {
    AdaptStep step{.loss = before.loss, .rerouted = rerouted(before.frames)};
    for (const std::vector<double>& bias : bias_)
      step.norms.push_back(std::sqrt(std::inner_product(bias.begin(), bias.end(), bias.begin(), 0.0)));
    out_.steps.push_back(std::move(step));
  }

  void keep_best(double loss) {
    if (loss >= out_.loss_after) return;
    out_.loss_after = loss;
    best_ = bias_;
  }

  // Gradient descent; the biases of all chosen rows stand end to end.
  Result<void> descend() {
    size_t size = 0;
    for (const int row : out_.rows) size += bias_[row].size();
    Adam adam(size);
    for (int step = 0; step < options_.steps; ++step) {
      SY_TRY(const Reading reading, read(recipe_of(bias_)));
      keep_best(reading.loss);
      SY_TRY(const std::vector<double> gradient, options_.method == AdaptMethod::kRewire ? exact_gradient() : perturbed_gradient(step, size));
      std::vector<double> flat;
      for (const int row : out_.rows) flat.insert(flat.end(), bias_[row].begin(), bias_[row].end());
      adam.step(gradient, options_.lr, flat);
      size_t at = 0;
      for (const int row : out_.rows) {
        std::copy_n(flat.begin() + at, bias_[row].size(), bias_[row].begin());
        at += bias_[row].size();
        bound(bias_[row]);
      }
      log_step(reading);
    }
    SY_TRY(const Reading last, read(recipe_of(bias_)));
    keep_best(last.loss);
    return {};
  }

  Result<std::vector<double>> exact_gradient() {
    auto* differentiable = dynamic_cast<Differentiable*>(&backend_);
    if (!differentiable)
      return fail(ErrorCode::kUsage, "the " + backend_.info().name + " backend has no gradients.", {}, "Use --backend reference, or the method spsa.");
    SY_TRY(const BiasGradient found, differentiable->bias_gradient(tokens_, recipe_of(bias_), task_));
    std::vector<double> flat;
    for (const int row : out_.rows) flat.insert(flat.end(), found.by_row[row].begin(), found.by_row[row].end());
    return flat;
  }

  // SPSA: g_i = (L(b + c d) - L(b - c d)) / (2 c d_i) with d_i = +-1 (Spall 1992).
  Result<std::vector<double>> perturbed_gradient(int step, size_t size) {
    std::vector<double> signs(size);
    for (size_t i = 0; i < size; ++i) {
      const auto words = philox4x32({uint32_t(i / 4), uint32_t(step), 0, 1}, {uint32_t(options_.seed), uint32_t(options_.seed >> 32)});
      signs[i] = words[i % 4] & 1 ? 1 : -1;
    }
    double losses[2];
    for (const int side : {0, 1}) {
      Biases moved = bias_;
      size_t at = 0;
      for (const int row : out_.rows)
        for (double& value : moved[row]) value += (side ? -1 : 1) * options_.perturbation * signs[at++];
      SY_TRY(const Reading reading, read(recipe_of(moved)));
      losses[side] = reading.loss;
    }
    const double slope = (losses[0] - losses[1]) / (2 * options_.perturbation);
    for (double& sign : signs) sign *= slope;  // 1 / d = d
    return signs;
  }

  Result<void> count_usage() {
    for (int step = 0; step < options_.steps; ++step) {
      SY_TRY(const Reading reading, read(recipe_of(bias_)));
      for (const int row : out_.rows) {
        std::vector<double> usage(bias_[row].size());
        for (const RoutingFrame& frame : reading.frames) {
          std::vector<double> p(usage.size());
          double max = -std::numeric_limits<double>::infinity(), sum = 0;
          for (size_t e = 0; e < p.size(); ++e) max = std::max(max, p[e] = frame.logits(row)[e] + bias_[row][e]);
          for (double& v : p) sum += v = std::exp(v - max);
          for (size_t e = 0; e < p.size(); ++e) usage[e] += p[e] / sum;
        }
        condenser_bias_rule(usage, options_.lr, bias_[row]);
        bound(bias_[row]);
      }
      log_step(reading);
    }
    SY_TRY(const Reading last, read(recipe_of(bias_)));
    out_.loss_after = last.loss;
    best_ = bias_;
    return {};
  }

  void write_edits() {
    for (const int row : out_.rows) {
      const LayerRecipe* layer = start_.layer(row);
      for (size_t e = 0; e < best_[row].size(); ++e) {
        const float before = layer && !layer->logit_bias.empty() ? layer->logit_bias[e] : 0.0f, value = float(best_[row][e]);
        if (value != before) out_.edits.push_back({Bias{{{plan_.moe_layers[row]}}, {ExpertId(e)}, value}, {}});
      }
    }
  }

  Backend& backend_;
  const ModelPlan& plan_;
  const std::span<const TokenId> tokens_;
  const Recipe& start_;
  const AdaptOptions& options_;
  const Task* task_;
  const std::vector<RoutingFrame>* experts_of_start_ = nullptr;
  Adaptation out_;
  Biases bias_, best_;
};

}  // namespace

Result<Adaptation> adapt(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens, const Recipe& start,
                         const AdaptOptions& options, const Task* task) {
  if (tokens.size() < 2) return fail(ErrorCode::kUsage, "a text needs at least two tokens.");
  if (plan.encoder_layers > 0) return fail(ErrorCode::kUsage, "encoder-decoders are not adapted.");
  for (size_t row = 0; row + 1 < plan.moe_layers.size(); ++row)
    if (plan.moe_layers[row] == plan.moe_layers[row + 1])
      return fail(ErrorCode::kUsage, "the model has two routers in a layer; a bias edit cannot say which.");
  return Loop(backend, plan, tokens, start, options, task).run();
}

}  // namespace switchyard
