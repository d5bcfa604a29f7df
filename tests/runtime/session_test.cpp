// Session: transport, edits, record and errors, over a backend whose tokens depend on every routing decision.
#include <atomic>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/hash_session.h"

namespace switchyard {
namespace {

using test::HashSession;
using test::NotingSink;
using test::prompt_of;
using test::same_routing;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<TokenId>;

EditCommand mute(int layer, ExpertId id) { return {Mute{{{layer}}, {id}}, {}}; }

// The ids of an undisturbed run.
Ids plain_run(int prompt, uint64_t tokens) {
  HashSession s;
  s->send(Start{prompt_of(prompt), tokens});
  return s->wait()->generated_ids;
}

TEST(Session, GeneratesToTheLengthAndKeepsAFrameOfEveryRoutedToken) {
  HashSession s;
  s->send(Start{prompt_of(10), 20});
  const auto end = s->wait();
  EXPECT_EQ(end->state, RunState::kFinished);
  EXPECT_EQ(end->finish, Finish::kLength);
  EXPECT_EQ(end->generated_ids.size(), 20u);
  EXPECT_EQ(end->prompt_ids, prompt_of(10));
  const auto frames = s.frames();
  ASSERT_EQ(frames.size(), 29u);  // the last generated token was never routed
  for (size_t i = 0; i < frames.size(); ++i) {
    const FrameHeader& h = frames[i]->header();
    EXPECT_EQ(h.token_index, i);
    EXPECT_EQ(h.phase, i < 10 ? Phase::kPrefill : Phase::kDecode);
    EXPECT_EQ(h.sampled_id, i < 9 ? -1 : end->generated_ids[i - 9]);
    EXPECT_EQ(h.token_id, i < 10 ? prompt_of(10)[i] : end->generated_ids[i - 10]);
    EXPECT_EQ(frames[i]->layer(0).k_used, 2);
  }
  EXPECT_EQ(s->latest_frame(), frames.back());
  EXPECT_GT(end->decode_tokens_per_s, 0);
  EXPECT_GE(end->capture_cost, 0);
  EXPECT_LE(end->capture_cost, 1);
}

TEST(Session, WaitsAtOnceWhenIdle) {
  HashSession s;
  EXPECT_EQ(s->wait()->state, RunState::kIdle);
  EXPECT_EQ(s->wait()->epochs.size(), 1u);
  EXPECT_EQ(s->latest_frame(), nullptr);
}

TEST(Session, RoutesAPromptWithoutGenerating) {
  HashSession s;
  s->send(Start{prompt_of(10), 0});
  auto end = s->wait();
  EXPECT_EQ(end->finish, Finish::kLength);
  EXPECT_TRUE(end->generated_ids.empty());
  EXPECT_EQ(s.frames().size(), 10u);
  s->send(Play{5});
  EXPECT_EQ(s->wait()->generated_ids, plain_run(10, 5));
}

TEST(Session, StepsTokenByToken) {
  HashSession s;
  s->send(Start{prompt_of(10), 6, true});
  auto now = s->wait();
  EXPECT_EQ(now->state, RunState::kPaused);
  EXPECT_EQ(now->generated_ids.size(), 1u);  // chosen from the last token of the prompt
  for (size_t step = 2; step <= 4; ++step) {
    s->send(Step{});
    now = s->wait();
    EXPECT_EQ(now->state, RunState::kPaused);
    EXPECT_EQ(now->generated_ids.size(), step);
    EXPECT_EQ(s.frames().size(), 9 + step);
  }
  s->send(Play{});
  EXPECT_EQ(s->wait()->generated_ids, plain_run(10, 6));
  s->send(Step{});  // beyond the length: one more
  EXPECT_EQ(s->wait()->generated_ids, plain_run(10, 7));
  s->send(Play{});  // as many again as before
  EXPECT_EQ(s->wait()->generated_ids, plain_run(10, 13));
}

TEST(Session, PausesAndGoesOnAsIfNothingHadHappened) {
  HashSession s;
  s.controls->microseconds_per_token = 5000;
  s->send(Start{prompt_of(400), 60});
  for (int turn = 0; turn < 12; ++turn) {
    std::this_thread::sleep_for(std::chrono::milliseconds(7));
    s->send(Pause{});
    const auto paused = s->wait();
    EXPECT_THAT(paused->state, testing::AnyOf(RunState::kPaused, RunState::kFinished));
    if (turn == 0) {
      EXPECT_EQ(paused->generated_ids.size(), 0u);  // 400 tokens take 2 s: the prefill was cut short
    }
    s.controls->microseconds_per_token = turn > 3 ? 100 : 20;
    s->send(Play{});
  }
  EXPECT_EQ(s->wait()->generated_ids, plain_run(400, 60));
}

TEST(Session, StopsAtOnceAndStaysReadable) {
  HashSession s;
  s.controls->microseconds_per_token = 2000;
  s->send(Start{prompt_of(500), 60});  // a second of prefill
  s->send(Stop{});
  auto end = s->wait();
  EXPECT_EQ(end->finish, Finish::kStopped);
  EXPECT_EQ(end->prompt_ids.size(), 500u);
  EXPECT_LT(s.controls->forwards, 3u);
  s.controls->microseconds_per_token = 0;
  s->send(Reset{});
  end = s->wait();
  EXPECT_EQ(end->state, RunState::kIdle);
  EXPECT_TRUE(end->prompt_ids.empty());
  EXPECT_EQ(end->frames->size(), 0u);
  s->send(Play{});  // nothing to play
  EXPECT_EQ(s->wait()->state, RunState::kIdle);
  s->send(Start{prompt_of(10), 5});
  EXPECT_EQ(s->wait()->sequence, 1u);
  EXPECT_EQ(s->snapshot()->generated_ids, plain_run(10, 5));
}

TEST(Session, ANewStartReplacesARunningOne) {
  HashSession s;
  s.controls->microseconds_per_token = 500;
  s->send(Start{prompt_of(300), 500});
  s.controls->microseconds_per_token = 0;
  s->send(Start{prompt_of(10), 5});
  const auto end = s->wait();
  EXPECT_EQ(end->generated_ids, plain_run(10, 5));
  EXPECT_EQ(end->frames->size(), 14u);
}

TEST(Session, EndsAtEndOfText) {
  HashSession s({.sampling = {.greedy = false, .temperature = 2, .seed = 1}, .ignore_eos = false});
  s->send(Start{prompt_of(10), 500});
  const auto end = s->wait();
  EXPECT_EQ(end->finish, Finish::kEos);
  EXPECT_EQ(end->generated_ids.back(), 7);
  EXPECT_EQ(std::count(end->generated_ids.begin(), end->generated_ids.end(), 7), 1);
}

TEST(Session, EndsWhenTheContextIsFull) {
  HashSession s({.context = 32, .ignore_eos = true});
  s->send(Start{prompt_of(10), 500});
  const auto end = s->wait();
  EXPECT_EQ(end->finish, Finish::kContextFull);
  EXPECT_EQ(s.frames().size(), 32u);
  EXPECT_EQ(end->generated_ids.size(), 23u);  // the last one has no room to be routed
  s->send(Play{5});
  EXPECT_EQ(s->wait()->finish, Finish::kContextFull);
}

TEST(Session, TheSameSeedGivesTheSameTextInAnySequence) {
  HashSession s({.sampling = {.greedy = false, .seed = 5}, .ignore_eos = true});
  s->send(Start{prompt_of(10), 30});
  const Ids first = s->wait()->generated_ids;
  s->send(Start{prompt_of(10), 30});
  EXPECT_EQ(s->wait()->generated_ids, first);
  s->send(SetSampling{{.greedy = false, .seed = 6}});
  s->send(Start{prompt_of(10), 30});
  EXPECT_NE(s->wait()->generated_ids, first);
}

TEST(Session, RefusesWhatCannotBeDoneAndLeavesEverythingAsItIs) {
  HashSession s;
  s->send(Start{prompt_of(10), 5});
  const Ids ids = s->wait()->generated_ids;
  uint64_t serial = 0;
  const auto refused = [&](TransportCommand command, const char* message) {
    s->send(std::move(command));
    const auto now = s->wait();
    ASSERT_TRUE(now->error);
    EXPECT_THAT(now->error->message(), HasSubstr(message));
    EXPECT_EQ(now->error_serial, ++serial);
    EXPECT_EQ(now->generated_ids, ids);
    EXPECT_EQ(now->state, RunState::kFinished);
  };
  refused(Start{{}, 5}, "the prompt has no tokens");
  refused(Start{{1, 50}, 5}, "token 1 has id 50, the model knows 0 to 49");
  refused(Start{prompt_of(601), 5}, "the prompt has 601 tokens, the context holds 600");
  refused(SetSampling{{.greedy = false, .temperature = 0}}, "temperature is 0");
  refused(SetSampling{{.greedy = false, .top_p = 1.5f}}, "top-p is 1.5");
  s->send(Start{prompt_of(10), 5});
  EXPECT_FALSE(s->wait()->error);
}

TEST(Session, SurvivesAFailingBackend) {
  HashSession s;
  s.controls->fail_at = 20;
  s->send(Start{prompt_of(10), 30});
  auto end = s->wait();
  EXPECT_EQ(end->state, RunState::kFailed);
  ASSERT_TRUE(end->error);
  EXPECT_EQ(end->error->code, ErrorCode::kDevice);
  EXPECT_EQ(s.frames().size(), 20u);
  EXPECT_TRUE(s->send(mute(1, 3)));
  s->undo();
  s.controls->fail_at = -1;
  s->send(Play{});
  end = s->wait();
  EXPECT_EQ(end->state, RunState::kFinished);
  EXPECT_EQ(end->generated_ids, plain_run(10, 30));
}

TEST(Session, CapturesWhatTheLevelSays) {
  HashSession s({.capture = CaptureLevel::kIds, .ignore_eos = true});
  s->send(Start{prompt_of(10), 3});
  s->wait();
  EXPECT_TRUE(s->latest_frame()->weights(0).empty());
  s->send(SetCapture{CaptureLevel::kOff});
  s->send(Play{3});
  s->wait();
  EXPECT_EQ(s->latest_frame()->layer(0).k_used, 0);
  EXPECT_EQ(s->latest_frame()->ids(0)[0], kNoExpert);
  s->send(SetCapture{CaptureLevel::kLogits});
  s->send(Play{3});
  EXPECT_EQ(s->wait()->generated_ids, plain_run(10, 9));
  EXPECT_EQ(s->latest_frame()->logits(0).size(), 8u);
  EXPECT_EQ(s.frames().size(), 18u);
}

TEST(Session, PassesTheNumberOfThreadsOn) {
  HashSession s;
  s->send(SetThreads{3});
  s->wait();
  EXPECT_EQ(s.controls->threads, 3);
}

TEST(Session, TellsItsListener) {
  HashSession s;
  std::atomic<int> calls{0};
  std::atomic<bool> finished{false};
  s->set_listener([&] {
    ++calls;
    finished = s->snapshot()->state == RunState::kFinished;
  });
  s->send(Start{prompt_of(10), 5});
  s->wait();
  EXPECT_GT(calls, 0);
  EXPECT_TRUE(finished);
  s->set_listener({});
}

// "at_token n: token n is the first one routed under the edit", in the prompt and after it.
TEST(SessionEdits, TakeEffectExactlyAtTheirToken) {
  HashSession plain;
  plain->send(Start{prompt_of(30), 30});
  plain->wait();
  const auto before = plain.frames();
  for (const uint64_t at : {0, 1, 12, 29, 30, 31, 45}) {
    SCOPED_TRACE(at);
    HashSession s;
    const ExpertId expert = before[at]->used_ids(1)[0];  // chosen there natively
    ASSERT_TRUE(s->send(std::vector<EditCommand>{{Mute{{{2}}, {expert}}, at}}));
    s->send(Start{prompt_of(30), 30});
    const auto end = s->wait();
    const auto frames = s.frames();
    ASSERT_EQ(frames.size(), before.size());
    for (size_t t = 0; t < frames.size(); ++t) {
      EXPECT_EQ(frames[t]->header().recipe_epoch, at > 0 && t >= at ? 1u : 0u);
      if (t < at) {
        EXPECT_TRUE(same_routing(*frames[t], *before[t])) << t;
      } else {
        EXPECT_THAT(frames[t]->used_ids(1), testing::Not(testing::Contains(expert))) << t;
      }
    }
    EXPECT_EQ(frames[at]->layer(1).changed, 1);
    ASSERT_EQ(end->epochs.size(), at > 0 ? 2u : 1u);
    EXPECT_EQ(end->epochs.back().first_token, at);
    EXPECT_EQ(end->recipe_at(at)->layers[1].muted[expert], 1);
    EXPECT_EQ(at > 0 ? end->recipe_at(at - 1) : nullptr, nullptr);
    EXPECT_EQ(end->history[0].first_token, at);
  }
}

TEST(SessionEdits, MakeTheNextTokenWhilePaused) {
  HashSession s;
  s->send(Start{prompt_of(10), 20, true});
  s->wait();
  ASSERT_TRUE(s->send(mute(1, 3)));
  auto now = s->wait();
  EXPECT_EQ(now->history.size(), 1u);  // shown before any token
  EXPECT_EQ(now->epochs.back().first_token, 10u);
  s->undo();
  now = s->wait();
  EXPECT_EQ(now->history_cursor, 0u);
  s->redo();
  s->send(Step{});
  now = s->wait();
  EXPECT_EQ(s->latest_frame()->header().recipe_epoch, 1u);
  EXPECT_EQ(now->epochs.back().sentence, "Mute expert 3 in layer 1; Undo: mute expert 3 in layer 1; Redo: mute expert 3 in layer 1");
}

// Who nudges a number again before the engine took the last nudge needs to know which of them a snapshot has.
TEST(SessionEdits, AreCountedWhenTaken) {
  HashSession s;
  s->send(Start{prompt_of(10), 20, true});
  EXPECT_EQ(s->wait()->edits_taken, 0u);
  for (int i = 1; i <= 50; ++i) ASSERT_TRUE(s->send(EditCommand{Bias{{{1}}, {3}, float(i)}, {}}));  // replace each other
  auto now = s->wait();
  EXPECT_EQ(now->edits_taken, 50u);
  EXPECT_EQ(now->history.size(), 1u);
  s->undo();
  s->redo();
  ASSERT_TRUE(s->send(std::vector<EditCommand>{mute(1, 1), mute(1, 2)}));
  EXPECT_FALSE(s->send(mute(0, 1)));  // refused: never sent
  EXPECT_EQ(s->wait()->edits_taken, 53u);
}

TEST(SessionEdits, AreRefusedAtOnce) {
  HashSession s;
  EXPECT_FALSE(s->send(mute(0, 1)));
  EXPECT_FALSE(s->send(mute(1, 8)));
  EXPECT_TRUE(s->send(EditCommand{Mute{{{3}}, {0, 1, 2, 3, 4}}, {}}));
  const auto last = s->send(mute(3, 5));  // whether or not the engine thread has seen the other
  ASSERT_FALSE(last);
  EXPECT_THAT(last.error().message(), HasSubstr("no expert left"));
  EXPECT_FALSE(s->send(std::vector<EditCommand>{mute(1, 1), mute(3, 5)}));
  EXPECT_EQ(s->wait()->history.size(), 1u);
}

TEST(SessionEdits, AnEditAndItsUndoLeaveNoTrace) {
  HashSession s;
  s->send(Start{prompt_of(10), 40, true});
  s->wait();  // else the prompt may run between an edit and its undo
  for (int step = 0; step < 30; ++step) {
    ASSERT_TRUE(s->send(mute(1 + step % 3, ExpertId(step % 6))));
    ASSERT_TRUE(s->send(EditCommand{TopK{{}, 1 + step % 4}, {}}));
    s->undo_to(0);
    s->send(Step{});
    s->wait();
  }
  s->send(Play{});
  EXPECT_EQ(s->wait()->generated_ids, plain_run(10, 40));
  for (const auto& frame : s.frames()) EXPECT_EQ(frame->layer(0).changed, 0);
}

TEST(SessionRecord, GetsEveryFrameAndEveryEpochInOrder) {
  HashSession s;
  auto sink = std::make_shared<NotingSink>();
  s->record_to(sink);
  ASSERT_TRUE(s->send(std::vector<EditCommand>{{TopK{{}, 1}, {}}, {Mute{{{1}}, {3}}, 3}}));
  s->send(Start{prompt_of(2), 3});
  s->wait();
  EXPECT_TRUE(s->snapshot()->recording);
  s->record_to(nullptr);
  EXPECT_FALSE(s->wait()->recording);
  const std::string top_k = R"({"kind":"top_k","layer":[1,2,3],"k":1})";
  EXPECT_THAT(sink->notes(),
              ElementsAre("sequence 0 prompt 2", R"(epoch 0 from 0 {"schema":1,"edits":[)" + top_k + "]}", "token 0 epoch 0",
                          "token 1 epoch 0", "token 2 epoch 0",
                          R"(epoch 1 from 3 {"schema":1,"edits":[{"kind":"mute","layer":1,"expert":3},)" + top_k + "]}",
                          "token 3 epoch 1", "close"));
}

TEST(SessionRecord, MayBeginAndEndInTheMiddle) {
  HashSession s;
  s->send(Start{prompt_of(2), 2});
  s->wait();
  auto sink = std::make_shared<NotingSink>();
  s->record_to(sink);
  s->send(Play{2});
  s->wait();
  s->send(Start{prompt_of(1), 1});
  s->wait();
  s.session.reset();  // closes the record
  const std::string native = R"({"schema":1,"edits":[]})";
  EXPECT_THAT(sink->notes(), ElementsAre("sequence 0 prompt 0", "epoch 0 from 3 " + native, "token 3 epoch 0", "token 4 epoch 0",
                                         "sequence 1 prompt 1", "token 0 epoch 0", "close"));
}

TEST(SessionRecord, StopsVisiblyWhenTheSinkFailsWhileTheRunGoesOn) {
  HashSession s;
  auto sink = std::make_shared<NotingSink>();
  sink->fail_at = 12;
  s->record_to(sink);
  s->send(Start{prompt_of(10), 20});
  const auto end = s->wait();
  EXPECT_EQ(end->state, RunState::kFinished);
  EXPECT_EQ(end->generated_ids, plain_run(10, 20));
  EXPECT_FALSE(end->recording);
  ASSERT_TRUE(end->error);
  EXPECT_EQ(end->error->code, ErrorCode::kOutput);
  EXPECT_EQ(sink->notes().back(), "close");
}

// Sent while a sequence runs, a path waits; the next prefill runs it, with a row for each pass.
TEST(Session, ALayerPathTakesEffectAtTheNextPrefill) {
  HashSession s;
  s->send(Start{prompt_of(6), 4});
  s->wait();
  ASSERT_TRUE(s->send(EditCommand{LayerPath{{1, 2, 0, 1}}, {}}));
  s->send(Play{4});
  auto now = s->wait();
  ASSERT_EQ(now->history.size(), 1u);
  EXPECT_FALSE(now->history[0].applied);
  EXPECT_TRUE(now->history[0].at_prefill);
  EXPECT_EQ(now->epochs.size(), 1u);
  EXPECT_EQ(now->path_ahead.passes, (std::vector<uint8_t>{1, 2, 0, 1}));
  for (const auto& frame : s.frames()) EXPECT_EQ(frame->rows(), 3);

  s->send(Start{prompt_of(6), 4});
  now = s->wait();
  EXPECT_TRUE(now->history[0].applied);
  EXPECT_EQ(now->epochs.back().recipe->path.passes, (std::vector<uint8_t>{1, 2, 0, 1}));
  for (const auto& frame : s.frames()) {
    ASSERT_EQ(frame->rows(), 6);
    for (const int row : {0, 2, 3}) EXPECT_TRUE(frame->passed(row)) << row << ": 3 is the second pass of layer 1";
    for (const int row : {1, 4, 5}) EXPECT_FALSE(frame->passed(row)) << row << ": 1 is of layer 2, which is skipped";
  }
  const auto refused = s->send(EditCommand{LayerPath{{1, 2, 0, 1}}, 3});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_FALSE(s->send(std::vector<EditCommand>{{LayerPath{{1, 2, 0, 1}}, 3}}));
}

}  // namespace
}  // namespace switchyard
