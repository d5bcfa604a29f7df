#include "engine/runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

namespace switchyard {
namespace {

TokenId largest(std::span<const float> logits) {
  size_t best = 0;
  bool found = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || (found && logits[i] <= logits[best])) continue;
    best = i;
    found = true;
  }
  return static_cast<TokenId>(best);
}

struct Candidate {
  double weight;  // exp((logit - largest) / temperature), not normalised
  TokenId id;
};

// Heap order: the most probable on top, ties with the lower id on top.
bool below(const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight < b.weight : a.id > b.id; }

}  // namespace

Result<void> validate(const Sampling& sampling) {
  if (sampling.greedy) return {};
  if (!std::isfinite(sampling.temperature) || sampling.temperature <= 0)
    return fail(ErrorCode::kUsage, fmt::format("temperature is {}, needs more than 0", sampling.temperature), "sampling");
  if (!(sampling.top_p > 0 && sampling.top_p <= 1))
    return fail(ErrorCode::kUsage, fmt::format("top-p is {}, needs more than 0 and at most 1", sampling.top_p), "sampling");
  if (sampling.top_k < 0) return fail(ErrorCode::kUsage, fmt::format("top-k is {}, needs 0 (off) or more", sampling.top_k), "sampling");
  return {};
}

double uniform(uint64_t seed, uint32_t sequence, uint64_t token_index) {
  const auto words = philox4x32({uint32_t(token_index), uint32_t(token_index >> 32), sequence, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
  return unit_interval(words[0]);
}

TokenId sample(std::span<const float> logits, const Sampling& sampling, uint32_t sequence, uint64_t token_index) {
  const TokenId best = largest(logits);
  if (sampling.greedy || !std::isfinite(logits[best])) return best;

  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) continue;
    const double weight = std::exp((double(logits[i]) - logits[best]) / sampling.temperature);
    if (weight > 0) candidates.push_back({weight, static_cast<TokenId>(i)});
  }
  if (sampling.top_k > 0 && size_t(sampling.top_k) < candidates.size()) {
    const auto kth = candidates.begin() + (sampling.top_k - 1);
    std::nth_element(candidates.begin(), kth, candidates.end(), [](const Candidate& a, const Candidate& b) { return below(b, a); });
    const double least = kth->weight;
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < least; });
  }
  // A heap, not a sort: the tokens that matter are few.
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  std::make_heap(candidates.begin(), candidates.end(), below);
  auto end = candidates.end();  // popped candidates stand behind it, the most probable last
  const auto pop = [&] {
    std::pop_heap(candidates.begin(), end, below);
    return *--end;
  };
  double kept = total;
  if (sampling.top_p < 1.0f) {
    kept = 0;
    while (end != candidates.begin() && kept < double(sampling.top_p) * total) kept += pop().weight;
  }
  const double target = uniform(sampling.seed, sequence, token_index) * kept;
  double reached = 0;
  TokenId chosen = best;
  for (auto at = candidates.end(); reached <= target;) {
    if (at == end) {  // not popped yet
      if (sampling.top_p < 1.0f || end == candidates.begin()) break;
      pop();
    }
    --at;
    reached += at->weight;
    chosen = at->id;
  }
  return chosen;
}

}  // namespace switchyard
