// Two recordings of the same tokens side by side (specs/analyses.md A6): checkpoints of one training, a model and its
// edit, two quantisations. One thread calls.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/trace.h"

namespace switchyard {

struct TraceComparison {
  uint64_t tokens = 0;              // compared
  uint64_t left_out_base = 0;       // tokens of either side that the other does not have
  uint64_t left_out_other = 0;
  std::vector<int> layers;          // model layer of each row
  struct Row {
    std::vector<double> overlap;    // [k]: mean |first j of base n first j of other| / j, j = 1 .. k
    double jaccard = 0;             // of the whole sets, mean over tokens
  };
  std::vector<Row> rows;
  int k = 0, experts = 0;
  uint64_t equal_tokens = 0;                // same sets in every layer
  std::vector<uint64_t> first_difference;   // [rows]: tokens whose sets differ in this row and in none before
};

// Sequences are joined by source id where both traces have one for each, else by their order; tokens by position.
// Refused: other layers or experts, a token id that differs (named), an id_order that is not known.
Result<TraceComparison> compare_traces(const TraceReader& base, const TraceReader& other, Task* task = nullptr);

}  // namespace switchyard
