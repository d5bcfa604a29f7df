// See next_expert.h.
#include "engine/analysis/next_expert.h"

#include <algorithm>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

// The k largest, ties to the lower id.
template <class T>
void largest(std::span<const T> score, int k, std::vector<ExpertId>& out) {
  // By insertion: few of the E get past the smallest of the k.
  const size_t keep = std::min<size_t>(k, score.size());
  out.clear();
  for (size_t e = 0; e < score.size(); ++e) {
    if (out.size() == keep && !(score[e] > score[out.back()])) continue;
    if (out.size() == keep) out.pop_back();
    size_t at = out.size();
    while (at > 0 && score[out[at - 1]] < score[e]) --at;
    out.insert(out.begin() + ptrdiff_t(at), ExpertId(e));
  }
}

int shared(std::span<const ExpertId> predicted, std::span<const ExpertId> chosen) {
  int count = 0;
  for (const ExpertId id : chosen) count += id != kNoExpert && std::find(predicted.begin(), predicted.end(), id) != predicted.end();
  return count;
}

}  // namespace

NextExpert::NextExpert(int rows, int experts, int k) : experts_(experts), k_(k), transitions_(std::max(rows - 1, 0)) {}

void NextExpert::train(int transition, std::span<const uint64_t> topk, std::span<const uint64_t> next_counts) {
  transitions_[transition].conditional = conditional(topk, experts_);
  largest(next_counts, k_, transitions_[transition].commonest);
}

Result<void> NextExpert::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, int(transitions_.size())));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  SY_CHECK(check_ids(row + 1, slab.row_ids(row + 1), slab.k, experts_));
  Transition& transition = transitions_[row];
  std::vector<double> score(experts_);
  std::vector<ExpertId> predicted;
  for (int t = 0; t < slab.tokens; ++t) {
    const auto from = slab.token(row, t), to = slab.token(row + 1, t);
    const auto chosen = int(std::count_if(to.begin(), to.end(), [](ExpertId id) { return id != kNoExpert; }));
    if (from[0] == kNoExpert || chosen == 0) continue;
    std::fill(score.begin(), score.end(), 0);
    for (const ExpertId id : from) {
      if (id == kNoExpert) continue;
      const double* p = transition.conditional.data() + size_t(id) * experts_;
      for (int e = 0; e < experts_; ++e) score[e] += p[e];
    }
    largest(std::span<const double>(score), k_, predicted);
    const int hits = shared(predicted, to), frequent = shared(transition.commonest, to);
    ++transition.tokens;
    transition.hits += hits;
    transition.exact += hits == chosen && chosen == k_;
    transition.frequency_hits += frequent;
    transition.frequency_exact += frequent == chosen && chosen == k_;
    const auto guess = slab.guessed_of(row + 1, t);
    if (guess.empty() || guess[0] == kNoExpert) continue;
    const int ahead = shared(guess, to);
    ++transition.gate_tokens;
    transition.gate_hits += ahead;
    transition.gate_exact += ahead == chosen && chosen == k_;
  }
  return {};
}

PredictionStats NextExpert::stats(int at) const {
  const Transition& transition = transitions_[at];
  if (transition.tokens == 0) return {};
  const double tokens = double(transition.tokens), guessed = double(transition.gate_tokens);
  PredictionStats stats{.tokens = transition.tokens,
                        .transition_recall = double(transition.hits) / (tokens * k_), .transition_exact = double(transition.exact) / tokens,
                        .frequency_recall = double(transition.frequency_hits) / (tokens * k_), .frequency_exact = double(transition.frequency_exact) / tokens,
                        .gate_tokens = transition.gate_tokens};
  if (guessed > 0) stats.gate_recall = double(transition.gate_hits) / (guessed * k_), stats.gate_exact = double(transition.gate_exact) / guessed;
  return stats;
}

}  // namespace switchyard
