// See path_planner.h.
#include "engine/runtime/path_planner.h"

#include <algorithm>

namespace switchyard {
namespace {

constexpr size_t kPiece = 512;  // tokens

// The prompt through one layer, `passes` times, in pieces; hidden: [tokens, hidden], replaced.
Result<void> run_layer(Backend& backend, const ModelPlan& plan, const Recipe& recipe, KvCache& cache,
                       std::span<const TokenId> tokens, uint32_t stream, const Task* task, int layer, int passes,
                       std::span<float> hidden) {
  Recipe one = recipe;
  one.path = {};
  one.path.passes.assign(plan.layers.size(), 1);
  one.path.passes[size_t(layer)] = uint8_t(passes);
  cache.truncate(0);
  const size_t piece = plan.couples_tokens() ? tokens.size() : kPiece, width = size_t(plan.hidden);
  for (size_t from = 0; from < tokens.size(); from += piece) {
    const size_t count = std::min(piece, tokens.size() - from);
    SY_CHECK(backend.forward({.tokens = tokens.subspan(from, count),
                              .cache = &cache,
                              .recipe = &one,
                              .sequence = int(tokens.size()),
                              .stream = stream,
                              .rows = LogitRows::kNone,
                              .first_layer = layer,
                              .end_layer = layer + 1,
                              .hidden = hidden.subspan(from * width, count * width),
                              .task = task}));
  }
  cache.truncate(0);
  return {};
}

// The embeddings: what layer 0 reads.
Result<void> embed(Backend& backend, const Recipe& recipe, KvCache& cache, std::span<const TokenId> tokens,
                   size_t width, std::span<float> hidden) {
  Recipe native = recipe;
  native.path = {};
  for (size_t from = 0; from < tokens.size(); from += kPiece) {
    const size_t count = std::min(kPiece, tokens.size() - from);
    SY_CHECK(backend.forward({.tokens = tokens.subspan(from, count),
                              .cache = &cache,
                              .recipe = &native,
                              .rows = LogitRows::kNone,
                              .first_layer = 0,
                              .end_layer = 0,
                              .hidden = hidden.subspan(from * width, count * width)}));
  }
  cache.truncate(0);
  return {};
}

}  // namespace

Result<std::vector<LayerDecision>> decide_path(Backend& backend, const ModelPlan& plan, const Recipe& recipe,
                                               KvCache& cache, std::span<const TokenId> tokens, uint32_t stream,
                                               const Task* task) {
  const PathChooser& chooser = recipe.path.chooser;
  std::vector<float> hidden(tokens.size() * size_t(plan.hidden));
  std::vector<LayerDecision> decisions(plan.layers.size());
  cache.truncate(0);
  SY_CHECK(embed(backend, recipe, cache, tokens, size_t(plan.hidden), hidden));
  for (size_t layer = 0; layer < decisions.size(); ++layer) {
    LayerDecision& decision = decisions[layer];
    if (const auto router = chooser.routers->layers.find(int(layer)); router != chooser.routers->layers.end()) {
      decision.routed = true;
      decision.probabilities = probabilities_of(router->second, hidden, plan.hidden);
      decision.mixed = at_budget(decision.probabilities, chooser.budget);
      decision.passes = passes_of(decision.mixed);
    }
    if (decision.passes > 0)
      SY_CHECK(run_layer(backend, plan, recipe, cache, tokens, stream, task, int(layer), decision.passes, hidden));
  }
  const auto likelier = [](const LayerDecision& a, const LayerDecision& b) {
    return a.probabilities[1] < b.probabilities[1];
  };
  if (std::all_of(decisions.begin(), decisions.end(), [](const LayerDecision& one) { return one.passes == 0; }))
    std::max_element(decisions.begin(), decisions.end(), likelier)->passes = 1;
  return decisions;
}

std::vector<uint8_t> passes_of(const std::vector<LayerDecision>& decisions) {
  std::vector<uint8_t> passes;
  for (const LayerDecision& decision : decisions) passes.push_back(uint8_t(decision.passes));
  return passes;
}

}  // namespace switchyard
