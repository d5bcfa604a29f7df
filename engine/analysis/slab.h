// The unit in which a trace is walked: consecutive tokens with their routing (specs/analyses.md section 0).
// Views only; whoever walks the trace owns the memory and keeps it for the length of a feed.
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/ids.h"

namespace switchyard {

struct RoutingSlab {
  uint64_t first_token = 0;  // in the whole trace
  int tokens = 0;            // N
  int rows = 0;              // L: routing rows (layers, or several decisions of one)
  int experts = 0;           // E: the largest of any row
  int k = 0;                 // slots per token
  // Rows that these tokens pass: all, or one side of an encoder-decoder, whose parts of a text are sequences of their own.
  int begin_row = 0, end_row = 0;
  // Slots by falling weight, then lower id; empty slots kNoExpert. A token that the mask leaves out has none.
  std::span<const ExpertId> ids;         // [L, N, k]
  std::span<const uint32_t> sequence;    // [N]: index of the token's sequence, rising
  std::span<const uint32_t> position;    // [N]: place in its sequence, from 0
  // Empty where the trace does not hold them.
  std::span<const ExpertId> guessed;     // [L, N, k], for the row by the router before it; of the trace's first row none
  std::span<const float> weights;        // [L, N, k], as applied
  std::span<const float> router_logits;  // [L, N, E], raw
  std::span<const float> entropy, topk_mass, margin, lse;  // [L, N] each
  std::span<const float> out_norm;       // [L, N, k], norm of the expert's output; 0: it did not run
  std::span<const float> block_cos;      // [L, N], cosine of the residual stream before and after the routed part; NaN: not there
  std::span<const uint8_t> mask;         // [N]: 1 counts
  std::span<const TokenId> token_ids;    // [N]
  std::span<const float> router_weight;  // [L, E, d], the routers themselves; zeros where a row has none
  std::span<const uint16_t> domain;      // [N]
  std::span<const uint8_t> cohort;       // [N]

  template <class T>
  std::span<const T> of_row(std::span<const T> all, int row) const {
    return all.empty() ? all : all.subspan(all.size() / size_t(rows) * size_t(row), all.size() / size_t(rows));
  }
  std::span<const ExpertId> row_ids(int row) const { return of_row(ids, row); }
  std::span<const ExpertId> guessed_of(int row, int t) const {  // empty where none are recorded
    return guessed.empty() ? guessed : guessed.subspan((size_t(row) * size_t(tokens) + size_t(t)) * size_t(k), size_t(k));
  }
  std::span<const ExpertId> token(int row, int t) const {
    return ids.subspan((size_t(row) * size_t(tokens) + size_t(t)) * size_t(k), size_t(k));
  }
};

}  // namespace switchyard
