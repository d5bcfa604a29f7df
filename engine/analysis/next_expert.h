// Next-layer predictability (specs/analyses.md A10, predictors a, b and c): which experts the next row chooses, guessed
// from those of this row by the transition counts, by frequency alone, or by the next router on this one's input. Trained on counts of a first walk, scored
// in a second, on the same tokens unless the counts come from elsewhere. Rows may be fed from different threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/analysis/affinity.h"
#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

struct PredictionStats {
  uint64_t tokens = 0;
  double transition_recall = 0, transition_exact = 0;  // mean |predicted n chosen| / k; share of tokens with equal sets
  double frequency_recall = 0, frequency_exact = 0;    // always the k commonest of the next row
  uint64_t gate_tokens = 0;                            // with a recorded guess (RoutingSlab::guessed)
  double gate_recall = 0, gate_exact = 0;              // of those
};

class NextExpert {
 public:
  // topk: [E, E] counts of all pairs for each transition (Affinity::topk); next_counts: [E] decisions of the next row.
  NextExpert(int rows, int experts, int k);
  void train(int transition, std::span<const uint64_t> topk, std::span<const uint64_t> next_counts);
  // Scores the transition row -> row + 1; row < rows - 1.
  Result<void> feed(const RoutingSlab& slab, int row);
  PredictionStats stats(int transition) const;

 private:
  struct Transition {
    std::vector<double> conditional;   // [E, E]: P(to | from)
    std::vector<ExpertId> commonest;   // [k]
    uint64_t tokens = 0, hits = 0, exact = 0, frequency_hits = 0, frequency_exact = 0, gate_tokens = 0, gate_hits = 0, gate_exact = 0;
  };
  int experts_, k_;
  std::vector<Transition> transitions_;
};

}  // namespace switchyard
