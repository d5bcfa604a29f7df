// What must hold of the analyses for any input: order and partition do not matter, windows are exact,
// ids that do not exist are refused and leave no trace.
#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "engine/analysis/affinity.h"
#include "engine/analysis/coactivation.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/load.h"

namespace switchyard {
namespace {

struct Routing {
  int experts, k;
  std::vector<ExpertId> ids;  // [tokens, k], some slots empty
  std::span<const ExpertId> tokens(size_t from, size_t to) const { return std::span(ids).subspan(from * k, (to - from) * k); }
  size_t size() const { return ids.size() / k; }
};

Routing any_routing() {
  Routing routing{*rc::gen::inRange(1, 40), *rc::gen::inRange(1, 6), {}};
  const int tokens = *rc::gen::inRange(0, 30);
  for (int slot = 0; slot < tokens * routing.k; ++slot) {
    const int id = *rc::gen::inRange(0, routing.experts + 1);
    routing.ids.push_back(id == routing.experts ? kNoExpert : static_cast<ExpertId>(id));
  }
  return routing;
}

template <class T>
std::vector<T> copy(std::span<const T> values) { return {values.begin(), values.end()}; }

void check(bool held) { EXPECT_TRUE(held); }

TEST(LoadProperties, MergeEqualsFeedingAll) {
  check(rc::check([] {
    const Routing routing = any_routing();
    const size_t cut = *rc::gen::inRange<size_t>(0, routing.size() + 1);
    Load all(2, routing.experts), left(2, routing.experts), right(2, routing.experts);
    RC_ASSERT(all.feed(1, routing.ids, routing.k).has_value());
    RC_ASSERT(left.feed(1, routing.tokens(0, cut), routing.k).has_value());
    RC_ASSERT(right.feed(1, routing.tokens(cut, routing.size()), routing.k).has_value());
    left.merge(right);
    RC_ASSERT(copy(left.counts(1)) == copy(all.counts(1)));
    RC_ASSERT(copy(left.first_choice_counts(1)) == copy(all.first_choice_counts(1)));
    RC_ASSERT(load_stats(all.counts(0)).total == 0u);
  }));
}

TEST(LoadProperties, RemoveIsTheInverseOfFeed) {
  check(rc::check([] {
    const Routing routing = any_routing();
    const size_t cut = *rc::gen::inRange<size_t>(0, routing.size() + 1);
    Load window(1, routing.experts), rest(1, routing.experts);
    RC_ASSERT(window.feed(0, routing.ids, routing.k).has_value());
    RC_ASSERT(window.remove(0, routing.tokens(0, cut), routing.k).has_value());
    RC_ASSERT(rest.feed(0, routing.tokens(cut, routing.size()), routing.k).has_value());
    RC_ASSERT(copy(window.counts(0)) == copy(rest.counts(0)));
    RC_ASSERT(copy(window.first_choice_counts(0)) == copy(rest.first_choice_counts(0)));
  }));
}

TEST(LoadProperties, StatisticsStayInTheirRanges) {
  check(rc::check([] {
    const auto counts = *rc::gen::nonEmpty(rc::gen::container<std::vector<uint64_t>>(rc::gen::inRange<uint64_t>(0, 1000)));
    const LoadStats stats = load_stats(counts);
    if (stats.total == 0) {
      RC_ASSERT(stats.dead == int(counts.size()));
      return;
    }
    RC_ASSERT(stats.max_vio >= -1e-12);
    RC_ASSERT(stats.min_vio >= -1e-12 && stats.min_vio <= 1 + 1e-12);
    RC_ASSERT(stats.gini >= -1e-12 && stats.gini < 1);
    RC_ASSERT(stats.entropy >= -1e-12 && stats.entropy <= std::log(double(counts.size())) + 1e-12);
    RC_ASSERT(stats.dead <= stats.nearly_dead);
  }));
}

TEST(Load, RefusesIdsThatTheModelDoesNotHave) {
  Load load(2, 4);
  const std::vector<ExpertId> ids = {0, 1, 2, 4};
  const auto fed = load.feed(1, ids, 2);
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().message(), "routing row 1: expert 4 is out of range: the row has 4 experts");
  EXPECT_EQ(load.stats(1).total, 0u) << "nothing of a refused block is counted";
  EXPECT_FALSE(load.feed(2, std::vector<ExpertId>{0, 1}, 2)) << "no such row";
  EXPECT_FALSE(load.feed(-1, std::vector<ExpertId>{0, 1}, 2));
  EXPECT_FALSE(load.feed(0, std::vector<ExpertId>{0, 1, 2}, 2)) << "a token and a half";
  EXPECT_FALSE(load.feed(0, {}, 0)) << "no slots";
}

TEST(Load, RefusesToRemoveWhatWasNotFed) {
  Load load(1, 4);
  ASSERT_TRUE(load.feed(0, std::vector<ExpertId>{0, 1, 2, 3}, 2));
  EXPECT_FALSE(load.remove(0, std::vector<ExpertId>{0, 1, 0, 1}, 2));
  EXPECT_FALSE(load.remove(0, std::vector<ExpertId>{1, 0}, 2)) << "the first choice was another";
  EXPECT_EQ(load.stats(0).total, 4u);
}

TEST(Load, UniformLoadIsPerfectlyBalanced) {
  const LoadStats stats = load_stats(std::vector<uint64_t>(8, 5));
  EXPECT_DOUBLE_EQ(stats.max_vio, 0);
  EXPECT_DOUBLE_EQ(stats.cv, 0);
  EXPECT_NEAR(stats.gini, 0, 1e-15);
  EXPECT_NEAR(stats.effective_experts, 8, 1e-12);
}

TEST(AffinityProperties, MergeEqualsFeedingAll) {
  check(rc::check([] {
    const Routing from = any_routing();
    const size_t cut = *rc::gen::inRange<size_t>(0, from.size() + 1);
    Affinity all(3, from.experts), left(3, from.experts), right(3, from.experts);
    for (size_t t = 0; t < from.size(); ++t) {
      const auto here = from.tokens(t, t + 1), next = from.tokens(from.size() - 1 - t, from.size() - t);
      RC_ASSERT(all.feed(1, here, next).has_value());
      RC_ASSERT((t < cut ? left : right).feed(1, here, next).has_value());
    }
    left.merge(right);
    RC_ASSERT(copy(left.topk(1)) == copy(all.topk(1)));
    RC_ASSERT(copy(left.top1(1)) == copy(all.top1(1)));
    const AffinityStats stats = affinity_stats(all.topk(1), from.experts);
    RC_ASSERT(stats.mi_bits >= 0);
    RC_ASSERT(stats.uncertainty >= 0 && stats.uncertainty <= 1 + 1e-9);
    RC_ASSERT(stats.expected_max_p + 1e-12 >= stats.marginal_max);
    all.clear();
    RC_ASSERT(affinity_stats(all.topk(1), from.experts).expected_max_p == 0);
  }));
}

TEST(Affinity, RefusesIdsThatTheModelDoesNotHave) {
  Affinity affinity(3, 4);
  EXPECT_FALSE(affinity.feed(0, std::vector<ExpertId>{0, 9}, std::vector<ExpertId>{1, 2}));
  const auto fed = affinity.feed(1, std::vector<ExpertId>{0, 1}, std::vector<ExpertId>{1, 4});
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().where, "routing row 2");
  EXPECT_FALSE(affinity.feed(2, std::vector<ExpertId>{0}, std::vector<ExpertId>{1})) << "the last row has no next";
  for (int row = 0; row < 2; ++row) EXPECT_TRUE(strongest_pairs(affinity.topk(row), 4, 10).empty());
}

TEST(Affinity, EmptySlotsPairWithNothing) {
  Affinity affinity(2, 4);
  ASSERT_TRUE(affinity.feed(0, std::vector<ExpertId>{kNoExpert, kNoExpert}, std::vector<ExpertId>{1, 2}));
  ASSERT_TRUE(affinity.feed(0, std::vector<ExpertId>{3, kNoExpert}, std::vector<ExpertId>{1, kNoExpert}));
  const auto pairs = strongest_pairs(affinity.topk(0), 4, 10);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].from, 3);
  EXPECT_EQ(pairs[0].to, 1);
}

TEST(Affinity, PairsFallByCountThenIds) {
  const std::vector<uint64_t> counts = {1, 2, 0, 2};
  const auto pairs = strongest_pairs(counts, 2, 2);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].from * 2 + pairs[0].to, 1);
  EXPECT_EQ(pairs[1].from * 2 + pairs[1].to, 3);
  EXPECT_TRUE(strongest_pairs(counts, 2, 0).empty());
}

TEST(Affinity, OneRowHasNoTransitions) { EXPECT_EQ(Affinity(1, 4).transitions(), 0); }

TEST(CoactivationProperties, MergeEqualsFeedingAll) {
  check(rc::check([] {
    const Routing routing = any_routing();
    const size_t cut = *rc::gen::inRange<size_t>(0, routing.size() + 1);
    Coactivation all(1, routing.experts), left(1, routing.experts), right(1, routing.experts);
    RC_ASSERT(all.feed(0, routing.ids, routing.k).has_value());
    RC_ASSERT(left.feed(0, routing.tokens(0, cut), routing.k).has_value());
    RC_ASSERT(right.feed(0, routing.tokens(cut, routing.size()), routing.k).has_value());
    left.merge(right);
    RC_ASSERT(copy(left.counts(0)) == copy(all.counts(0)));
  }));
}

TEST(GateEntropyProperties, MergeEqualsFeedingAll) {
  check(rc::check([] {
    const int experts = *rc::gen::inRange(1, 20), tokens = *rc::gen::inRange(0, 10);
    std::vector<float> logits;
    for (int i = 0; i < experts * tokens; ++i) logits.push_back(*rc::gen::inRange(-800, 800) / 16.0f);
    const size_t cut = size_t(*rc::gen::inRange(0, tokens + 1)) * experts;
    GateEntropy all(1, experts), left(1, experts), right(1, experts);
    RC_ASSERT(all.feed(0, logits).has_value());
    RC_ASSERT(left.feed(0, std::span(logits).first(cut)).has_value());
    RC_ASSERT(right.feed(0, std::span(logits).subspan(cut)).has_value());
    left.merge(right);
    const GateEntropyStats a = all.stats(0), b = left.stats(0);
    RC_ASSERT(std::abs(a.mean_entropy - b.mean_entropy) < 1e-12);
    RC_ASSERT(std::abs(a.entropy_of_mean - b.entropy_of_mean) < 1e-12);
    RC_ASSERT(a.mutual_information > -1e-12);
    RC_ASSERT(a.tokens == uint64_t(tokens));
  }));
}

// One expert muted to -inf is a probability of 0; NaN has no probability at all.
TEST(GateEntropy, InfinitiesAreZeroAndNansAreLeftOut) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  GateEntropy gates(1, 2);
  ASSERT_TRUE(gates.feed(0, std::vector<float>{1, -inf, nan, 0}));
  EXPECT_EQ(gates.stats(0).tokens, 1u);
  EXPECT_DOUBLE_EQ(gates.prob_sum(0)[0], 1);
  EXPECT_DOUBLE_EQ(gates.prob_sum(0)[1], 0);
  EXPECT_DOUBLE_EQ(gates.stats(0).mean_entropy, 0);
  EXPECT_FALSE(gates.feed(0, std::vector<float>{1}));
  EXPECT_FALSE(gates.feed(1, std::vector<float>{1, 2}));
}

}  // namespace
}  // namespace switchyard
