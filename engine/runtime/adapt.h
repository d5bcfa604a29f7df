// Online adaptation of routers on a given text (specs/gating.md 1.5): a loop that proposes logit biases, with a log of
// every step. What it finds are ordinary edits. One thread at a time; the backend must not be in use elsewhere.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/routing/edit.h"

namespace switchyard {

enum class AdaptMethod : uint8_t {
  kRewire,     // exact gradient of the next-token loss, Adam; needs a Differentiable backend (reference)
  kSpsa,       // the same loss by simultaneous perturbation: two forwards a step, any backend and scheme
  kUsageBias,  // ExpertCondenser's sign rule on the summed softmax probabilities
};

struct AdaptOptions {
  AdaptMethod method = AdaptMethod::kRewire;
  int steps = 5;
  double lr = 0.01;             // of Adam; gamma of the sign rule (negative: balances)
  double perturbation = 0.05;   // c of SPSA
  double layer_share = 0.5;     // r: the ceil(r L) rows of largest C; 1: all
  bool least_uncertain = false; // those of smallest C instead: the paper's words and formula disagree
  double max_norm = 0;          // of a row's bias; 0: no bound
  uint64_t seed = 0;            // of SPSA
};

struct AdaptStep {
  double loss = 0;             // nats per token, before the step
  std::vector<double> norms;   // of every row's bias after it
  double rerouted = 0;         // share of (token, row) whose experts differ from the start's, before it
};

struct Adaptation {
  std::vector<int> rows;           // adapted, ascending
  std::vector<double> confidence;  // C of every row at the start
  std::vector<AdaptStep> steps;
  double loss_before = 0, loss_after = 0;
  std::vector<EditCommand> edits;  // bias edits that make the result from the start; empty: nothing was gained
};

// tokens: at least two. start: the recipe that the text runs under. The result is the best recipe met, so loss_after is
// never above loss_before (usage bias: the last one, whatever its loss). kUsage where the method does not fit.
Result<Adaptation> adapt(Backend& backend, const ModelPlan& plan, std::span<const TokenId> tokens, const Recipe& start,
                         const AdaptOptions& options, const Task* task = nullptr);

}  // namespace switchyard
