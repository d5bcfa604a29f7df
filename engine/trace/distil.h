// What a trace teaches the schemes that need a file (specs/gating.md 1.2): a token-id router and thresholds by expert.
// Reads the trace row by row; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/routing/scheme.h"
#include "engine/trace/trace.h"

namespace switchyard {

struct Distilled {
  SchemeFile file;
  // Of a token router, by routing row: the share of the trace's tokens whose first choice is the table's; how little
  // of the routing depends on context. Measured on the tokens that it was learned from.
  std::vector<double> agreement;
  uint64_t token_ids_seen = 0;
};

// table.{layer}: the most frequent first choice of every token id (ties: lower expert); an id that the trace has not
// gets the layer's most frequent one. vocab: ids of the model. kUsage: two routers in a layer, a token id beyond vocab.
Result<Distilled> distil_token_router(const TraceReader& trace, int64_t vocab, const Task* task = nullptr);

// threshold.{layer}: the C-th largest softmax score of each expert over the trace's tokens, C = choice_capacity(c, N, E),
// so that alone a token meets as many experts as expert choice gave on average. Needs router logits (kUsage).
Result<Distilled> distil_thresholds(const TraceReader& trace, double c, const Task* task = nullptr);

}  // namespace switchyard
