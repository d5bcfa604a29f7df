// Deciding a layer path at the prefill: the prompt goes through the model once, layer by layer, and the router of each
// layer reads what the layer would read. Engine thread, or the caller's where no session runs.
#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/plan.h"
#include "engine/routing/path_router.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// One decision of a plan.
struct LayerDecision {
  bool routed = false;                // the layer has a router; else it runs
  PathProbabilities probabilities{};  // of the router alone
  PathProbabilities mixed{};          // at the budget
  int passes = 1;
};

// recipe: its path has a chooser; its other edits are in force. cache: emptied before and after; of a repeated layer
// both passes are run. Decides from all of `tokens`, also where they are run in pieces. The path has a layer that runs:
// where every layer would be skipped, the first one of largest probability to run is left in.
Result<std::vector<LayerDecision>> decide_path(Backend& backend, const ModelPlan& plan, const Recipe& recipe,
                                               KvCache& cache, std::span<const TokenId> tokens, uint32_t stream,
                                               const Task* task);

std::vector<uint8_t> passes_of(const std::vector<LayerDecision>& decisions);

}  // namespace switchyard
