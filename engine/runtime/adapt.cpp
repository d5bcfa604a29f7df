// See adapt.h.
#include "engine/runtime/adapt.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "engine/analysis/compare.h"
#include "engine/backend/differentiable.h"
#include "engine/backend/router_inputs.h"
#include "engine/base/philox.h"
#include "engine/routing/adaptation.h"
#include "engine/runtime/forced_pass.h"

namespace switchyard {
namespace {

constexpr size_t kPiece = 256;  // tokens whose logits are held at a time

double length(std::span<const double> values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

// What one forward pass of the text says.
struct Reading {
  double loss = 0;
  std::vector<RoutingFrame> frames;
  std::vector<std::vector<float>> inputs;  // [rows] of [T, hidden], where asked for
};

// How far a reading's routing is from the base's.
struct Distance {
  double rerouted = 0, path = 0;
};

class Loop {
 public:
  Loop(const AdaptInput& input, const AdaptOptions& options, const Task* task)
      : backend_(input.backend), plan_(input.plan), tokens_(input.tokens), start_(input.start), input_(input), options_(options), task_(task) {}
  virtual ~Loop() = default;

  Result<Adaptation> run() {
    SY_TRY(Reading first, read(start_));
    out_.loss_before = out_.loss_after = first.loss;
    base_frames_ = first.frames;
    if (input_.base && (input_.base->layers != start_.layers || input_.base->adapters != start_.adapters || input_.base->path != start_.path)) {
      SY_TRY(Reading base, read(*input_.base));
      base_frames_ = std::move(base.frames);
    }
    SY_CHECK(choose_rows(first));
    SY_CHECK(begin(first));
    SY_CHECK(iterate());
    return std::move(out_);
  }

 protected:
  virtual Result<void> begin(const Reading& first) = 0;
  virtual Result<void> iterate() = 0;

  const RouterSpec& router(int row) const { return plan_.routed(row).router; }
  size_t experts(int row) const { return size_t(router(row).experts); }

  Result<Reading> read(const Recipe& recipe, bool inputs = false) const {
    Reading reading;
    RouterInputs tap(plan_.rows.size());
    ForcedPass pass(backend_, plan_, {{0, std::make_shared<const Recipe>(recipe), {}}}, int(tokens_.size()));
    if (inputs) pass.set_router_tap(&tap);
    pass.begin(0);
    const auto vocab = size_t(plan_.vocab);
    const size_t piece = plan_.couples_tokens() ? tokens_.size() : kPiece;
    const size_t targets = tokens_.size() - 1;
    const size_t counted = options_.loss_tokens > 0 ? std::min(targets, size_t(options_.loss_tokens)) : targets;
    std::vector<float> logits(std::min(piece, tokens_.size()) * vocab);
    std::vector<RoutingFrame> frames;
    double sum = 0;
    for (size_t from = 0; from < tokens_.size(); from += piece) {
      const size_t count = std::min(piece, tokens_.size() - from);
      SY_CHECK(pass.forward(tokens_.subspan(from, count), std::span(logits).first(count * vocab), CaptureLevel::kLogits, frames, task_));
      for (size_t i = 0; i < count && from + i < targets; ++i)
        if (from + i >= targets - counted) sum += negative_log_likelihood({logits.data() + i * vocab, vocab}, tokens_[from + i + 1]);
      std::move(frames.begin(), frames.end(), std::back_inserter(reading.frames));
    }
    reading.loss = sum / double(counted);
    if (inputs) reading.inputs = tap.take();
    return reading;
  }

  // The rows of the allowed layers, of those the ceil(r L) of largest (or smallest) C; ties: lower row.
  Result<void> choose_rows(const Reading& reading) {
    const int rows = int(plan_.rows.size());
    std::vector<int> order;
    for (int row = 0; row < rows; ++row) {
      double sum = 0;
      for (const RoutingFrame& frame : reading.frames) sum += rewire_confidence(frame.logits(row).first(experts(row)), router(row).experts_per_token);
      out_.confidence.push_back(sum / double(reading.frames.size()));
      const auto& allowed = options_.layers;
      if (start_.passes_of(plan_.moe_layers[size_t(row)]) == 0) continue;
      if (allowed.empty() || std::find(allowed.begin(), allowed.end(), plan_.moe_layers[row]) != allowed.end()) order.push_back(row);
    }
    if (order.empty()) return fail(ErrorCode::kUsage, "the layer path runs none of the layers that may be adapted.");
    if (options_.method != AdaptMethod::kEma) {
      const double sign = options_.least_uncertain ? -1 : 1;
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sign * out_.confidence[a] > sign * out_.confidence[b]; });
      order.resize(std::clamp<size_t>(size_t(std::ceil(options_.layer_share * double(order.size()))), 1, order.size()));
      std::sort(order.begin(), order.end());
    }
    out_.rows = order;
    return {};
  }

  Distance distance(const std::vector<RoutingFrame>& frames) const {
    uint64_t moved = 0, steps = 0;
    const int rows = int(plan_.rows.size());
    std::vector<ExpertId> path, base_path;
    const auto first = [](const RoutingFrame& frame, int row) { return frame.layer(row).k_used > 0 ? frame.ids(row)[0] : kNoExpert; };
    for (size_t t = 0; t < frames.size(); ++t) {
      path.clear();
      base_path.clear();
      for (int row = 0; row < rows; ++row) {
        const auto a = frames[t].used_ids(row), b = base_frames_[t].used_ids(row);
        moved += !std::is_permutation(a.begin(), a.end(), b.begin(), b.end());
        path.push_back(first(frames[t], row));
        base_path.push_back(first(base_frames_[t], row));
      }
      steps += edit_distance(path, base_path);
    }
    return {double(moved) / double(frames.size() * size_t(rows)), double(steps) / double(frames.size())};
  }

  void log_step(const Reading& before, std::vector<double> norms) {
    const Distance far = distance(before.frames);
    out_.steps.push_back({before.loss, std::move(norms), far.rerouted, far.path});
    if (input_.on_step) input_.on_step(out_.steps.back());
  }

  Backend& backend_;
  const ModelPlan& plan_;
  const std::span<const TokenId> tokens_;
  const Recipe& start_;
  const AdaptInput& input_;
  const AdaptOptions& options_;
  const Task* task_;
  std::vector<RoutingFrame> base_frames_;
  Adaptation out_;
};

// Adaptation by logit biases.
class BiasLoop final : public Loop {
 public:
  using Loop::Loop;

 private:
  using Biases = std::vector<std::vector<double>>;

  Result<void> begin(const Reading&) override {
    bias_.resize(plan_.rows.size());
    for (size_t row = 0; row < bias_.size(); ++row) {
      bias_[row].assign(experts(int(row)), 0);
      if (const LayerRecipe* layer = start_.layer(int(row)); layer && !layer->logit_bias.empty())
        bias_[row].assign(layer->logit_bias.begin(), layer->logit_bias.end());
    }
    best_ = bias_;
    return {};
  }

  Result<void> iterate() override {
    SY_CHECK(options_.method == AdaptMethod::kUsageBias ? count_usage() : descend());
    out_.norms = norms_of(best_);
    write_edits();
    return {};
  }

  Recipe recipe_of(const Biases& biases) const {
    Recipe recipe = start_;
    recipe.layers.resize(plan_.rows.size());
    for (const int row : out_.rows) recipe.layers[row].logit_bias.assign(biases[row].begin(), biases[row].end());
    return recipe;
  }

  void bound(std::vector<double>& bias) const {
    const double norm = length(bias);
    if (options_.max_norm <= 0 || norm <= options_.max_norm) return;
    for (double& value : bias) value *= options_.max_norm / norm;
  }

  static std::vector<double> norms_of(const Biases& biases) {
    std::vector<double> norms;
    for (const std::vector<double>& bias : biases) norms.push_back(length(bias));
    return norms;
  }

  void keep(const Reading& reading) {
    out_.loss_after = reading.loss;
    best_ = bias_;
    const Distance far = distance(reading.frames);
    out_.rerouted = far.rerouted;
    out_.path_distance = far.path;
  }

  // Gradient descent; the biases of all chosen rows stand end to end.
  Result<void> descend() {
    size_t size = 0;
    for (const int row : out_.rows) size += bias_[row].size();
    Adam adam(size);
    for (int step = 0; step < options_.steps; ++step) {
      SY_TRY(const Reading reading, read(recipe_of(bias_)));
      if (step == 0 || reading.loss < out_.loss_after) keep(reading);
      SY_TRY(const std::vector<double> gradient, options_.method == AdaptMethod::kRewire ? exact_gradient() : perturbed_gradient(step, size));
      std::vector<double> flat;
      for (const int row : out_.rows) flat.insert(flat.end(), bias_[row].begin(), bias_[row].end());
      adam.step(gradient, options_.lr, flat);
      size_t at = 0;
      for (const int row : out_.rows) {
        std::copy_n(flat.begin() + int64_t(at), bias_[row].size(), bias_[row].begin());
        at += bias_[row].size();
        bound(bias_[row]);
      }
      log_step(reading, norms_of(bias_));
    }
    SY_TRY(const Reading last, read(recipe_of(bias_)));
    if (last.loss < out_.loss_after) keep(last);
    return {};
  }

  Result<std::vector<double>> exact_gradient() {
    auto* differentiable = dynamic_cast<Differentiable*>(&backend_);
    if (!differentiable)
      return fail(ErrorCode::kUsage, "the " + backend_.info().name + " backend has no gradients.", {}, "Use --backend reference, or the method spsa.");
    SY_TRY(const BiasGradient found, differentiable->bias_gradient(tokens_, recipe_of(bias_), options_.loss_tokens, task_));
    std::vector<double> flat;
    for (const int row : out_.rows) flat.insert(flat.end(), found.by_row[row].begin(), found.by_row[row].end());
    return flat;
  }

  // SPSA: g_i = (L(b + c d) - L(b - c d)) / (2 c d_i) with d_i = +-1 (Spall 1992). The signs are a function of seed,
  // text length and step.
  Result<std::vector<double>> perturbed_gradient(int step, size_t size) {
    std::vector<double> signs(size);
    for (size_t i = 0; i < size; ++i) {
      const auto words = philox4x32({uint32_t(i / 4), uint32_t(step), uint32_t(tokens_.size()), 1}, {uint32_t(options_.seed), uint32_t(options_.seed >> 32)});
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
      log_step(reading, norms_of(bias_));
    }
    SY_TRY(const Reading last, read(recipe_of(bias_)));
    keep(last);
    return {};
  }

  void write_edits() {
    for (const int row : out_.rows) {
      const LayerRecipe* layer = start_.layer(row);
      for (size_t e = 0; e < best_[row].size(); ++e) {
        const float before = layer && !layer->logit_bias.empty() ? layer->logit_bias[e] : 0.0f, value = float(best_[row][e]);
        if (value != before) out_.edits.push_back({Bias{layer_of_row(plan_, row), {ExpertId(e)}, value}, {}});
      }
    }
  }

  Biases bias_, best_;
};

// Centres in the router's rows under the scheme "prototype".
class CentreLoop final : public Loop {
 public:
  using Loop::Loop;

 private:
  // Where the start has centres (rows that were given, under a cosine), those; else the router's rows, each as long as
  // the inputs are on average: a cosine does not see lengths, the moving average does.
  Result<void> begin(const Reading&) override {
    SY_TRY(const Reading reading, read(start_, true));
    centres_.resize(plan_.rows.size());
    for (const int row : out_.rows) {
      const LayerRecipe* layer = start_.layer(row);
      if (router(row).product_key) return fail(ErrorCode::kUsage, "the router of " + plan_.row_name(row) + " has no row per expert.");
      const size_t width = size_t(plan_.routed(row).router_weight.cols), count = experts(row);
      centres_[row].assign(count * width, 0);
      if (layer && reads_input(layer->scheme) && layer->router_rows.size() == count &&
          std::all_of(layer->router_rows.begin(), layer->router_rows.end(), [](const RowSource& source) { return source.kind == RowSource::Kind::kValues; })) {
        for (size_t e = 0; e < count; ++e) std::copy(layer->router_rows[e].values->begin(), layer->router_rows[e].values->end(), centres_[row].begin() + int64_t(e * width));
        continue;
      }
      if (const int passes = start_.passes_of(plan_.moe_layers[size_t(row)]); passes != 1)
        return fail(ErrorCode::kUsage, fmt::format("{} runs {} times on the layer path; centres follow one input a token.", plan_.row_name(row), passes), {},
                    "Leave the layer out (--layers, or the panel's Layers), or its repeats out of the path.");
      if (reading.inputs[row].size() != tokens_.size() * width)
        return fail(ErrorCode::kUsage, "the " + backend_.info().name + " backend hands out no router inputs.");
      if (!input_.weights) return fail(ErrorCode::kUsage, "the router's rows are not at hand, from which the centres start.");
      std::vector<float> rows(count * width);
      SY_CHECK(input_.weights->read(plan_.routed(row).router_weight, rows.data()));
      const double mean = mean_length(reading.inputs[row], width);
      for (size_t e = 0; e < count; ++e) {
        const std::span<float> own(rows.data() + e * width, width);
        double norm = 0;
        for (const float value : own) norm += double(value) * value;
        for (size_t i = 0; i < width; ++i) centres_[row][e * width + i] = norm > 0 ? own[i] * mean / std::sqrt(norm) : 0;
      }
    }
    return {};
  }

  static double mean_length(const std::vector<float>& inputs, size_t width) {
    double sum = 0;
    for (size_t t = 0; t < inputs.size() / width; ++t) {
      double square = 0;
      for (size_t i = 0; i < width; ++i) square += double(inputs[t * width + i]) * inputs[t * width + i];
      sum += std::sqrt(square);
    }
    return sum / double(inputs.size() / width);
  }

  Result<void> iterate() override {
    const auto first = centres_;
    Recipe recipe = start_;
    for (int step = 0; step < options_.steps; ++step) {
      SY_TRY(const Reading reading, read(recipe, true));
      for (const int row : out_.rows) ema_prototypes(reading.inputs[row], size_t(plan_.routed(row).router_weight.cols), options_.eta, centres_[row]);
      SY_CHECK(write_edits(recipe));
      out_.norms = moved_since(first);
      log_step(reading, out_.norms);
    }
    SY_TRY(const Reading last, read(recipe));
    out_.loss_after = last.loss;
    const Distance far = distance(last.frames);
    out_.rerouted = far.rerouted;
    out_.path_distance = far.path;
    return {};
  }

  // Of each row: the distance of the centres from where they were, over their mean length then.
  std::vector<double> moved_since(const std::vector<std::vector<double>>& first) const {
    std::vector<double> norms(plan_.rows.size());
    for (const int row : out_.rows) {
      double moved = 0, before = 0;
      for (size_t i = 0; i < first[row].size(); ++i) {
        moved += (centres_[row][i] - first[row][i]) * (centres_[row][i] - first[row][i]);
        before += first[row][i] * first[row][i];
      }
      norms[row] = before > 0 ? std::sqrt(moved / before) : 0;
    }
    return norms;
  }

  // The edits from the start to the centres, and the recipe that they make.
  Result<void> write_edits(Recipe& recipe) {
    out_.edits.clear();
    for (const int row : out_.rows) {
      const LayerSet here = layer_of_row(plan_, row);
      const LayerRecipe* layer = start_.layer(row);
      if (!layer || !reads_input(layer->scheme)) {
        const int k = layer && layer->k > 0 ? layer->k : router(row).experts_per_token;
        SY_TRY(Scheme scheme, make_scheme({"prototype", {{"k", double(k)}, {"mode", std::string("softmax")}, {"renorm", true}}}));
        out_.edits.push_back({SetScheme{here, std::move(scheme)}, {}});
      }
      const size_t width = size_t(plan_.routed(row).router_weight.cols);
      for (size_t e = 0; e < experts(row); ++e) {
        const auto from = centres_[row].begin() + int64_t(e * width);
        RowSource source{.kind = RowSource::Kind::kValues, .values = std::make_shared<const std::vector<float>>(from, from + int64_t(width))};
        out_.edits.push_back({RouterRow{here, {ExpertId(e)}, 1, std::move(source)}, {}});
      }
    }
    recipe = start_;
    for (const EditCommand& command : out_.edits) {
      SY_CHECK(validate(command.edit, plan_, recipe));
      apply(command.edit, plan_, recipe);
    }
    return {};
  }

  std::vector<std::vector<double>> centres_;  // [rows][E, hidden]
};

}  // namespace

std::string_view name(AdaptMethod method) {
  switch (method) {
    case AdaptMethod::kRewire: return "rewire";
    case AdaptMethod::kSpsa: return "spsa";
    case AdaptMethod::kUsageBias: return "usage-bias";
    case AdaptMethod::kEma: return "ema";
  }
  return "";
}

Result<void> validate(const AdaptOptions& options, const ModelPlan& plan) {
  const auto outside = [](const char* what, double value, double min, double max) {
    return fail(ErrorCode::kUsage, fmt::format("{} is {}, needs {} to {}.", what, value, min, max));
  };
  const auto in = [](double value, double min, double max) { return value >= min && value <= max; };  // not NaN
  if (!in(options.steps, 1, 100000)) return outside("steps", options.steps, 1, 100000);
  if (!in(options.lr, -10, 10)) return outside("lr", options.lr, -10, 10);
  if (!in(options.perturbation, 1e-6, 10)) return outside("the perturbation", options.perturbation, 1e-6, 10);
  if (!in(options.eta, 0, 1)) return outside("eta", options.eta, 0, 1);
  if (!in(options.layer_share, 0, 1)) return outside("the layer share", options.layer_share, 0, 1);
  if (!in(options.max_norm, 0, 1e6)) return outside("the largest norm", options.max_norm, 0, 1e6);
  if (options.loss_tokens < 0) return fail(ErrorCode::kUsage, fmt::format("{} tokens of the loss are negative.", options.loss_tokens));
  for (const int layer : options.layers)
    if (std::find(plan.moe_layers.begin(), plan.moe_layers.end(), layer) == plan.moe_layers.end())
      return fail(ErrorCode::kUsage, fmt::format("layer {} has no experts.", layer));
  if (plan.encoder_layers > 0) return fail(ErrorCode::kUsage, "encoder-decoders are not adapted.");
  return {};
}

Result<Adaptation> adapt(const AdaptInput& input, const AdaptOptions& options, const Task* task) {
  if (input.tokens.size() < 2) return fail(ErrorCode::kUsage, "a text needs at least two tokens.");
  SY_CHECK(validate(options, input.plan));
  if (const PathChooser& chooser = input.start.path.chooser)
    return fail(ErrorCode::kUsage, "layer routers choose a path anew for each text; biases suit one path.", chooser.file,
                "Give the path that calibrate path-route finds for this text.");
  if (options.method == AdaptMethod::kEma) return CentreLoop(input, options, task).run();
  return BiasLoop(input, options, task).run();
}

}  // namespace switchyard
