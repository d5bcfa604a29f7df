// Co-activation (specs/analyses.md A3): how often two experts of one routing row are chosen for the same
// token. Streaming and mergeable; no files. Called by the trace recorder; no thread owns it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

class Coactivation {
 public:
  // kNeighbours: only slots r and r + 1 of a token make a pair, as a published script counts (it undercounts for k > 2).
  enum class Pairs { kAll, kNeighbours };
  Coactivation(int rows, int experts, Pairs pairs = Pairs::kAll);
  // ids: [tokens, k] of one routing row, empty slots kNoExpert. An id that the model does not have is an
  // error; then nothing is counted.
  Result<void> feed(int row, std::span<const ExpertId> ids, int k);
  void merge(const Coactivation& other);  // of the same shape

  int rows() const { return rows_; }
  int experts() const { return experts_; }
  // [E, E] row-major, symmetric; the diagonal counts the tokens that chose the expert.
  std::span<const uint64_t> counts(int row) const {
    const size_t cells = size_t(experts_) * experts_;
    return {counts_.data() + size_t(row) * cells, cells};
  }

 private:
  int rows_, experts_;
  Pairs pairs_;
  std::vector<uint64_t> counts_;
};

// Of the counts [E, E] with the diagonal N_i; [E, E] each, NaN where undefined (the diagonal, N_i = 0; PMI also N_ij = 0).
std::vector<double> coactivation_rate(std::span<const uint64_t> counts, int experts);                      // N_ij / N_i
std::vector<double> coactivation_jaccard(std::span<const uint64_t> counts, int experts);                   // N_ij / (N_i + N_j - N_ij)
std::vector<double> coactivation_pmi(std::span<const uint64_t> counts, int experts, uint64_t tokens);      // ln(N N_ij / (N_i N_j))
// The upper triangle without the diagonal: a pair once, i < j.
std::vector<uint64_t> pairs_above_diagonal(std::span<const uint64_t> counts, int experts);

}  // namespace switchyard
