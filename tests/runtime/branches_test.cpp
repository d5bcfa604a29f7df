// Rewind and branches of a session, over a backend whose tokens depend on every routing decision.
#include <cstdlib>
#include <random>

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
using Frames = std::vector<std::shared_ptr<const RoutingFrame>>;

EditCommand mute(int layer, ExpertId id) { return {Mute{{{layer}}, {id}}, {}}; }

struct Plain {
  Ids ids;
  Frames frames;
};
Plain untouched(int prompt, uint64_t tokens) {
  HashSession s;
  s->send(Start{prompt_of(prompt), tokens});
  return {s->wait()->generated_ids, s.frames()};
}

void expect_same(const Frames& frames, const Frames& want) {
  ASSERT_EQ(frames.size(), want.size());
  for (size_t t = 0; t < want.size(); ++t) ASSERT_TRUE(same_routing(*frames[t], *want[t])) << "token " << t;
}

// An expert that the untouched run chooses for this token in layer 1, so that muting it there changes what follows.
ExpertId chosen_at(const Plain& plain, uint64_t token) { return plain.frames[token]->used_ids(0)[0]; }

TEST(Branches, ARewindGoesOnAsTheUntouchedRunDid) {
  const Plain plain = untouched(20, 30);
  for (const uint64_t token : {0, 1, 7, 19, 20, 21, 35, 48}) {
    SCOPED_TRACE(token);
    HashSession s;
    s->send(Start{prompt_of(20), 30});
    s->wait();
    s->send(Rewind{token});
    auto now = s->wait();
    EXPECT_FALSE(now->error);
    EXPECT_EQ(now->state, RunState::kPaused);
    EXPECT_EQ(now->frames->size(), token);
    EXPECT_EQ(now->generated_ids.size(), token < 20 ? 0 : token - 19);  // token 20 is the first generated one
    ASSERT_EQ(now->branches.size(), 2u);
    EXPECT_EQ(now->branches[1].parent, 0u);
    EXPECT_EQ(now->branches[1].fork_token, token);
    EXPECT_EQ(now->branches[0].tokens, 50u);
    EXPECT_EQ(now->branch, 1u);
    s->send(Play{});
    now = s->wait();
    EXPECT_EQ(now->generated_ids, plain.ids);
    expect_same(s.frames(), plain.frames);
  }
}

// The edits in force for a token are in force again when one goes back to it; later ones can be redone there.
TEST(Branches, ARewindRestoresTheEditsOfItsToken) {
  const Plain plain = untouched(10, 40);
  HashSession s;
  s->send(Start{prompt_of(10), 20});
  s->wait();  // 29 tokens routed
  ASSERT_TRUE(s->send(mute(1, chosen_at(plain, 29))));
  s->send(Play{20});
  auto now = s->wait();
  EXPECT_NE(now->generated_ids, plain.ids);
  const Ids edited = now->generated_ids;

  s->send(Rewind{25});
  now = s->wait();
  EXPECT_EQ(now->history.size(), 1u);
  EXPECT_EQ(now->history_cursor, 0u);
  EXPECT_TRUE(now->epochs.back().recipe->is_identity());
  EXPECT_EQ(now->epochs.back().first_token, 25u);
  EXPECT_EQ(now->epochs.back().sentence, "Rewind to token 25");
  s->send(Play{});
  EXPECT_EQ(s->wait()->generated_ids, plain.ids);
  EXPECT_GT(s->latest_frame()->header().recipe_epoch, 1u) << "epochs only grow";

  // Redo: the same edit, from another token on.
  s->send(Rewind{29});
  s->redo();
  now = s->wait();
  EXPECT_EQ(now->history_cursor, 1u);
  EXPECT_EQ(now->history[0].first_token, 29u);
  s->send(Play{});
  now = s->wait();
  EXPECT_EQ(now->generated_ids, edited) << "the edit at token 29, as the first time";

  // Back to a token under the edit.
  s->send(Rewind{35});
  now = s->wait();
  EXPECT_EQ(now->history_cursor, 1u);
  EXPECT_EQ(now->recipe_at(35)->layers[0].muted[chosen_at(plain, 29)], 1);
  EXPECT_EQ(now->history[0].first_token, 29u);
  s->send(Play{});
  EXPECT_EQ(s->wait()->generated_ids, edited);
}

TEST(Branches, AnEditThatWasReplacedSinceIsRestoredByAnEntryOfItsOwn) {
  HashSession s;
  s->send(Start{prompt_of(10), 5, true});
  s->wait();
  ASSERT_TRUE(s->send(mute(1, 2)));
  s->send(Step{});
  s->wait();
  s->undo();
  ASSERT_TRUE(s->send(EditCommand{TopK{{}, 3}, {}}));  // the mute is forgotten
  s->send(Step{});
  s->wait();
  s->send(Rewind{10});
  auto now = s->wait();
  ASSERT_TRUE(now->recipe_at(10));
  EXPECT_EQ(now->recipe_at(10)->layers[0].muted[2], 1);
  EXPECT_EQ(now->recipe_at(10)->layers[0].k, 0);
  ASSERT_EQ(now->history_cursor, 2u);
  EXPECT_EQ(now->history[1].author, "rewind");
  EXPECT_THAT(now->history[1].sentence, HasSubstr("Rewind to token 10"));
  s->undo();
  now = s->wait();
  EXPECT_EQ(now->epochs.back().recipe->layers[0].k, 3) << "what was in force before the rewind";
  s->undo();
  EXPECT_TRUE(s->wait()->epochs.back().recipe->is_identity());
}

TEST(Branches, ScheduledEditsWaitAgain) {
  HashSession s, again;
  const std::vector<EditCommand> script = {{TopK{{}, 1}, {}}, {Mute{{{2}}, {3}}, 25}, {Bias{{{1}}, {2}, 3.0f}, 33}};
  for (HashSession* one : {&s, &again}) {
    ASSERT_TRUE((*one)->send(script));
    (*one)->send(Start{prompt_of(10), 40});
    (*one)->wait();
  }
  const Ids ids = s->snapshot()->generated_ids;
  s->send(Rewind{28});
  auto now = s->wait();
  ASSERT_EQ(now->scheduled.size(), 1u);
  EXPECT_EQ(now->scheduled[0].at_token, 33u);
  EXPECT_EQ(now->recipe_at(28)->layers[1].muted[3], 1);
  s->send(Rewind{12});
  EXPECT_EQ(s->wait()->scheduled.size(), 2u);
  s->send(Play{});
  EXPECT_EQ(s->wait()->generated_ids, ids);
  expect_same(s.frames(), again.frames());
}

TEST(Branches, EveryBranchIsKeptAndGoesOnWhereItWasLeft) {
  const Plain plain = untouched(20, 60);
  HashSession s;
  s->send(Start{prompt_of(20), 30});
  s->wait();
  s->send(Rewind{25, "fewer experts"});
  ASSERT_TRUE(s->send(EditCommand{TopK{{}, 1}, {}}));
  s->send(Play{});
  const auto other = s->wait();
  EXPECT_NE(other->generated_ids, Ids(plain.ids.begin(), plain.ids.begin() + 30));
  EXPECT_EQ(other->branches[1].name, "fewer experts");
  const Frames other_frames = s.frames();

  s->send(SwitchBranch{0});
  auto now = s->wait();
  EXPECT_EQ(now->branch, 0u);
  EXPECT_EQ(now->state, RunState::kPaused);
  EXPECT_TRUE(now->epochs.back().recipe->is_identity()) << "each branch has its edits";
  EXPECT_EQ(now->history_cursor, 0u);
  EXPECT_EQ(s.frames().size(), 49u);
  s->send(Play{30});
  EXPECT_EQ(s->wait()->generated_ids, plain.ids);
  expect_same(s.frames(), plain.frames);

  s->send(SwitchBranch{1});
  now = s->wait();
  EXPECT_EQ(now->generated_ids, other->generated_ids);
  EXPECT_EQ(now->epochs.back().recipe->layers[0].k, 1);
  expect_same(s.frames(), other_frames);
  s->send(SwitchBranch{1});
  EXPECT_FALSE(s->wait()->error);
  s->send(SwitchBranch{7});
  EXPECT_THAT(s->wait()->error->message(), HasSubstr("there is no branch 7"));
}

TEST(Branches, WhatWasLetGoIsRoutedAgainBitForBit) {
  HashSession s({.ignore_eos = true, .branch_bytes = 0});
  ASSERT_TRUE(s->send(std::vector<EditCommand>{{Mute{{{2}}, {1}}, 12}, {TopK{{{1}}, 3}, 30}}));
  s->send(Start{prompt_of(20), 30});
  const Ids ids = s->wait()->generated_ids;
  const Frames frames = s.frames();
  s->send(Rewind{15});
  s->send(Play{});
  auto now = s->wait();
  EXPECT_FALSE(now->branches[0].held);
  EXPECT_TRUE(now->branches[1].held);
  s->send(SwitchBranch{0});
  now = s->wait();
  EXPECT_EQ(now->state, RunState::kPaused);
  EXPECT_TRUE(now->branches[0].held);
  EXPECT_EQ(now->generated_ids, ids);
  expect_same(s.frames(), frames);
  for (size_t t = 0; t < frames.size(); ++t) {
    EXPECT_EQ(s.frames()[t]->header().recipe_epoch, frames[t]->header().recipe_epoch);
    EXPECT_EQ(s.frames()[t]->header().sampled_id, frames[t]->header().sampled_id);
  }
  s->send(Play{5});
  const Ids longer = s->wait()->generated_ids;
  EXPECT_EQ(Ids(longer.begin(), longer.begin() + 30), ids);
  EXPECT_EQ(longer.size(), 35u);
}

// Nothing was chosen after the last token: the logits are kept, or made again.
TEST(Branches, ABranchWithoutAPendingTokenGoesOn) {
  const Plain plain = untouched(20, 5);
  for (const size_t bytes : {size_t(0), size_t(1) << 30}) {
    HashSession s({.ignore_eos = true, .branch_bytes = bytes});
    s->send(Start{prompt_of(20), 0});
    s->wait();
    s->send(Rewind{4});
    s->send(Play{3});
    s->wait();
    s->send(SwitchBranch{0});
    s->send(Play{5});
    EXPECT_EQ(s->wait()->generated_ids, plain.ids);
    expect_same(s.frames(), plain.frames);
  }
}

TEST(Branches, ARewindWhileRunningRunsOn) {
  const Plain plain = untouched(20, 200);
  HashSession s;
  s.controls->microseconds_per_token = 200;
  s->send(Start{prompt_of(20), 200});
  while (s->snapshot()->frames->size() < 60) std::this_thread::yield();
  s->send(Rewind{30});
  const auto end = s->wait();
  EXPECT_EQ(end->branch, 1u);
  EXPECT_EQ(end->generated_ids, plain.ids);
  expect_same(s.frames(), plain.frames);
}

TEST(Branches, RefusalsLeaveEverythingAsItIs) {
  HashSession s;
  s->send(Rewind{0});
  EXPECT_THAT(s->wait()->error->message(), HasSubstr("no sequence"));
  s->send(Start{prompt_of(10), 5});
  const Ids ids = s->wait()->generated_ids;
  s->send(Rewind{15});
  auto now = s->wait();
  EXPECT_THAT(now->error->message(), HasSubstr("token 15: the branch has routed 14 tokens and knows 15"));
  EXPECT_EQ(now->branches.size(), 1u);
  EXPECT_EQ(now->generated_ids, ids);
  EXPECT_EQ(now->state, RunState::kFinished);
  s->send(Start{prompt_of(10), 5});
  EXPECT_EQ(s->wait()->branches.size(), 1u) << "a new sequence has a new tree";
}

TEST(Branches, APromptOfCoupledTokensIsNotEnteredInTheMiddle) {
  Checkpoint model = test::hash_checkpoint();
  std::get<MoeSpec>(model.plan.layers[2].sublayers[0].op).router.capacity = Capacity::kPerSequence;
  ASSERT_TRUE(model.plan.couples_tokens());
  HashSession s({.ignore_eos = true}, model);
  s->send(Start{prompt_of(10), 5});
  s->wait();
  s->send(Rewind{5});
  EXPECT_THAT(s->wait()->error->message(), HasSubstr("runs in one piece"));
  s->send(Rewind{10});
  s->send(Rewind{0});
  s->send(Play{});
  EXPECT_EQ(s->wait()->branches.size(), 3u);
  EXPECT_EQ(s->snapshot()->generated_ids.size(), 5u);
}

// One record holds the tree: a branch is a sequence that names its parent, the shared prefix is there once.
TEST(Branches, ARecordHoldsEveryRowOnceAndNamesTheParent) {
  HashSession s;
  auto sink = std::make_shared<NotingSink>();
  s->record_to(sink);
  s->send(Start{prompt_of(2), 3});
  s->wait();  // tokens 0 to 3
  s->send(Rewind{3});
  s->send(Play{});
  s->wait();  // token 3 of branch 1
  s->send(SwitchBranch{0});
  s->send(Play{1});
  s->wait();  // token 4 of branch 0
  s->send(Rewind{1});
  s->send(Step{});
  s->wait();
  s->record_to(nullptr);
  s->wait();
  const std::string native = R"({"schema":1,"edits":[]})";
  EXPECT_THAT(sink->notes(),
              ElementsAre("sequence 0 prompt 2", "epoch 0 from 0 " + native, "token 0 epoch 0", "token 1 epoch 0",
                          "token 2 epoch 0", "token 3 epoch 0",
                          "sequence 0 prompt 0 from 3 of 0", "epoch 1 from 3 " + native, "token 3 epoch 1",
                          "sequence 0 prompt 0 from 4 of 0", "epoch 2 from 4 " + native, "token 4 epoch 2",
                          "sequence 0 prompt 1 from 1 of 0", "epoch 3 from 1 " + native, "token 1 epoch 3", "close"));
}

// Any sequence of edits, undos, rewinds and branches, ended by taking the edits out and going back to the first
// token, is bit for bit the run that nobody touched. SWITCHYARD_FULL=1: 500 of them.
TEST(BranchStorm, EndsAsTheUntouchedRun) {
  const Plain plain = untouched(20, 40);
  const int runs = std::getenv("SWITCHYARD_FULL") ? 500 : 60;
  for (int run = 0; run < runs; ++run) {
    SCOPED_TRACE(run);
    std::mt19937_64 random(static_cast<uint64_t>(run));
    HashSession s({.ignore_eos = true, .branch_bytes = run % 3 == 0 ? size_t(0) : run % 3 == 1 ? size_t(40'000) : size_t(1) << 30});
    s->send(Start{prompt_of(20), 40, run % 2 == 0});
    s->wait();
    for (int step = 0; step < 25; ++step) {
      switch (random() % 14) {
        case 12: (void)s->send(EditCommand{LayerPath{{1, uint8_t(random() % 3), uint8_t(random() % 3), 1}}, {}}); break;
        case 13: s->send(Rewind{0}); break;
        case 0: s->undo(); break;
        case 1: s->redo(); break;
        case 2: s->undo_to(random() % 6); break;
        case 3: (void)s->send(EditCommand{TopK{{}, int(random() % 6)}, {}}, std::to_string(step)); break;
        case 4: (void)s->send(EditCommand{Mute{{}, {ExpertId(random() % 6)}}, random() % 60}); break;
        case 5: (void)s->send(EditCommand{Bias{{{1}}, {ExpertId(random() % 6)}, float(random() % 7) - 3}, {}}); break;
        case 6: (void)s->send(EditCommand{Unmute{{}, {ExpertId(random() % 6)}}, {}}); break;
        case 7: s->send(Step{}); break;
        case 8: s->send(SwitchBranch{uint32_t(random() % 4)}); break;
        case 9: s->send(Play{1 + random() % 5}); break;
        default: s->send(Rewind{random() % 45}); break;
      }
      if (random() % 2) s->wait();
    }
    s->send(Pause{});
    // What was routed must be what the epochs say, on this branch and on every other.
    const auto end = s->wait();
    for (uint32_t branch = 0; branch < end->branches.size() && run % 5 == 0; ++branch) {
      s->send(SwitchBranch{branch});
      const auto now = s->wait();
      const Frames frames = s.frames();
      test::HashBackend backend(s.checkpoint.plan, std::make_shared<test::HashBackendControls>());
      const auto cache = backend.new_cache(600);
      const Recipe native;
      for (size_t t = 0; t < frames.size(); ++t) {
        const Recipe* recipe = now->recipe_at(t);
        const FrameHeader& header = frames[t]->header();
        ASSERT_EQ(header.token_index, t);
        ASSERT_EQ(header.recipe_epoch, recipe ? recipe->epoch : header.recipe_epoch);
        std::vector<RoutingFrame> again(1, RoutingFrame(header.moe_layers, header.experts, header.slots, header.capture, header.passes));
        const TokenId id = header.token_id;
        again[0].header().token_id = id;
        ASSERT_TRUE(backend.forward({.tokens = {&id, 1}, .cache = cache.get(), .recipe = recipe ? recipe : &native,
                                     .rows = LogitRows::kNone, .frames = again}));
        ASSERT_TRUE(same_routing(*frames[t], again[0])) << "branch " << branch << " token " << t;
      }
    }
    s->undo_to(0);
    s->send(Rewind{0});
    s->undo_to(0);  // what the rewind restored
    s->send(Play{40});
    const auto last = s->wait();
    ASSERT_TRUE(last->epochs.back().recipe->is_identity());
    ASSERT_EQ(last->generated_ids, plain.ids);
    expect_same(s.frames(), plain.frames);
  }
}

}  // namespace
}  // namespace switchyard
