// What a KV cache promises, on every backend: chunks, rewinding, cloning, and a cache left as it was
// when a forward() fails. Models: the demo and one golden of each family and with a window.
#include <gtest/gtest.h>

#include <iostream>
#include <thread>
#include <tuple>

#include "tests/backend/harness.h"

namespace switchyard::testing {
namespace {

// What chunks and threads may change: LibTorch rounds products of other shapes differently; the cpu
// kernels promise the same bits (engine/backend/cpu/kernels.h).
double rounding(const std::string& backend_name) {
  return backend_name == "cpu" ? 0 : 2e-4;
}

class Cache : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  std::string model() const { return std::get<0>(GetParam()); }
  std::string backend_name() const { return std::get<1>(GetParam()); }
  std::vector<TokenId> prompt() const { return prompts(model())[1]; }
  Sequence sequence() const { return Sequence(model(), backend_name()); }
};

void append(Output& to, Output from) {
  to.logits.insert(to.logits.end(), from.logits.begin(), from.logits.end());
  for (RoutingFrame& frame : from.frames) to.frames.push_back(std::move(frame));
}

Output feed_in_chunks(Sequence& sequence, std::span<const TokenId> ids, size_t chunk) {
  Output all;
  for (size_t from = 0; from < ids.size(); from += chunk) {
    append(all, sequence.feed(ids.subspan(from, std::min(chunk, ids.size() - from))));
  }
  return all;
}

TEST_P(Cache, PrefillInChunksEqualsPrefillAtOnce) {
  const auto ids = prompt();
  Sequence whole = sequence();
  const Output at_once = whole.feed(ids);
  Difference all;
  for (const size_t chunk : {1, 2, 5, 8, 16}) {
    Sequence parts = sequence();
    const Difference d = compare(at_once, feed_in_chunks(parts, ids, chunk));
    EXPECT_LE(d.logits, rounding(backend_name())) << "chunks of " << chunk;
    EXPECT_EQ(d.sets_differing, 0) << "chunks of " << chunk;
    EXPECT_EQ(parts.cache().length(), int(ids.size()));
    all.include(d);
  }
  std::cout << backend_name() << " on " << model() << ", chunks: " << all << "\n";
}

TEST_P(Cache, TruncatingAndReplayingRepeatsBitForBit) {
  const auto ids = prompt();
  Sequence run = sequence();
  run.feed(std::span(ids).first(10));
  const Output first = feed_in_chunks(run, std::span(ids).subspan(10), 1);
  run.cache().truncate(10);
  ASSERT_EQ(run.cache().length(), 10);
  EXPECT_TRUE(identical(first, feed_in_chunks(run, std::span(ids).subspan(10), 1)));
}

TEST_P(Cache, CloneAndOriginalGoTheirOwnWays) {
  const auto ids = prompt();
  const auto other = prompts(model())[0];
  Sequence original = sequence();
  original.feed(std::span(ids).first(12));
  Sequence undisturbed(original), clone(original);
  const auto rest = std::span(ids).subspan(12);
  Output a, b;
  for (size_t i = 0; i < std::min(rest.size(), other.size()); ++i) {  // turn by turn, on different tokens
    append(a, original.feed({&rest[i], 1}));
    append(b, clone.feed({&other[i], 1}));
  }
  EXPECT_TRUE(identical(a, feed_in_chunks(undisturbed, rest.first(a.frames.size()), 1)));
  EXPECT_FALSE(identical(a, b));
}

TEST_P(Cache, CancelledForwardLeavesTheCacheAsItWas) {
  const auto ids = prompt();
  Sequence run = sequence();
  run.feed(std::span(ids).first(10));
  Task task;
  task.cancel();
  const Recipe native;
  const auto done = backend(model(), backend_name())
                        .forward({.tokens = std::span(ids).subspan(10),
                                  .cache = &run.cache(),
                                  .recipe = &native,
                                  .rows = LogitRows::kNone,
                                  .task = &task});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(run.cache().length(), 10);

  Sequence untouched = sequence();
  untouched.feed(std::span(ids).first(10));
  EXPECT_TRUE(identical(run.feed({&ids[10], 1}), untouched.feed({&ids[10], 1})));
}

TEST_P(Cache, AFullContextIsRefusedBeforeAnythingChanges) {
  const auto ids = prompt();
  Backend& on = backend(model(), backend_name());
  const auto small = on.new_cache(8);
  ASSERT_NE(small, nullptr);
  EXPECT_EQ(small->capacity(), 8);
  const Recipe native;
  const auto done = on.forward(
      {.tokens = std::span(ids).first(9), .cache = small.get(), .recipe = &native, .rows = LogitRows::kNone});
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message().find("context of 8 tokens"), std::string::npos) << done.error().message();
  EXPECT_EQ(small->length(), 0);
  EXPECT_TRUE(on.forward(
      {.tokens = std::span(ids).first(8), .cache = small.get(), .recipe = &native, .rows = LogitRows::kNone}));
}

TEST_P(Cache, ForeignTokensAreRefused) {
  Backend& on = backend(model(), backend_name());
  const auto cache = on.new_cache(8);
  const Recipe native;
  for (const TokenId id : {-1, checkpoint(model()).plan.vocab}) {
    EXPECT_FALSE(on.forward({.tokens = {&id, 1}, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kNone}));
  }
}

TEST_P(Cache, LogitRowsAndCaptureDoNotChangeTheNumbers) {
  const auto ids = prompt();
  const int vocab = checkpoint(model()).plan.vocab;
  Sequence captured = sequence();
  const Output all = captured.feed(ids);
  Backend& on = backend(model(), backend_name());
  const auto cache = on.new_cache(64);
  const Recipe native;
  std::vector<float> last(vocab);
  ASSERT_TRUE(
      on.forward({.tokens = ids, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kLast, .logits = last}));
  EXPECT_LE(largest_difference(last, last_row(all, vocab)), rounding(backend_name()));
}

TEST_P(Cache, NumberOfThreadsDoesNotChangeTheDecisions) {
  const auto ids = prompt();
  Backend& on = backend(model(), backend_name());
  Sequence two = sequence();
  const Output with_two = two.feed(ids);
  on.set_threads(1);
  Sequence one = sequence();
  const Difference d = compare(with_two, one.feed(ids));
  on.set_threads(2);
  EXPECT_LE(d.logits, rounding(backend_name()));
  EXPECT_EQ(d.sets_differing, 0);
}

// The engine thread is not the thread that opened the model.
TEST_P(Cache, ForwardRunsOnAnyOneThread) {
  const auto ids = prompt();
  Sequence here = sequence(), there = sequence();
  const Output first = here.feed(ids);
  Output second;
  std::thread([&] { second = there.feed(ids); }).join();
  const Difference d = compare(first, second);
  EXPECT_LE(d.logits, rounding(backend_name()));
  EXPECT_EQ(d.sets_differing, 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, Cache,
                         ::testing::Combine(::testing::Values("demo", "mixtral_window", "olmoe", "qwen3_moe"),
                                            ::testing::ValuesIn(backend_names())),
                         [](const auto& info) { return std::get<0>(info.param) + "_" + std::get<1>(info.param); });

}  // namespace
}  // namespace switchyard::testing
