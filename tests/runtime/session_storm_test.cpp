// Session under many hands: storms of edits and transport commands, and ends at any moment.
#include <random>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/hash_session.h"

namespace switchyard {
namespace {

using test::HashSession;
using test::prompt_of;

// Every edit has a value of its own: it must be in the history exactly once, in order, and each frame must be
// routed under the recipe that its epoch names.
TEST(SessionStorm, EveryEditLandsExactlyOnce) {
  HashSession s;
  s.controls->microseconds_per_token = 400;
  s->send(Start{prompt_of(20), 100000});
  constexpr int kEdits = 2000;
  int sent = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kEdits; ++i) {
    const auto id = ExpertId(i % 6);
    ASSERT_TRUE(s->send(EditCommand{Bias{{{1 + i % 3}}, {id}, float(i + 1)}, {}}, std::to_string(i)));  // authors differ: no drag
    ++sent;
    std::this_thread::sleep_until(start + std::chrono::milliseconds(i));
  }
  s->send(Pause{});
  const auto end = s->wait();
  ASSERT_EQ(end->history.size(), size_t(sent));
  for (int i = 0; i < sent; ++i) ASSERT_EQ(end->history[i].author, std::to_string(i));

  std::set<uint32_t> numbers;
  for (const Epoch& epoch : end->epochs) ASSERT_TRUE(numbers.insert(epoch.epoch).second);
  const auto frames = s.frames();
  for (const auto& frame : frames) {
    const uint64_t t = frame->header().token_index;
    const Recipe* recipe = end->recipe_at(t);
    ASSERT_EQ(frame->header().recipe_epoch, recipe ? recipe->epoch : 0u) << t;
  }
  for (const HistoryEntry& entry : end->history) {
    if (entry.first_token < frames.size()) {
      ASSERT_GE(frames[entry.first_token]->header().recipe_epoch, entry.epoch);
    }
  }
}

// A drag of one slider: one history entry whatever arrives between two tokens, and the last value wins.
TEST(SessionStorm, ADragEndsAtItsLastValue) {
  HashSession s;
  s.controls->microseconds_per_token = 300;
  s->send(Start{prompt_of(20), 100000});
  for (int i = 1; i <= 3000; ++i) ASSERT_TRUE(s->send(EditCommand{Bias{{{1}}, {3}, float(i)}, {}}));
  s->send(Pause{});
  const auto end = s->wait();
  EXPECT_EQ(end->epochs.back().recipe->layers[0].logit_bias[3], 3000);
  s->undo_to(0);
  EXPECT_TRUE(s->wait()->epochs.back().recipe->is_identity());
}

// Several threads send anything; afterwards frames must be what a fresh cache gives under the recipes of the epochs.
TEST(SessionStorm, FramesAgreeWithTheirEpochsWhateverIsSent) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    HashSession s;
    s->send(Start{prompt_of(100), 300, true});  // a prefill would be cut short by every Pause
    s->wait();
    s.controls->microseconds_per_token = 20;
    s->send(Play{});
    std::vector<std::thread> hands;
    for (uint64_t hand = 0; hand < 3; ++hand)
      hands.emplace_back([&, hand] {
        std::mt19937_64 random(seed * 10 + hand);
        for (int i = 0; i < 150; ++i) {
          switch (random() % 15) {
            case 14: (void)s->send(EditCommand{LayerPath{{1, uint8_t(random() % 3), 1, uint8_t(random() % 3)}}, {}}); break;
            case 10: (void)s->send(EditCommand{Swap{{}, {ExpertId(random() % 3), ExpertId(3 + random() % 3)}}, {}}); break;
            case 11: (void)s->send(EditCommand{Merge{{{2}}, {ExpertId(random() % 3), ExpertId(3 + random() % 3)}, {}}, random() % 400}); break;
            case 12: (void)s->send(EditCommand{NeuronMask{{}, {ExpertId(random() % 6)}, {int(random() % 6)}}, {}}); break;
            case 13: (void)s->send(EditCommand{RouterRow{{}, {ExpertId(random() % 6)}, 1, RowSource{RowSource::Kind::kCopy, ExpertId(random() % 6)}}, {}}); break;
            case 0: s->send(Pause{}); break;
            case 1: s->send(Step{}); break;
            case 2: s->undo(); break;
            case 3: s->redo(); break;
            case 4: s->undo_to(random() % 20); break;
            case 5: (void)s->send(EditCommand{TopK{{}, int(random() % 6)}, {}}); break;
            case 6: (void)s->send(EditCommand{Mute{{}, {ExpertId(random() % 6)}}, random() % 400}); break;
            case 7: (void)s->send(EditCommand{ExpertScale{{{1}}, {ExpertId(random() % 6)}, 0.5f}, {}}); break;
            default: s->send(Play{}); break;
          }
          (void)s->snapshot();
          (void)s->latest_frame();
          std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
        }
      });
    for (auto& hand : hands) hand.join();
    s->send(Pause{});
    const auto end = s->wait();
    const auto frames = s.frames();
    ASSERT_GT(frames.size(), 100u);

    test::HashBackend backend(s.checkpoint.plan, std::make_shared<test::HashBackendControls>());
    const auto cache = backend.new_cache(600);
    const Recipe native;
    for (size_t t = 0; t < frames.size(); ++t) {
      const Recipe* recipe = end->recipe_at(t);
      const FrameHeader& header = frames[t]->header();
      std::vector<RoutingFrame> again(1, RoutingFrame(header.moe_layers, header.experts, header.slots, header.capture, header.passes));
      const TokenId id = header.token_id;
      again[0].header().token_id = id;
      ASSERT_TRUE(backend.forward({.tokens = {&id, 1}, .cache = cache.get(), .recipe = recipe ? recipe : &native, .rows = LogitRows::kNone, .frames = again}));
      ASSERT_TRUE(test::same_routing(*frames[t], again[0])) << "seed " << seed << " token " << t;
    }
  }
}

TEST(SessionStorm, EndsCleanlyAtAnyMoment) {
  std::mt19937_64 random(9);
  for (int turn = 0; turn < 60; ++turn) {
    auto sink = std::make_shared<test::NotingSink>();
    {
      HashSession s;
      s.controls->microseconds_per_token = 50;
      s->record_to(sink);
      s->send(Start{prompt_of(300), 300});
      if (turn % 3 == 0) (void)s->send(EditCommand{TopK{{}, 1}, 200});
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
    }
    const auto notes = sink->notes();
    // A session that ends before the engine thread saw the sink has nothing to close.
    if (!notes.empty()) {
      ASSERT_EQ(notes.back(), "close");
    }
  }
}

TEST(SessionStorm, ResetAndStartInFlightLeaveOneSequence) {
  HashSession s;
  s.controls->microseconds_per_token = 30;
  for (int turn = 0; turn < 50; ++turn) {
    s->send(Start{prompt_of(50 + turn), 50});
    if (turn % 3 == 0) s->send(Reset{});
    if (turn % 7 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  s->send(Start{prompt_of(10), 5});
  const auto end = s->wait();
  EXPECT_EQ(end->sequence, 50u);
  EXPECT_EQ(end->frames->size(), 14u);
  EXPECT_EQ(end->generated_ids.size(), 5u);
}

}  // namespace
}  // namespace switchyard
