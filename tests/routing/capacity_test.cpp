// Expert capacity: who is dropped and what the others weigh. Worked by hand from the rules of specs/families.md 1.12
// (switch), 1.13 (nllb) and 1.14 (openmoe).
#include <cmath>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "engine/routing/capacity.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using Logits = std::vector<std::vector<float>>;

RouterSpec switch_spec(int experts, int capacity) {
  RouterSpec spec{.experts = experts, .experts_per_token = 1};
  spec.capacity = Capacity::kPerSequence;
  spec.capacity_value = capacity;
  return spec;
}

RouterSpec nllb_spec(int experts, double fraction) {
  RouterSpec spec{.experts = experts, .experts_per_token = 2};
  spec.renorm = Renorm::kMaxSum;
  spec.renorm_floor = std::numeric_limits<float>::epsilon();
  spec.capacity = Capacity::kFraction;
  spec.capacity_value = fraction;
  return spec;
}

// The decisions of tokens that run together.
struct Block {
  int slots = 0;
  std::vector<Decision> decisions;
  std::vector<ExpertId> ids;
  std::vector<float> weights;
  std::vector<SlotKind> kinds;

  bool dropped(size_t token, int slot) const { return kinds[token * slots + slot] == SlotKind::kDropped; }
  float weight(size_t token, int slot) const { return weights[token * slots + slot]; }
};

Block routed(const RouterSpec& spec, const Logits& logits, const LayerRecipe* recipe = nullptr) {
  Block block{.slots = slots_needed(spec, recipe)};
  const size_t size = logits.size() * block.slots;
  block.ids.resize(size);
  block.weights.resize(size);
  block.kinds.resize(size);
  std::vector<float> scratch(4 * spec.experts);
  for (size_t t = 0; t < logits.size(); ++t) {
    const auto part = [&](auto& all) { return std::span(all).subspan(t * block.slots, block.slots); };
    block.decisions.push_back(route(spec, recipe, {.logits = logits[t]}, scratch,
                                    {part(block.ids), part(block.weights), part(block.kinds)}));
  }
  return block;
}

Block limited(const RouterSpec& spec, const Logits& logits, const LayerRecipe* recipe = nullptr) {
  Block block = routed(spec, logits, recipe);
  std::vector<uint32_t> scratch;
  limit_to_capacity(spec, recipe, {block.slots, block.decisions, block.ids, block.weights, block.kinds}, scratch);
  return block;
}

float p(const std::vector<float>& logits, int expert) {
  double sum = 0;
  for (const float z : logits) sum += std::exp(double(z));
  return float(std::exp(double(logits[expert])) / sum);
}

TEST(Capacity, CountsRoomAsThePublishedCodeDoes) {
  EXPECT_EQ(capacity_of(switch_spec(8, 64), 1000), 64);
  EXPECT_EQ(capacity_of(nllb_spec(8, 1.0), 37), 37);
  EXPECT_EQ(capacity_of(nllb_spec(8, 0.1), 10), 1);   // ceil in double: float32's 0.1 would give 2
  EXPECT_EQ(capacity_of(nllb_spec(8, 0.5), 5), 3);
  RouterSpec fixed = nllb_spec(8, 0);
  fixed.capacity_min = 64;  // no fraction: the config's own count
  EXPECT_EQ(capacity_of(fixed, 5), 64);

  RouterSpec factor{.experts = 8, .experts_per_token = 2};
  factor.capacity = Capacity::kFactor;
  factor.capacity_value = 2.0;
  factor.capacity_min = 4;
  EXPECT_EQ(capacity_of(factor, 24), 12);
  EXPECT_EQ(capacity_of(factor, 25), 12);  // 12.5
  EXPECT_EQ(capacity_of(factor, 26), 14);  // 13, made even
  EXPECT_EQ(capacity_of(factor, 1), 4);
}

TEST(Capacity, SwitchDropsWhoComesAfterTheLastPlace) {
  const std::vector<float> zero = {2, 0}, one = {0, 1};
  const Block block = limited(switch_spec(2, 2), {zero, zero, one, zero, zero});
  const std::vector<bool> want = {false, false, false, true, true};
  for (size_t t = 0; t < want.size(); ++t) EXPECT_EQ(block.dropped(t, 0), want[t]) << t;
  EXPECT_FLOAT_EQ(block.weight(0, 0), p(zero, 0));  // not renormalised
  EXPECT_FLOAT_EQ(block.weight(2, 0), p(one, 1));
  EXPECT_EQ(block.weight(3, 0), 0);
  EXPECT_EQ(block.ids[3], 0);  // stays on record
}

// Two places an expert. First choices 0, 0, 1, 0, second ones 1, 1, 0, 2: the third first choice of 0 is dropped; of
// 1 the first choice and one second choice find room; second choices of 0 come after three first ones.
const Logits kNllb = {{2, 1, 0}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}};

TEST(Capacity, NllbRanksSecondChoicesBehindAllFirstOnes) {
  const Block block = limited(nllb_spec(3, 0.5), kNllb);
  EXPECT_THAT(block.kinds, ElementsAre(SlotKind::kRouted, SlotKind::kRouted, SlotKind::kRouted, SlotKind::kDropped,
                                       SlotKind::kRouted, SlotKind::kDropped, SlotKind::kDropped, SlotKind::kRouted));
  const float first = p(kNllb[0], 0), second = p(kNllb[0], 1);
  EXPECT_NEAR(block.weight(0, 0), first / (first + second), 1e-6);
  EXPECT_NEAR(block.weight(0, 1), second / (first + second), 1e-6);
  EXPECT_NEAR(block.weight(1, 0), 1, 1e-6);  // alone: renormalised after dropping
  EXPECT_NEAR(block.weight(3, 1), 1, 1e-6);
  EXPECT_EQ(block.weight(3, 0), 0);
}

TEST(Capacity, NllbMayRenormaliseBeforeDropping) {
  RouterSpec spec = nllb_spec(3, 0.5);
  spec.renorm_before_capacity = true;
  const Block block = limited(spec, kNllb);
  const float first = p(kNllb[1], 0), second = p(kNllb[1], 1);
  EXPECT_NEAR(block.weight(1, 0), first / (first + second), 1e-6);
  EXPECT_EQ(block.weight(1, 1), 0);
}

// The divisor is clamped at the smallest step of float32: a second choice of next to no probability stays small.
TEST(Capacity, NllbClampsTheDivisor) {
  const std::vector<float> sure = {20, 0, -5};
  const Block block = limited(nllb_spec(3, 0.5), {sure, sure});
  ASSERT_TRUE(block.dropped(1, 0));
  ASSERT_TRUE(block.dropped(1, 1));
  const Block alone = limited(nllb_spec(3, 0.5), {{20, -6, -5}, sure});
  ASSERT_TRUE(alone.dropped(1, 0));
  EXPECT_NEAR(alone.weight(1, 1), p(sure, 1) / std::numeric_limits<float>::epsilon(), 1e-6);
}

TEST(Capacity, NllbMayServeTheSurestTokensFirst) {
  RouterSpec spec = nllb_spec(3, 0.5);
  spec.batch_prioritised = true;
  // All want expert 0 first; token 2 is surest, then 3, then 0, then 1. Two places.
  const Block block = limited(spec, {{2, 1, 0}, {1.5f, 1, 0}, {5, 0, 1}, {4, 0, 1}});
  EXPECT_TRUE(block.dropped(0, 0));
  EXPECT_TRUE(block.dropped(1, 0));
  EXPECT_FALSE(block.dropped(2, 0));
  EXPECT_FALSE(block.dropped(3, 0));
}

TEST(Capacity, AForcedExpertTakesEveryTokenAndAMutedOneNone) {
  const std::vector<float> zero = {2, 1, 0};
  LayerRecipe recipe;
  recipe.forced = {1, 0, 0};
  const Block forced = limited(switch_spec(3, 1), {zero, zero, zero}, &recipe);
  for (size_t t = 0; t < 3; ++t) EXPECT_FALSE(forced.dropped(t, 0)) << t;

  recipe = {};
  recipe.muted = {1, 0, 0};
  const Block muted = limited(switch_spec(3, 1), {zero, zero, zero}, &recipe);
  EXPECT_EQ(muted.ids[0], 1);  // the second best, of which one token finds room
  EXPECT_FALSE(muted.dropped(0, 0));
  EXPECT_TRUE(muted.dropped(1, 0));
}

// Edited k: third and later choices rank behind the second ones; the number of places stays the model's.
TEST(Capacity, ALargerKRanksBehind) {
  LayerRecipe recipe;
  recipe.k = 2;
  const Block block = limited(switch_spec(2, 2), {{2, 0}, {0, 2}, {2, 0}}, &recipe);
  EXPECT_FALSE(block.dropped(2, 0));  // second first choice of 0
  EXPECT_FALSE(block.dropped(0, 1));  // expert 1: one first choice, then this one
  EXPECT_TRUE(block.dropped(1, 1));   // expert 0: two first choices
  EXPECT_TRUE(block.dropped(2, 1));
}

TEST(Capacity, NoExpertServesMoreThanItsRoomAndFreeRoomDropsNobody) {
  rc::check([] {
    const int experts = *rc::gen::inRange(2, 9), tokens = *rc::gen::inRange(1, 40);
    RouterSpec spec = nllb_spec(experts, *rc::gen::inRange(1, 11) / 10.0);
    spec.batch_prioritised = *rc::gen::arbitrary<bool>();
    Logits logits(tokens);
    for (auto& row : logits)
      row = *rc::gen::container<std::vector<float>>(experts, rc::gen::map(rc::gen::inRange(-400, 400), [](int z) {
                                                      return float(z) / 100;
                                                    }));
    const Block native = routed(spec, logits), block = limited(spec, logits);
    std::vector<int64_t> served(experts), asked(experts);
    for (size_t at = 0; at < block.ids.size(); ++at) {
      ++asked[block.ids[at]];
      served[block.ids[at]] += block.kinds[at] == SlotKind::kRouted;
    }
    const int64_t room = capacity_of(spec, tokens);
    for (int e = 0; e < experts; ++e) RC_ASSERT(served[e] == std::min(asked[e], room));
    RC_ASSERT(block.ids == native.ids);
    for (int t = 0; t < tokens; ++t)
      if (!block.dropped(t, 0) && !block.dropped(t, 1)) RC_ASSERT(block.weight(t, 0) == native.weight(t, 0));
  });
}

}  // namespace
}  // namespace switchyard
