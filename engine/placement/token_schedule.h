// Which tokens run together (specs/analyses.md A9): tokens that share experts make a batch load fewer of them.
// Pure but for UniqueExperts, which streams; called by the command line and jobs, on one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

// The experts that each token visits, as bits over (row, expert).
class TokenPaths {
 public:
  TokenPaths(int rows, int experts);
  // All tokens of the slab, or those at `tokens`; appended in order. After an error those before the bad one are in.
  // The slab has the rows of the paths.
  Result<void> add(const RoutingSlab& slab);
  Result<void> add(const RoutingSlab& slab, std::span<const int> tokens);
  void clear() { bits_.clear(); }

  int size() const { return int(bits_.size() / words_); }
  std::span<const uint64_t> of(int token) const { return std::span(bits_).subspan(size_t(token) * words_, words_); }
  size_t words() const { return words_; }

 private:
  int rows_, experts_;
  size_t words_;
  std::vector<uint64_t> bits_;
};

int hamming(std::span<const uint64_t> a, std::span<const uint64_t> b);
// Distinct (row, expert) of a batch: what has to be loaded for it.
int batch_cost(const TokenPaths& paths, std::span<const int> tokens);

struct Schedule {
  std::vector<int> first, second;  // token indices, rising; the first batch holds token 0
  int cost = 0;                    // of both batches
  bool optimal = false;            // every split was tried
};
// All tokens of `paths` in two batches of equal size (the first takes the odd one), so that their costs sum to the
// least: every split where there are at most 16 tokens; else balanced 2-means on Hamming distance (centres are
// majority bits, tokens by falling difference of distance), then swaps of two tokens as long as one helps.
Schedule split_batch(const TokenPaths& paths);
// The first half of the tokens, then the rest.
Schedule split_in_order(const TokenPaths& paths);

// Sum over batches of consecutive tokens of the distinct experts that they visit, for each row. The last batch of a
// sequence may be short. A token of which the trace holds no expert takes its place in the batch.
class UniqueExperts {
 public:
  UniqueExperts(int rows, int experts, int batch_tokens);
  Result<void> feed(const RoutingSlab& slab);
  void finish();
  uint64_t batches() const { return batches_; }
  std::span<const uint64_t> sum_unique() const { return sum_; }  // [L]

 private:
  void end_batch();
  int rows_, experts_, batch_tokens_, held_ = 0;
  bool open_ = false;
  uint32_t sequence_ = 0;
  std::vector<uint8_t> seen_;  // [L, E]
  uint64_t batches_ = 0;
  std::vector<uint64_t> sum_;
};

}  // namespace switchyard
