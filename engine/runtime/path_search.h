// Monte-Carlo tree search over layer paths (Dr.LLM, specs/gating.md 1.6): which layers can be left out, which are worth
// a second pass, for one text. The search knows no model: a caller scores each path. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"

namespace switchyard {

struct PathScore {
  double ce = 0;       // mean -ln p of the target's tokens, nats
  bool exact = false;  // the most likely token is the target's, at every one of them
};

struct PathSearchOptions {
  int simulations = 50;
  uint64_t seed = 0;
  double exploration = 1.8, length_penalty = 3, random = 0.1;
  double slack = 0;          // a path succeeds whose cross-entropy is at most the model's own plus this
  bool grade_exact = false;  // it succeeds where it is exact instead
};

struct PathTrial {
  std::vector<uint8_t> passes;
  int length = 0;      // layers run, repeats counted
  int simulation = 0;  // 0: the model's own path
  PathScore score;
  bool success = false;
};

struct PathSearchResult {
  std::vector<PathTrial> trials;  // different paths, in the order in which they were tried; the model's own first
  size_t best = 0;  // the shortest that succeeds, then the lowest cross-entropy, then the earlier; none: 0
};

// Q/N + exploration * sqrt(ln(simulation) / N) - penalty * length / layers; simulation counts from 1, visits > 0.
double path_ucb(double wins, int visits, int simulation, int length, int layers, double exploration = 1.8,
                double penalty = 3);

// Each simulation walks down by that bound (an unvisited child first; with probability `random` any child) to a node
// that has fewer than 2 sqrt(visits + 1) children [our widening], and tries one more there: a layer or two neighbours
// in the path skipped, or a layer repeated, at most kMostLayerPasses times each and twice as many layers as the model
// has. Repeats exactly from the seed. score: called once a path. task: progress and cancel.
Result<PathSearchResult> search_paths(int layers, const PathSearchOptions& options,
                                      const std::function<Result<PathScore>(const std::vector<uint8_t>&)>& score,
                                      Task* task = nullptr);

}  // namespace switchyard
