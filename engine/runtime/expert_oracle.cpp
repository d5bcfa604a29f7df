// See expert_oracle.h.
#include "engine/runtime/expert_oracle.h"

#include <algorithm>
#include <limits>
#include <set>

#include "engine/analysis/compare.h"
#include "engine/routing/decision.h"

namespace switchyard {

Result<ExpertOracle> ExpertOracle::create(Backend& backend, const ModelPlan& plan, Recipe recipe, int capacity,
                                          const OracleOptions& options) {
  if (plan.encoder_layers > 0)
    return fail(ErrorCode::kUsage, "is an encoder-decoder; the oracle knows one text a sequence.");
  if (plan.recurrent())
    return fail(ErrorCode::kUsage,
                "has recurrent mixers, whose state cannot go back by one token; the oracle tries many ways for each.");
  if (plan.couples_tokens())
    return fail(ErrorCode::kUsage, "routes tokens that run together together; the oracle runs one at a time.");
  if (!recipe.path.native())
    return fail(ErrorCode::kUsage, "a layer path is in force; the oracle runs every layer once.", {},
                "Leave layer_path out.");
  for (const LayerRecipe& layer : recipe.layers)
    if (layer.scheme)
      return fail(ErrorCode::kUsage, "a gating scheme is in force; the oracle asks of the model's own top-k.", {},
                  "Leave scheme out.");
  for (const LayerRecipe& layer : recipe.layers)
    if (std::any_of(layer.forced.begin(), layer.forced.end(), [](uint8_t on) { return on != 0; }))
      return fail(ErrorCode::kUsage, "an expert is forced; the oracle's one expert is the router's first.", {},
                  "Leave force out.");
  ExpertOracle oracle(backend, plan, std::move(recipe), capacity, options);
  if (oracle.layers_.empty()) return fail(ErrorCode::kUsage, "has no layer with routed experts.");
  return oracle;
}

ExpertOracle::ExpertOracle(Backend& backend, const ModelPlan& plan, Recipe recipe, int capacity,
                           const OracleOptions& options)
    : backend_(&backend),
      plan_(&plan),
      options_(options),
      recipe_(std::move(recipe)),
      cache_(backend.new_cache(capacity)),
      logits_(size_t(plan.vocab)) {
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    const RoutingRow& at = plan.rows[size_t(row)];
    if (!std::holds_alternative<MoeSpec>(plan.layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op)) continue;
    layers_.push_back(at.layer);
    rows_.push_back(row);
    all_cost_.push_back(slots_needed(plan.routed(row).router, recipe_.layer(row)));
    Recipe one = recipe_;
    if (one.layers.empty()) one.layers.resize(plan.rows.size());
    one.layers[size_t(row)].k = 1;
    one_.push_back(std::move(one));
  }
}

int ExpertOracle::cost(const UsePattern& pattern) const {
  int experts = 0;
  for (size_t i = 0; i < pattern.size(); ++i)
    experts += pattern[i] == ExpertUse::kSkip ? 0 : pattern[i] == ExpertUse::kOne ? 1 : all_cost_[i];
  return experts;
}

Result<void> ExpertOracle::run(const ForwardRequest& request) {
  const int length = cache_->length();
  SY_CHECK(backend_->forward(request));
  cache_->truncate(length);
  return {};
}

Result<double> ExpertOracle::loss(TokenId token, TokenId target, const UsePattern& pattern, const Task* task) {
  Recipe recipe = recipe_;
  std::vector<uint8_t> off(plan_->layers.size(), 0);
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == ExpertUse::kSkip) off[size_t(layers_[i])] = 1;
    if (pattern[i] != ExpertUse::kOne) continue;
    if (recipe.layers.empty()) recipe.layers.resize(plan_->rows.size());
    recipe.layers[size_t(rows_[i])].k = 1;
  }
  SY_CHECK(run({.tokens = {&token, 1},
                .cache = cache_.get(),
                .recipe = &recipe,
                .rows = LogitRows::kLast,
                .logits = logits_,
                .experts_off = off,
                .task = task}));
  return negative_log_likelihood(logits_, target);
}

void ExpertOracle::note(const UsePattern& pattern, double loss, OracleToken& out) const {
  const int experts = cost(pattern);
  ++out.tried;
  double& best = out.best[size_t(experts)];
  best = std::min(best, loss);
  if (std::all_of(pattern.begin(), pattern.end(), [](ExpertUse use) { return use == ExpertUse::kAll; })) out.all = loss;
  if (std::all_of(pattern.begin(), pattern.end(), [](ExpertUse use) { return use == ExpertUse::kOne; })) out.one = loss;
}

Result<OracleToken> ExpertOracle::next(TokenId token, TokenId target, const Task* task) {
  OracleToken out{.best = std::vector<double>(size_t(most()) + 1, std::numeric_limits<double>::infinity()),
                  .pattern = {}};
  UsePattern pattern;
  if (exhaustive())
    SY_CHECK(all_patterns(token, target, 0, {}, pattern, task, out));
  else
    SY_CHECK(beam(token, target, task, out));
  for (size_t i = 1; i < out.best.size(); ++i) out.best[i] = std::min(out.best[i], out.best[i - 1]);
  return backend_
      ->forward(
          {.tokens = {&token, 1}, .cache = cache_.get(), .recipe = &recipe_, .rows = LogitRows::kNone, .task = task})
      .map([&] { return std::move(out); });
}

Result<double> ExpertOracle::head(TokenId token, TokenId target, std::span<float> hidden, const Task* task) {
  SY_CHECK(run({.tokens = {&token, 1},
                .cache = cache_.get(),
                .recipe = &recipe_,
                .rows = LogitRows::kLast,
                .logits = logits_,
                .first_layer = layers_.back() + 1,
                .end_layer = int(plan_->layers.size()),
                .hidden = hidden,
                .task = task}));
  return negative_log_likelihood(logits_, target);
}

// A tree over the layers with experts: what lies before one is run once for all that follows it.
Result<void> ExpertOracle::all_patterns(TokenId token, TokenId target, size_t depth, std::span<const float> hidden,
                                        UsePattern& pattern, const Task* task, OracleToken& out) {
  std::vector<float> made(size_t(plan_->hidden));
  const auto start = [&] { std::copy(hidden.begin(), hidden.end(), made.begin()); };
  if (depth == layers_.size()) {
    start();
    SY_TRY(const double loss, head(token, target, made, task));
    const double before = *std::min_element(out.best.begin(), out.best.end());
    note(pattern, loss, out);
    if (loss < before || (loss == before && cost(pattern) < out.experts))
      out.pattern = pattern, out.experts = cost(pattern);
    return {};
  }
  std::vector<uint8_t> off(plan_->layers.size(), 0);
  off[size_t(layers_[depth])] = 1;
  for (const ExpertUse use : {ExpertUse::kSkip, ExpertUse::kOne, ExpertUse::kAll}) {
    start();
    SY_CHECK(run({.tokens = {&token, 1},
                  .cache = cache_.get(),
                  .recipe = use == ExpertUse::kOne ? &one_[depth] : &recipe_,
                  .rows = LogitRows::kNone,
                  .first_layer = depth == 0 ? 0 : layers_[depth - 1] + 1,
                  .end_layer = layers_[depth] + 1,
                  .hidden = made,
                  .experts_off = use == ExpertUse::kSkip ? std::span<const uint8_t>(off) : std::span<const uint8_t>(),
                  .task = task}));
    pattern.push_back(use);
    SY_CHECK(all_patterns(token, target, depth + 1, made, pattern, task, out));
    pattern.pop_back();
  }
  return {};
}

Result<void> ExpertOracle::beam(TokenId token, TokenId target, const Task* task, OracleToken& out) {
  struct Found {
    double loss;
    UsePattern pattern;
  };
  double lowest = std::numeric_limits<double>::infinity();
  std::set<UsePattern> seen;
  const auto try_one = [&](UsePattern pattern, std::vector<Found>& into) -> Result<void> {
    if (!seen.insert(pattern).second) return {};
    SY_TRY(const double found, loss(token, target, pattern, task));
    note(pattern, found, out);
    if (found < lowest || (found == lowest && cost(pattern) < out.experts))
      lowest = found, out.pattern = pattern, out.experts = cost(pattern);
    into.push_back({found, std::move(pattern)});
    return {};
  };
  std::vector<Found> kept, others;
  SY_CHECK(try_one(UsePattern(layers_.size(), ExpertUse::kAll), kept));
  SY_CHECK(try_one(UsePattern(layers_.size(), ExpertUse::kOne), others));
  while (!kept.empty()) {
    std::vector<Found> next;
    for (const Found& from : kept)
      for (size_t i = 0; i < layers_.size(); ++i) {
        if (from.pattern[i] == ExpertUse::kSkip) continue;
        UsePattern less = from.pattern;
        less[i] = less[i] == ExpertUse::kAll ? ExpertUse::kOne : ExpertUse::kSkip;
        SY_CHECK(try_one(std::move(less), next));
      }
    std::stable_sort(next.begin(), next.end(), [](const Found& a, const Found& b) { return a.loss < b.loss; });
    if (int(next.size()) > options_.beam) next.resize(size_t(options_.beam));
    kept = std::move(next);
  }
  return {};
}

}  // namespace switchyard
