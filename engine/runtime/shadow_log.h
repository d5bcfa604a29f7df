// How far a shadow recipe is from the run, token by token, kept in memory for the eyes: one writer (engine thread),
// many readers. 16 bytes a token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

namespace switchyard {

// Means over the routing rows that a token passed (analysis/shadow.h); NaN where its logits were not captured.
struct ShadowToken {
  float jaccard = 1, weight_l1 = 0, kl = 0, js = 0;
};

class ShadowLog {
 public:
  explicit ShadowLog(uint64_t first_token) : first_(first_token) {}

  void append(const ShadowToken& token) {
    const std::scoped_lock lock(mutex_);
    tokens_.push_back(token);
  }
  uint64_t first_token() const { return first_; }
  // Tokens [from, to), clipped to what is there; `from` becomes the index of the first one given.
  std::vector<ShadowToken> range(uint64_t& from, uint64_t to) const {
    const std::scoped_lock lock(mutex_);
    from = std::max(from, first_);
    to = std::min(to, first_ + tokens_.size());
    if (from >= to) return {};
    return {tokens_.begin() + int64_t(from - first_), tokens_.begin() + int64_t(to - first_)};
  }

 private:
  const uint64_t first_;
  mutable std::mutex mutex_;
  std::vector<ShadowToken> tokens_;
};

}  // namespace switchyard
