// ESFT: which experts of a layer a task relies on (arXiv 2407.01906; procedure: specs/cli-json.md). Streaming and
// mergeable; no files. Rows may be fed from different threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

class EsftScores {
 public:
  EsftScores(int rows, int experts) : experts_(experts), rows_(rows, Row{0, std::vector<uint64_t>(experts), std::vector<double>(experts)}) {}
  Result<void> feed(const RoutingSlab& slab, int row);
  // [E]: decisions / (k N), and sum of weights / N; 0 without tokens.
  std::vector<double> token_scores(int row, int k) const;
  std::vector<double> gate_scores(int row) const;

 private:
  struct Row {
    uint64_t tokens = 0;
    std::vector<uint64_t> counts;
    std::vector<double> weights;
  };
  int experts_;
  std::vector<Row> rows_;
};

// Scores rounded to `decimals`, falling (ties: lower id); experts are taken while the sum so far is below the
// threshold, so the one that crosses it is in. In that order.
std::vector<ExpertId> esft_set(std::span<const double> scores, double threshold, int decimals);

}  // namespace switchyard
