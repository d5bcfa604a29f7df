// Token schedules, see token_schedule.h.
#include "engine/placement/token_schedule.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "engine/placement/check_slab.h"

namespace switchyard {
namespace {

constexpr int kExactTokens = 16;  // C(15, 7) = 6,435 splits
constexpr int kRounds = 50;       // of 2-means

// How many tokens of a batch visit each bit; a batch costs the bits with at least one.
class Batch {
 public:
  Batch(const TokenPaths& paths, std::span<const int> tokens) : paths_(paths), visits_(paths.words() * 64, 0) {
    for (const int token : tokens) add(token);
  }
  void add(int token) {
    for_bits(paths_.of(token), [&](size_t bit) { cost_ += visits_[bit]++ == 0; });
  }
  void remove(int token) {
    for_bits(paths_.of(token), [&](size_t bit) { cost_ -= --visits_[bit] == 0; });
  }
  int cost() const { return cost_; }
  // Bits that at least half of the batch visits.
  std::vector<uint64_t> centre(size_t tokens) const {
    std::vector<uint64_t> bits(paths_.words(), 0);
    for (size_t bit = 0; bit < visits_.size(); ++bit)
      if (size_t(visits_[bit]) * 2 >= tokens && visits_[bit] > 0) bits[bit / 64] |= uint64_t(1) << (bit % 64);
    return bits;
  }

 private:
  template <class F>
  static void for_bits(std::span<const uint64_t> words, F&& f) {
    for (size_t w = 0; w < words.size(); ++w)
      for (uint64_t rest = words[w]; rest != 0; rest &= rest - 1) f(w * 64 + size_t(std::countr_zero(rest)));
  }
  const TokenPaths& paths_;
  std::vector<int> visits_;
  int cost_ = 0;
};

Schedule settled(const TokenPaths& paths, std::vector<int> first, std::vector<int> second, bool optimal) {
  if (!second.empty() && second.front() == 0 && first.size() == second.size()) std::swap(first, second);
  Schedule schedule{std::move(first), std::move(second), 0, optimal};
  schedule.cost = batch_cost(paths, schedule.first) + batch_cost(paths, schedule.second);
  return schedule;
}

// Every choice of the first batch that holds token 0; of equal ones the first in lexicographic order.
Schedule best_of_all(const TokenPaths& paths) {
  const int n = paths.size(), half = (n + 1) / 2;
  std::vector<int> in_first(static_cast<size_t>(n), 0);
  std::fill_n(in_first.begin(), half, 1);
  std::vector<int> first, second, best_first, best_second;
  int least = -1;
  do {
    if (in_first[0] == 0 && n % 2 == 0) break;  // the mirror images
    first.clear();
    second.clear();
    for (int t = 0; t < n; ++t) (in_first[size_t(t)] ? first : second).push_back(t);
    const int cost = batch_cost(paths, first) + batch_cost(paths, second);
    if (least >= 0 && cost >= least) continue;
    least = cost;
    best_first = first;
    best_second = second;
  } while (std::prev_permutation(in_first.begin(), in_first.end()));
  return settled(paths, best_first, best_second, true);
}

// Swaps of two tokens, each the best for its token of the first batch, until none helps.
void swap_while_it_helps(const TokenPaths& paths, std::vector<int>& first, std::vector<int>& second) {
  Batch a(paths, first), b(paths, second);
  for (bool better = true; better;) {
    better = false;
    for (int& left : first) {
      int least = a.cost() + b.cost();
      int* choice = nullptr;
      for (int& right : second) {
        a.remove(left), a.add(right), b.remove(right), b.add(left);
        if (a.cost() + b.cost() < least) {
          least = a.cost() + b.cost();
          choice = &right;
        }
        a.remove(right), a.add(left), b.remove(left), b.add(right);
      }
      if (!choice) continue;
      a.remove(left), a.add(*choice), b.remove(*choice), b.add(left);
      std::swap(left, *choice);
      better = true;
    }
  }
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
}

Schedule two_means(const TokenPaths& paths) {
  const int n = paths.size(), half = (n + 1) / 2;
  int farthest = 1;  // from token 0
  for (int t = 1; t < n; ++t)
    if (hamming(paths.of(0), paths.of(t)) > hamming(paths.of(0), paths.of(farthest))) farthest = t;
  std::vector<uint64_t> centre_a(paths.of(0).begin(), paths.of(0).end());
  std::vector<uint64_t> centre_b(paths.of(farthest).begin(), paths.of(farthest).end());
  std::vector<int> order(static_cast<size_t>(n)), first, second;
  for (int round = 0; round < kRounds; ++round) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int x, int y) {
      return hamming(paths.of(x), centre_a) - hamming(paths.of(x), centre_b) <
             hamming(paths.of(y), centre_a) - hamming(paths.of(y), centre_b);
    });
    std::vector<int> next(order.begin(), order.begin() + half);
    std::sort(next.begin(), next.end());
    if (next == first) break;
    first = std::move(next);
    second.assign(order.begin() + half, order.end());
    std::sort(second.begin(), second.end());
    centre_a = Batch(paths, first).centre(first.size());
    centre_b = Batch(paths, second).centre(second.size());
  }
  swap_while_it_helps(paths, first, second);
  return settled(paths, first, second, false);
}

}  // namespace

TokenPaths::TokenPaths(int rows, int experts)
    : rows_(rows), experts_(experts), words_((size_t(rows) * size_t(experts) + 63) / 64) {}

Result<void> TokenPaths::add(const RoutingSlab& slab) {
  std::vector<int> all(static_cast<size_t>(slab.tokens));
  std::iota(all.begin(), all.end(), 0);
  return add(slab, all);
}

Result<void> TokenPaths::add(const RoutingSlab& slab, std::span<const int> tokens) {
  for (const int t : tokens) {
    const size_t at = bits_.size();
    bits_.resize(at + words_, 0);
    for (int r = 0; r < rows_; ++r) {
      if (auto sound = check_ids(r, slab.token(r, t), slab.k, experts_); !sound) {
        bits_.resize(at);
        return sound;
      }
      for (const ExpertId e : slab.token(r, t)) {
        if (e == kNoExpert) continue;
        const size_t bit = size_t(r) * size_t(experts_) + e;
        bits_[at + bit / 64] |= uint64_t(1) << (bit % 64);
      }
    }
  }
  return {};
}

int hamming(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  int differ = 0;
  for (size_t w = 0; w < a.size(); ++w) differ += std::popcount(a[w] ^ b[w]);
  return differ;
}

int batch_cost(const TokenPaths& paths, std::span<const int> tokens) {
  int cost = 0;
  for (size_t w = 0; w < paths.words(); ++w) {
    uint64_t any = 0;
    for (const int token : tokens) any |= paths.of(token)[w];
    cost += std::popcount(any);
  }
  return cost;
}

Schedule split_batch(const TokenPaths& paths) {
  if (paths.size() < 3) return split_in_order(paths);
  return paths.size() <= kExactTokens ? best_of_all(paths) : two_means(paths);
}

Schedule split_in_order(const TokenPaths& paths) {
  std::vector<int> first(static_cast<size_t>((paths.size() + 1) / 2)), second(size_t(paths.size()) - first.size());
  std::iota(first.begin(), first.end(), 0);
  std::iota(second.begin(), second.end(), int(first.size()));
  return settled(paths, first, second, paths.size() < 3);
}

UniqueExperts::UniqueExperts(int rows, int experts, int batch_tokens)
    : rows_(rows),
      experts_(experts),
      batch_tokens_(batch_tokens),
      seen_(size_t(rows) * size_t(experts), 0),
      sum_(size_t(rows), 0) {}

Result<void> UniqueExperts::feed(const RoutingSlab& slab) {
  SY_CHECK(check_slab(slab, rows_, experts_));
  for (int t = 0; t < slab.tokens; ++t) {
    const uint32_t sequence = slab.sequence[size_t(t)];
    if (open_ && (sequence != sequence_ || held_ == batch_tokens_)) end_batch();
    open_ = true;
    sequence_ = sequence;
    ++held_;
    for (int r = 0; r < rows_; ++r) {
      for (const ExpertId e : slab.token(r, t)) {
        if (e == kNoExpert) continue;
        uint8_t& seen = seen_[size_t(r) * size_t(experts_) + e];
        sum_[size_t(r)] += seen == 0;
        seen = 1;
      }
    }
  }
  return {};
}

void UniqueExperts::end_batch() {
  std::fill(seen_.begin(), seen_.end(), uint8_t{0});
  held_ = 0;
  ++batches_;
}

void UniqueExperts::finish() {
  if (open_) end_batch();
  open_ = false;
}

}  // namespace switchyard
