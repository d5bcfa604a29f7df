// From logits to the next token. Stateless: the random number of a token depends only on
// (seed, sequence, token index), so that replays and undo are exact.
// Generator: philox4x32(), key = seed (64 bit, low word first), counter = (token index, 64
// bit, low word first; sequence; 0); u = (first 32-bit word + 0.5) / 2^32. token index: of the token to be chosen.
// Order, as transformers applies it: temperature, top-k (ties with the k-th stay), top-p (a token stays while the
// tokens before it hold less than p), softmax, then inverse transform over ids in falling probability (ties: lower id).
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/ids.h"
#include "engine/base/philox.h"
#include "engine/base/result.h"

namespace switchyard {

struct Sampling {
  bool greedy = true;
  float temperature = 1.0f;  // > 0
  float top_p = 1.0f;        // 0 < p <= 1
  int top_k = 0;             // 0: off
  uint64_t seed = 0;
  bool operator==(const Sampling&) const = default;
};

// kUsage where a number is outside the ranges above; greedy ignores them.
Result<void> validate(const Sampling& sampling);

double uniform(uint64_t seed, uint32_t sequence, uint64_t token_index);  // in (0, 1)

// logits: [vocab]. Greedy: the first of the largest. NaN logits are never chosen.
TokenId sample(std::span<const float> logits, const Sampling& sampling, uint32_t sequence, uint64_t token_index);

}  // namespace switchyard
