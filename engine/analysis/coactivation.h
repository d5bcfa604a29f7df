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
  Coactivation(int rows, int experts);
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
  std::vector<uint64_t> counts_;
};

}  // namespace switchyard
