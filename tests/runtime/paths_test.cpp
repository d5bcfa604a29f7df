// Paths and the searches over them on real checkpoints: routers that decide at the prefill, the tree search, the
// oracle.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/analysis/compare.h"
#include "engine/backend/differentiable.h"
#include "engine/runtime/adapt.h"
#include "engine/runtime/expert_oracle.h"
#include "engine/runtime/forced_pass.h"
#include "engine/runtime/path_planner.h"
#include "engine/runtime/path_search.h"
#include "engine/runtime/session.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

struct Model {
  Checkpoint checkpoint;
  std::shared_ptr<const WeightStore> weights;
  explicit Model(const std::string& folder)
      : checkpoint(*open_checkpoint(folder)), weights(*WeightStore::open(checkpoint)) {}
  const ModelPlan& plan() const { return checkpoint.plan; }
  std::unique_ptr<Backend> backend(const char* name) const {
    return *make_backend(name, checkpoint, weights, {.threads = 2});
  }
};
const Model& demo() {
  static const Model one(SWITCHYARD_SOURCE_DIR "/assets/models/demo");
  return one;
}
Model golden(const char* name) {
  return Model(std::string(SWITCHYARD_SOURCE_DIR "/tests/goldens/") + name);
}

std::vector<const char*> backends(const ModelPlan& plan) {
  std::vector<const char*> names;
  if (missing_on_cpu(plan).empty()) names.push_back("cpu");
#ifdef SWITCHYARD_WITH_REFERENCE
  names.push_back("reference");
#endif
  return names;
}

std::vector<TokenId> text(const ModelPlan& plan, int tokens) {
  std::vector<TokenId> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back(TokenId(4 + (i * 37 + i * i) % (plan.vocab - 4)));
  return ids;
}

LayerPath chooser(double budget) {
  const std::string file = SWITCHYARD_SOURCE_DIR "/assets/paths/layer_routers.safetensors";
  auto routers = read_path_routers(file);
  EXPECT_TRUE(routers) << routers.error().message();
  return {.passes = {}, .chooser = {.file = file, .budget = budget, .routers = *routers}};
}

std::vector<float> logits_of(Backend& backend, const ModelPlan& plan, const std::vector<TokenId>& ids,
                             const Recipe& recipe) {
  const auto cache = backend.new_cache(int(ids.size()));
  std::vector<float> logits(ids.size() * size_t(plan.vocab));
  const auto done = backend.forward(
      {.tokens = ids, .cache = cache.get(), .recipe = &recipe, .rows = LogitRows::kAll, .logits = logits});
  EXPECT_TRUE(done) << (done ? "" : done.error().message());
  return logits;
}

// Parts of a model one after the other are the model, bit for bit, whatever the residual rule of its layers.
TEST(Parts, OneAfterTheOtherAreTheModel) {
  for (const char* name : {"olmoe", "gpt_oss", "deepseek_v2", "granitemoe", "longcat_flash", "jetmoe", "minimax"}) {
    const Model model = golden(name);
    const ModelPlan& plan = model.plan();
    const auto ids = text(plan, 30);
    for (const char* backend_name : backends(plan)) {
      SCOPED_TRACE(std::string(name) + " " + backend_name);
      const auto backend = model.backend(backend_name);
      const Recipe native;
      const std::vector<float> want = logits_of(*backend, plan, ids, native);
      std::vector<float> hidden(ids.size() * size_t(plan.hidden)), got(want.size());
      for (int layer = 0; layer <= int(plan.layers.size()); ++layer) {
        const bool last = layer == int(plan.layers.size());
        const auto cache = backend->new_cache(int(ids.size()));
        const auto done = backend->forward({.tokens = ids,
                                            .cache = cache.get(),
                                            .recipe = &native,
                                            .rows = last ? LogitRows::kAll : LogitRows::kNone,
                                            .logits = got,
                                            .first_layer = layer,
                                            .end_layer = last ? layer : layer + 1,
                                            .hidden = hidden});
        ASSERT_TRUE(done) << done.error().message();
      }
      EXPECT_EQ(got, want);
    }
  }
}

// Where no expert is shared, leaving the branch out is the same as scaling every expert by 0.
TEST(Parts, WithoutExpertsIsAScaleOfZero) {
  for (const char* name : {"olmoe", "gpt_oss", "granitemoe", "minimax"}) {
    const Model model = golden(name);
    const ModelPlan& plan = model.plan();
    const auto ids = text(plan, 20);
    for (const char* backend_name : backends(plan)) {
      SCOPED_TRACE(std::string(name) + " " + backend_name);
      const auto backend = model.backend(backend_name);
      const int layer = plan.moe_layers[1];
      Recipe zero;
      std::vector<ExpertId> all;
      for (int e = 0; e < plan.routed(1).router.experts; ++e) all.push_back(ExpertId(e));
      apply(ExpertScale{{{layer}}, all, 0.0f}, plan, zero);
      const std::vector<float> want = logits_of(*backend, plan, ids, zero), own = logits_of(*backend, plan, ids, {});
      std::vector<uint8_t> off(plan.layers.size(), 0);
      off[size_t(layer)] = 1;
      const Recipe native;
      const auto cache = backend->new_cache(int(ids.size()));
      std::vector<float> got(want.size());
      ASSERT_TRUE(backend->forward({.tokens = ids,
                                    .cache = cache.get(),
                                    .recipe = &native,
                                    .rows = LogitRows::kAll,
                                    .logits = got,
                                    .experts_off = off}));
      double difference = 0, effect = 0;
      for (size_t i = 0; i < got.size(); ++i)
        difference = std::max(difference, std::abs(double(got[i]) - want[i])),
        effect = std::max(effect, std::abs(double(got[i]) - own[i]));
      EXPECT_LE(difference, 1e-5);
      EXPECT_GT(effect, 1e-3);
    }
  }
}

// The routers read what the layers read: the residual stream of a run under the path decided so far.
TEST(PathPlanner, DecidesFromWhatEachLayerReads) {
  const ModelPlan& plan = demo().plan();
  std::vector<std::vector<uint8_t>> found;
  for (const char* name : backends(plan)) {
    SCOPED_TRACE(name);
    const auto backend = demo().backend(name);
    const auto ids = text(plan, 43);
    Recipe recipe;
    apply(chooser(-0.2), plan, recipe);
    const auto cache = backend->new_cache(64);
    const auto decisions = decide_path(*backend, plan, recipe, *cache, ids, 0, nullptr);
    ASSERT_TRUE(decisions) << decisions.error().message();
    EXPECT_EQ(cache->length(), 0);
    const std::vector<uint8_t> passes = passes_of(*decisions);
    EXPECT_GT(std::count(passes.begin(), passes.end(), 1), 0);
    EXPECT_LT(std::count(passes.begin(), passes.end(), 1), 8) << "the example skips or repeats something";
    std::vector<float> hidden(ids.size() * size_t(plan.hidden));
    for (int layer = 0; layer < int(plan.layers.size()); ++layer) {
      Recipe so_far;
      so_far.path.passes = passes;
      const auto again = backend->new_cache(64);
      ASSERT_TRUE(backend->forward({.tokens = ids,
                                    .cache = again.get(),
                                    .recipe = &so_far,
                                    .rows = LogitRows::kNone,
                                    .end_layer = layer,
                                    .hidden = hidden}));
      const PathProbabilities want =
          probabilities_of(recipe.path.chooser.routers->layers.at(layer), hidden, plan.hidden);
      for (size_t i = 0; i < 3; ++i)
        EXPECT_NEAR((*decisions)[size_t(layer)].probabilities[i], want[i], 1e-12) << "layer " << layer;
    }
    found.push_back(passes);
  }
  for (const auto& passes : found) EXPECT_EQ(passes, found.front()) << "alike on both engines";
}

TEST(PathPlanner, TheBudgetGoesFromSkippingToRepeating) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("cpu");
  const auto ids = text(plan, 20);
  const auto length_at = [&](double budget) {
    Recipe recipe;
    apply(chooser(budget), plan, recipe);
    const auto cache = backend->new_cache(32);
    const auto passes = passes_of(*decide_path(*backend, plan, recipe, *cache, ids, 0, nullptr));
    return std::accumulate(passes.begin(), passes.end(), 0);
  };
  EXPECT_EQ(length_at(-1), 1) << "one layer is left";
  EXPECT_EQ(length_at(0.5), 8);
  EXPECT_EQ(length_at(1), 16);
}

// A session under routers goes the path that they choose for its prompt, and says so.
TEST(PathPlanner, ASessionDecidesAtThePrefill) {
  const ModelPlan& plan = demo().plan();
  const auto ids = text(plan, 30), other = text(plan, 11);
  const auto backend = demo().backend("cpu");
  const auto chosen = [&](std::span<const TokenId> prompt) {
    Recipe recipe;
    apply(chooser(-0.4), plan, recipe);
    const auto cache = backend->new_cache(64);
    Recipe path;
    apply(LayerPath{.passes = passes_of(*decide_path(*backend, plan, recipe, *cache, prompt, 0, nullptr))}, plan, path);
    return path.path;
  };
  const auto open = [] {
    return *Session::open(demo().checkpoint, {.backend = "cpu", .threads = 2, .context = 128, .ignore_eos = true});
  };
  const auto session = open(), by_hand = open();
  ASSERT_TRUE(session->send(EditCommand{chooser(-0.4), {}}));
  session->send(Start{ids, 12});
  const auto end = session->wait();
  ASSERT_EQ(end->state, RunState::kFinished) << (end->error ? end->error->message() : "");
  const LayerPath path = chosen(ids);
  ASSERT_FALSE(path.native());
  EXPECT_EQ(end->epochs.back().recipe->path, path);
  EXPECT_THAT(end->epochs.back().edits, testing::ElementsAre(EditCommand{path, {}}));
  EXPECT_TRUE(end->path_ahead.chooser);
  ASSERT_TRUE(by_hand->send(EditCommand{path, {}}));
  by_hand->send(Start{ids, 12});
  EXPECT_EQ(by_hand->wait()->generated_ids, end->generated_ids);

  session->send(Rewind{0});
  session->send(Play{12});
  EXPECT_EQ(session->wait()->generated_ids, end->generated_ids) << "decided again, from the same prompt";
  session->send(Start{other, 4});
  EXPECT_EQ(session->wait()->epochs.back().recipe->path, chosen(other)) << "each prompt its own path";
  session->undo();
  session->send(Start{ids, 4});
  EXPECT_TRUE(session->wait()->epochs.back().recipe->path.native());
}

TEST(PathPlanner, AForcedPassDecidesForEachText) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("cpu");
  ForcedPass pass(*backend, plan, recipe_spans({{chooser(-0.4), {}}}, plan), 64);
  std::vector<RoutingFrame> frames;
  for (const int tokens : {30, 11}) {
    const auto ids = text(plan, tokens);
    pass.begin(0, ids);
    std::vector<float> got(ids.size() * size_t(plan.vocab));
    ASSERT_TRUE(pass.forward(std::span(ids).first(5), std::span(got).first(5 * size_t(plan.vocab)), CaptureLevel::kIds,
                             frames));
    ASSERT_TRUE(pass.forward(std::span(ids).subspan(5), std::span(got).subspan(5 * size_t(plan.vocab)),
                             CaptureLevel::kIds, frames));
    const Recipe decided = *pass.spans()[0].recipe;
    EXPECT_FALSE(decided.path.chooser);
    for (const DecisionRow& row : decision_rows(plan, decided)) EXPECT_TRUE(frames[0].passed(row.row)) << row.name;
    EXPECT_EQ(pass.spans()[0].edits, (std::vector<EditCommand>{{decided.path, {}}}));
    const std::vector<float> want = logits_of(*backend, plan, ids, decided);
    double difference = 0;
    for (size_t i = 0; i < got.size(); ++i) difference = std::max(difference, std::abs(double(got[i]) - want[i]));
    EXPECT_LE(difference, 1e-3) << "from all of the text, not from its first piece";
  }
}

TEST(PathPlanner, BiasesAreLearntForOnePathOnly) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("cpu");
  Recipe asking;
  apply(chooser(0), plan, asking);
  const std::vector<TokenId> ids = text(plan, 12);
  const auto refused = adapt({.backend = *backend, .plan = plan, .tokens = ids, .start = asking}, {.method = AdaptMethod::kUsageBias});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_THAT(refused.error().hint, testing::HasSubstr("path-route"));
}

#ifdef SWITCHYARD_WITH_REFERENCE
// Every pass of a layer adds to the gradient of its biases, a skipped layer nothing. Expected: central differences of
// the loss.
TEST(Paths, TheGradientCountsEveryPass) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("reference");
  auto* differentiable = dynamic_cast<Differentiable*>(backend.get());
  ASSERT_NE(differentiable, nullptr);
  const auto ids = text(plan, 24);
  Recipe path;
  apply(LayerPath{{1, 1, 3, 1, 1, 0, 1, 1}}, plan, path);
  const auto loss_with = [&](int expert, float bias) {
    Recipe recipe = path;
    if (bias != 0) apply(Bias{{{2}}, {ExpertId(expert)}, bias}, plan, recipe);
    const std::vector<float> logits = logits_of(*backend, plan, ids, recipe);
    double sum = 0;
    for (size_t t = 0; t + 1 < ids.size(); ++t)
      sum += negative_log_likelihood(std::span(logits).subspan(t * size_t(plan.vocab), size_t(plan.vocab)), ids[t + 1]);
    return sum / double(ids.size() - 1);
  };
  const auto found = differentiable->bias_gradient(ids, path, 0, nullptr);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_NEAR(found->loss, loss_with(0, 0), 1e-4);
  EXPECT_THAT(found->by_row[5], testing::Each(0)) << "layer 5 is skipped";
  int compared = 0;
  for (int expert = 0; expert < 32; ++expert) {
    constexpr float kStep = 2e-3f;
    const double up = loss_with(expert, kStep), down = loss_with(expert, -kStep), slope = (up - down) / (2 * kStep);
    if (std::abs((up - found->loss) - (found->loss - down)) > 2e-5) continue;  // a selection flips within the step
    EXPECT_NEAR(found->by_row[2][size_t(expert)], slope, 2e-3 + 0.05 * std::abs(slope)) << "expert " << expert;
    ++compared;
  }
  EXPECT_GT(compared, 10);
}
#endif

TEST(PathSearch, BoundsAsTheChecksSay) {
  const auto checks = test::gating_checks("drllm_ucb");
  ASSERT_EQ(checks.size(), 4u);
  for (const auto& check : checks) {
    const auto& in = check["inputs"];
    EXPECT_NEAR(path_ucb(in["wins"], in["visits"], in["simulation"], in["length"], in["layers"]),
                check["expected"]["score"].get<double>(), 1e-9)
        << check["id"];
  }
}

// A made-up model in which layers 2 and 5 do harm and layer 3 is worth a second pass.
PathScore made_up(const std::vector<uint8_t>& passes) {
  double ce = 2;
  for (size_t i = 0; i < passes.size(); ++i)
    if (i == 2 || i == 5)
      ce += 0.1 * passes[i];
    else if (passes[i] == 0)
      ce += 0.3;
  ce -= 0.05 * std::min<int>(passes[3], 2);
  return {.ce = ce, .exact = ce <= 2.06};  // the model's own path: 2.15; without layer 2 or 5: 2.05
}

TEST(PathSearch, FindsTheLayersThatDoHarm) {
  PathSearchOptions options{.simulations = 200, .seed = 3};
  int calls = 0;
  const auto score = [&](const std::vector<uint8_t>& passes) -> Result<PathScore> { return ++calls, made_up(passes); };
  const auto found = search_paths(8, options, score);
  ASSERT_TRUE(found);
  const PathTrial& best = found->trials[found->best];
  EXPECT_EQ(best.passes[2] + best.passes[5], 0) << "the two that do harm";
  EXPECT_EQ(best.length, 6);
  EXPECT_EQ(size_t(calls), found->trials.size()) << "no path is scored twice";
  std::set<std::vector<uint8_t>> different;
  for (const PathTrial& trial : found->trials) {
    EXPECT_TRUE(different.insert(trial.passes).second);
    EXPECT_GE(trial.length, 1);
    EXPECT_LE(trial.length, 16);
    EXPECT_EQ(trial.success, trial.score.ce <= found->trials[0].score.ce);
    if (trial.success) {
      EXPECT_GE(std::tuple(trial.length, trial.score.ce), std::tuple(best.length, best.score.ce));
    }
  }
  EXPECT_EQ(found->trials[0].passes, std::vector<uint8_t>(8, 1));

  const auto again = search_paths(8, options, score);
  ASSERT_EQ(again->trials.size(), found->trials.size());
  for (size_t i = 0; i < again->trials.size(); ++i)
    EXPECT_EQ(again->trials[i].passes, found->trials[i].passes) << "repeats from its seed";
  options.seed = 4;
  const auto other = search_paths(8, options, score);
  EXPECT_FALSE(std::ranges::equal(other->trials, found->trials, {}, &PathTrial::passes, &PathTrial::passes));

  options.grade_exact = true;
  const auto exact = search_paths(8, options, score);
  EXPECT_FALSE(exact->trials[0].success) << "the model itself misses the target";
  EXPECT_TRUE(exact->trials[exact->best].score.exact);
}

TEST(PathSearch, StopsAndFailsCleanly) {
  Task task;
  int calls = 0;
  const auto stopping = [&](const std::vector<uint8_t>& passes) -> Result<PathScore> {
    if (++calls == 3) task.cancel();
    return made_up(passes);
  };
  const auto stopped = search_paths(8, {.simulations = 100}, stopping, &task);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(calls, 3);
  const auto failing =
      search_paths(8, {}, [](const auto&) -> Result<PathScore> { return fail(ErrorCode::kMemory, "no room"); });
  ASSERT_FALSE(failing);
  EXPECT_EQ(failing.error().code, ErrorCode::kMemory);
  const auto tiny = search_paths(1, {.simulations = 30},
                                 [](const std::vector<uint8_t>&) -> Result<PathScore> { return PathScore{.ce = 1}; });
  ASSERT_TRUE(tiny) << "a model of one layer has one other path";
  EXPECT_EQ(tiny->trials.size(), 2u);
}

// All patterns of three layers, run one by one in whole forward passes: the tree of parts must find the same losses.
TEST(Oracle, FindsTheBestOfAllPatterns) {
  const Model model = golden("deepseek_v2");  // shared experts, and a first layer without routed ones
  const ModelPlan& plan = model.plan();
  const auto ids = text(plan, 9);
  for (const char* name : backends(plan)) {
    SCOPED_TRACE(name);
    const auto backend = model.backend(name);
    auto oracle = ExpertOracle::create(*backend, plan, {}, 16, {});
    auto plain = ExpertOracle::create(*backend, plan, {}, 16, {});
    auto beam = ExpertOracle::create(*backend, plan, {}, 16, {.exhaustive_layers = 0, .beam = 100});
    ASSERT_TRUE(oracle && plain && beam);
    ASSERT_TRUE(oracle->exhaustive());
    const size_t layers = oracle->layers().size();
    size_t patterns = 1;
    for (size_t i = 0; i < layers; ++i) patterns *= 3;
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      SCOPED_TRACE(t);
      std::vector<double> best(size_t(plain->most()) + 1, 1e300);
      double all = 0, one = 0;
      for (size_t code = 0; code < patterns; ++code) {
        UsePattern pattern;
        for (size_t i = 0, rest = code; i < layers; ++i, rest /= 3) pattern.push_back(ExpertUse(rest % 3));
        const auto loss = plain->loss(ids[t], ids[t + 1], pattern, nullptr);
        ASSERT_TRUE(loss);
        for (size_t budget = size_t(plain->cost(pattern)); budget < best.size(); ++budget)
          best[budget] = std::min(best[budget], *loss);
        if (code == patterns - 1) all = *loss;
        if (pattern == UsePattern(layers, ExpertUse::kOne)) one = *loss;
      }
      const auto found = oracle->next(ids[t], ids[t + 1], nullptr);
      ASSERT_TRUE(found) << found.error().message();
      EXPECT_EQ(found->tried, patterns);
      EXPECT_EQ(found->best, best) << "bit for bit";
      const auto wide = beam->next(ids[t], ids[t + 1], nullptr);
      ASSERT_TRUE(wide);
      EXPECT_EQ(wide->tried, patterns) << "a beam that never drops anything comes by every pattern";
      EXPECT_EQ(wide->best, best);
      EXPECT_EQ(found->all, all);
      EXPECT_EQ(found->one, one);
      EXPECT_EQ(found->difficulty(), one - best.back());
      EXPECT_TRUE(std::is_sorted(best.rbegin(), best.rend()));
      EXPECT_EQ(*plain->loss(ids[t], ids[t + 1], found->pattern, nullptr), found->best.back());
      EXPECT_EQ(found->experts, plain->cost(found->pattern));
      ASSERT_TRUE(plain->next(ids[t], ids[t + 1], nullptr));
    }
    // All experts everywhere is the model: the loss of an ordinary run.
    const std::vector<float> logits = logits_of(*backend, plan, ids, {});
    auto again = ExpertOracle::create(*backend, plan, {}, 16, {});
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      const auto row = std::span(logits).subspan(t * size_t(plan.vocab), size_t(plan.vocab));
      EXPECT_NEAR(again->next(ids[t], ids[t + 1], nullptr)->all, negative_log_likelihood(row, ids[t + 1]), 1e-4);
    }
  }
}

// The beam against random patterns on the demo: never above the best of those that it tried itself, and its curve never
// rises.
TEST(Oracle, TheBeamIsAsGoodAsWhatItTried) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("cpu");
  const auto ids = text(plan, 6);
  auto beam = ExpertOracle::create(*backend, plan, {}, 16, {.exhaustive_layers = 0, .beam = 2});
  auto plain = ExpertOracle::create(*backend, plan, {}, 16, {.exhaustive_layers = 0, .beam = 1});
  ASSERT_TRUE(beam && plain);
  EXPECT_FALSE(beam->exhaustive());
  EXPECT_EQ(beam->most(), 32);
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const auto wide = beam->next(ids[t], ids[t + 1], nullptr), narrow = plain->next(ids[t], ids[t + 1], nullptr);
    ASSERT_TRUE(wide && narrow);
    EXPECT_TRUE(std::is_sorted(wide->best.rbegin(), wide->best.rend()));
    EXPECT_LE(wide->best.back(), wide->all);
    EXPECT_LE(wide->best.back(), wide->one);
    EXPECT_GT(wide->tried, narrow->tried);
    EXPECT_TRUE(std::isfinite(wide->best.front())) << "it ends where no expert runs";
  }
}

// On the demo exhaustively for one token: no sampled pattern is better.
TEST(Oracle, NoSampledPatternIsBetter) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("cpu");
  auto oracle = ExpertOracle::create(*backend, plan, {}, 16, {});
  auto plain = ExpertOracle::create(*backend, plan, {}, 16, {});
  std::mt19937_64 random(5);
  std::vector<double> sampled;
  std::vector<int> costs;
  for (int i = 0; i < 60; ++i) {
    UsePattern pattern;
    for (size_t layer = 0; layer < plain->layers().size(); ++layer) pattern.push_back(ExpertUse(random() % 3));
    sampled.push_back(*plain->loss(7, 99, pattern, nullptr));
    costs.push_back(plain->cost(pattern));
  }
  const auto found = oracle->next(7, 99, nullptr);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->tried, 6561u);
  for (size_t i = 0; i < sampled.size(); ++i) EXPECT_LE(found->best[size_t(costs[i])], sampled[i]);
}

TEST(Oracle, RefusesWhatItCannotAnswer) {
  const ModelPlan& plan = demo().plan();
  const auto backend = demo().backend("cpu");
  const auto problem = [&](const Edit& edit) {
    Recipe recipe;
    apply(edit, plan, recipe);
    const auto made = ExpertOracle::create(*backend, plan, recipe, 16, {});
    return made ? std::string() : made.error().message();
  };
  EXPECT_EQ(problem(Mute{{}, {1}}), "");
  EXPECT_THAT(problem(Force{{}, {1}}), testing::HasSubstr("an expert is forced"));
  EXPECT_THAT(problem(LayerPath{{1, 1, 1, 0, 1, 1, 1, 1}}), testing::HasSubstr("a layer path is in force"));
  EXPECT_THAT(problem(SetScheme{{}, *make_scheme({"top_p", {}})}), testing::HasSubstr("a gating scheme is in force"));
#ifdef SWITCHYARD_WITH_REFERENCE
  const Model jamba = golden("jamba");
  const auto reference = jamba.backend("reference");
  const auto refused = ExpertOracle::create(*reference, jamba.plan(), {}, 16, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("recurrent"));
#endif
}

}  // namespace
}  // namespace switchyard
