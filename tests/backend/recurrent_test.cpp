// The cache of models with recurrent state (goldens of tests/goldens): cutting back, cloning, and failing in the
// middle leave it as if the tokens that are gone had never been run.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

constexpr const char* kBackend = "reference";
constexpr int kTokens = 100;

std::vector<TokenId> text(const std::string& model) {
  std::vector<TokenId> ids;
  for (int i = 0; i < kTokens; ++i) ids.push_back(TokenId(4 + (i * 37 + i * i) % (checkpoint(model).plan.vocab - 4)));
  return ids;
}

class Recurrent : public ::testing::TestWithParam<std::string> {};

TEST_P(Recurrent, PiecesAndSingleTokensAgreeWithOnePiece) {
  const auto ids = text(GetParam());
  Sequence whole(GetParam(), kBackend), pieces(GetParam(), kBackend), single(GetParam(), kBackend);
  const Output want = whole.feed(ids);
  Output got, one;
  const auto add = [](Output& to, Output&& from) {
    to.logits.insert(to.logits.end(), from.logits.begin(), from.logits.end());
    to.frames.insert(to.frames.end(), from.frames.begin(), from.frames.end());
  };
  for (size_t from = 0; from < ids.size();) {  // the first pieces are shorter than any convolution
    const size_t count = std::min<size_t>(from < 8 ? 1 + from % 3 : 29, ids.size() - from);
    add(got, pieces.feed(std::span(ids).subspan(from, count)));
    from += count;
  }
  for (const TokenId& id : ids) add(one, single.feed({&id, 1}));
  for (const Output* other : {&got, &one}) {
    const Difference difference = compare(want, *other);
    EXPECT_LE(difference.logits, 1e-3) << difference;
    EXPECT_EQ(difference.sets_differing, 0) << difference;
  }
}

TEST_P(Recurrent, CuttingBackGoesToAKeptPlaceAndRepeatsBitForBit) {
  const auto ids = text(GetParam());
  Sequence run(GetParam(), kBackend);
  const auto feed = [&](size_t from, size_t to) {
    Output last;
    for (size_t i = from; i < to; ++i) last = run.feed({&ids[i], 1});
    return last;
  };
  const Output first = feed(0, 80);
  const int kept = run.cache().truncate(71);
  EXPECT_EQ(kept, run.cache().length());
  EXPECT_LE(kept, 71);
  EXPECT_GE(kept, 71 - 32);  // a place is kept every 32 tokens
  EXPECT_TRUE(identical(first, feed(size_t(kept), 80)));
  EXPECT_EQ(run.cache().truncate(5), 0);
  EXPECT_TRUE(identical(first, feed(0, 80)));
}

TEST_P(Recurrent, AStoppedForwardLeavesTheStateAsItWas) {
  const auto ids = text(GetParam());
  Sequence untouched(GetParam(), kBackend);
  untouched.feed(std::span(ids).first(10));
  const Output want = Sequence(untouched).feed({&ids[10], 1});
  const Recipe native;
  // Stopped at some layer, wherever the clock has it: the first layers have replaced their state by then.
  for (const auto delay : {0, 300, 1000, 3000, 10000}) {
    Sequence run(untouched);
    Task task;
    std::thread stopper([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay));
      task.cancel();
    });
    const auto done = backend(GetParam(), kBackend)
                          .forward({.tokens = std::span(ids).subspan(20, 80),
                                    .cache = &run.cache(),
                                    .recipe = &native,
                                    .rows = LogitRows::kNone,
                                    .task = &task});
    stopper.join();
    if (done) continue;  // too late
    EXPECT_EQ(run.cache().length(), 10);
    EXPECT_TRUE(identical(run.feed({&ids[10], 1}), want)) << delay;
  }
  EXPECT_TRUE(identical(untouched.feed({&ids[10], 1}), want));  // the clones went their own ways
}

INSTANTIATE_TEST_SUITE_P(Models, Recurrent, ::testing::Values("jamba", "lfm2_moe", "qwen3_next", "minimax"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::testing
