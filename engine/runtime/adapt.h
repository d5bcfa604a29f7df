// Online adaptation of routers on a given text (specs/gating.md 1.5): a loop that proposes edits, with a log of every
// iteration. What it finds are ordinary edits. One thread at a time; the backend must not be in use elsewhere. Between
// the tokens of a run: live_adaptor.h.
#pragma once

#include <cstdint>
#include <functional>
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
  kSpsa,       // the same loss by simultaneous perturbation: two forwards an iteration, any backend and scheme
  kUsageBias,  // ExpertCondenser's sign rule on the summed softmax probabilities
  kEma,        // AdaptDHM: scheme "prototype" whose centres follow the mean input of their tokens
};
std::string_view name(AdaptMethod method);  // "rewire", "spsa", "usage-bias", "ema"

struct AdaptOptions {
  AdaptMethod method = AdaptMethod::kRewire;
  int steps = 5;                // iterations n
  double lr = 0.01;             // of Adam; gamma of the sign rule (negative: balances)
  double perturbation = 0.05;   // c of SPSA
  double eta = 0.05;            // of the moving average
  double layer_share = 0.5;     // r: the ceil(r L) rows of largest C; 1: all. Not of kEma
  bool least_uncertain = false; // those of smallest C instead: the paper's words and formula disagree
  std::vector<int> layers;      // model layers that may be adapted; empty: all
  double max_norm = 0;          // of a row's bias; 0: no bound. Not of kEma
  int loss_tokens = 0;          // the loss counts the last so many targets; 0: all
  uint64_t seed = 0;            // of SPSA
  bool operator==(const AdaptOptions&) const = default;
};

// Ranges of the numbers, and layers that have experts; kUsage.
Result<void> validate(const AdaptOptions& options, const ModelPlan& plan);

struct AdaptStep {
  double loss = 0;             // nats per token, before the iteration
  // Of every row after it: the length of its bias; kEma: how far its centres moved, over their mean length.
  std::vector<double> norms;
  // Against the base, before it: share of (token, row) whose experts differ, and the mean edit distance of a token's
  // path, the experts of largest weight row by row.
  double rerouted = 0, path_distance = 0;
};

struct Adaptation {
  std::vector<int> rows;           // adapted, ascending
  std::vector<double> confidence;  // C of every row at the start
  std::vector<AdaptStep> steps;
  double loss_before = 0, loss_after = 0;
  double rerouted = 0, path_distance = 0;  // of the result, against the base
  std::vector<double> norms;               // of the result
  std::vector<EditCommand> edits;  // that make the result from the start; empty: nothing was gained
};

// What adapt() works on.
struct AdaptInput {
  Backend& backend;
  const ModelPlan& plan;
  std::span<const TokenId> tokens;         // at least two
  const Recipe& start;                     // that the text runs under
  const Recipe* base = nullptr;            // that rerouting is counted against; null: start
  const WeightStore* weights = nullptr;    // for the centres that kEma starts from: the router's rows
  std::function<void(const AdaptStep&)> on_step = {};  // after each iteration, on the calling thread
};

// The result is the best recipe met, so loss_after is never above loss_before (usage bias and EMA: the last one,
// whatever its loss). A function of its arguments: the same again gives the same edits. kUsage where the method does not
// fit, kCancelled by the task.
Result<Adaptation> adapt(const AdaptInput& input, const AdaptOptions& options, const Task* task = nullptr);

}  // namespace switchyard
