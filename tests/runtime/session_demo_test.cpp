// The session on the shipped checkpoint: the ids of transformers, edits that take effect where they say, and
// frames that a fresh cache reproduces bit for bit under the recipes that the epochs name.
#include <cstdlib>
#include <fstream>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/runtime/session.h"

namespace switchyard {
namespace {

using Ids = std::vector<TokenId>;

class SessionOnDemo : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto opened = open_checkpoint(SWITCHYARD_SOURCE_DIR "/assets/models/demo");
    ASSERT_TRUE(opened) << opened.error().message();
    checkpoint_ = new Checkpoint(std::move(*opened));
    std::ifstream file(SWITCHYARD_SOURCE_DIR "/assets/models/demo/expected.json");
    expected_ = new nlohmann::json(nlohmann::json::parse(file));
  }
  static void TearDownTestSuite() {
    delete checkpoint_;
    delete expected_;
  }

  static std::unique_ptr<Session> open(CaptureLevel capture = CaptureLevel::kLogits) {
    SessionOptions options;
    options.backend = "cpu";
    options.capture = capture;
    options.ignore_eos = true;
    auto session = Session::open(*checkpoint_, options);
    EXPECT_TRUE(session) << session.error().message();
    return session ? std::move(*session) : nullptr;
  }
  static Ids prompt(const char* name) { return (*expected_)["prompts"][name]["ids"].get<Ids>(); }

  static Checkpoint* checkpoint_;
  static nlohmann::json* expected_;
};
Checkpoint* SessionOnDemo::checkpoint_ = nullptr;
nlohmann::json* SessionOnDemo::expected_ = nullptr;

// assets/models/demo/expected.json: transformers, fp32, greedy.
TEST_F(SessionOnDemo, GeneratesTheIdsOfTransformers) {
  const auto session = open();
  for (const auto& [name, want] : (*expected_)["prompts"].items()) {
    session->send(Start{prompt(name.c_str()), 48});
    const auto end = session->wait();
    ASSERT_EQ(end->state, RunState::kFinished) << (end->error ? end->error->message() : "");
    EXPECT_EQ(end->generated_ids, want["greedy_ids"].get<Ids>()) << name;
  }
}

std::vector<std::shared_ptr<const RoutingFrame>> frames_of(const SessionSnapshot& snapshot) {
  return snapshot.frames->range(0, snapshot.frames->size());
}

bool same_routing(const RoutingFrame& a, const RoutingFrame& b) {
  return a.header().token_id == b.header().token_id && std::ranges::equal(a.arena(), b.arena());
}

// The done-means of issue A: mute one expert at token 10; the rows before stay, the expert is in no later row. Token
// 10 is inside the prompt here, 40 is generated.
TEST_F(SessionOnDemo, AnExpertMutedAtATokenIsGoneFromThereOn) {
  const auto plain = open();
  plain->send(Start{prompt("python"), 32});
  const auto before = frames_of(*plain->wait());
  ASSERT_GT(prompt("python").size(), 10u);
  for (const uint64_t at : {uint64_t(10), uint64_t(40)}) {
    ASSERT_LT(at, before.size());
    const ExpertId expert = before[at]->used_ids(3)[0];
    const auto session = open();
    ASSERT_TRUE(session->send(std::vector<EditCommand>{{Mute{{{3}}, {expert}}, at}}));
    session->send(Start{prompt("python"), 32});
    const auto frames = frames_of(*session->wait());
    ASSERT_EQ(frames.size(), before.size());
    for (size_t t = 0; t < frames.size(); ++t) {
      if (t < at) {
        EXPECT_TRUE(same_routing(*frames[t], *before[t])) << "token " << t;
      } else {
        EXPECT_THAT(frames[t]->used_ids(3), testing::Not(testing::Contains(expert))) << "token " << t;
      }
    }
  }
}

// Edits that change nothing: the model's own k said aloud takes the edited path, neutral values the native one.
TEST_F(SessionOnDemo, EditsThatChangeNothingChangeNoBit) {
  const auto plain = open();
  plain->send(Start{prompt("german"), 16});
  const auto want = frames_of(*plain->wait());
  const auto session = open();
  ASSERT_TRUE(session->send(std::vector<EditCommand>{{TopK{{}, 4}, {}}, {Bias{{}, {1}, 0}, {}}, {Temperature{{}, 1}, {}}}));
  session->send(Start{prompt("german"), 16});
  const auto got = frames_of(*session->wait());
  ASSERT_EQ(got.size(), want.size());
  for (size_t t = 0; t < got.size(); ++t) ASSERT_TRUE(same_routing(*got[t], *want[t])) << t;
}

// Schemes that mix in earlier tokens: a rewind, an undo and a branch that was let go end in the run that did none of it.
TEST_F(SessionOnDemo, WhatRoutersRememberIsRewoundWithTheTokens) {
  for (const char* name : {"similarity", "attention"})
    for (const size_t branch_bytes : {size_t(0), size_t(1) << 30}) {
      SCOPED_TRACE(name);
      SessionOptions options{.backend = "cpu", .capture = CaptureLevel::kLogits, .ignore_eos = true};
      options.branch_bytes = branch_bytes;
      const EditCommand on{SetScheme{{}, *make_scheme({name, {{"lambda", 0.8}}})}, 5};
      const auto start = [&] {
        auto session = std::move(*Session::open(*checkpoint_, options));
        EXPECT_TRUE(session->send(std::vector<EditCommand>{on}));
        session->send(Start{prompt("python"), 24});
        session->wait();
        return session;
      };
      const auto plain = start();
      const auto want = frames_of(*plain->wait());
      const auto session = start();
      session->send(Rewind{30});
      ASSERT_TRUE(session->send(EditCommand{SetScheme{{}, Scheme{}}, {}}));
      session->send(Play{6});
      const auto native = frames_of(*session->wait());
      EXPECT_FALSE(same_routing(*native.back(), *want[native.size() - 1]));
      session->undo();
      session->send(Play{3});
      session->wait();
      session->send(Rewind{20});
      session->wait();
      session->send(SwitchBranch{0});
      session->send(Rewind{28});
      session->send(Play{});
      const auto got = frames_of(*session->wait());
      ASSERT_EQ(got.size(), want.size());
      for (size_t t = 0; t < got.size(); ++t) ASSERT_TRUE(same_routing(*got[t], *want[t])) << t;
    }
}

Edit random_edit(std::mt19937_64& random) {
  LayerSet where;
  if (random() % 3) where.layers = {int(random() % 8)};
  const std::vector<ExpertId> experts{ExpertId(random() % 32)};
  const float value = float(int(random() % 13) - 6) / 2;
  const std::vector<ExpertId> members{experts[0], ExpertId((experts[0] + 1 + random() % 31) % 32)};
  switch (random() % 15) {
    case 14: return LayerPath{{1, 1, uint8_t(random() % 3), 1, 1, uint8_t(random() % 3), 1, 1}};
    case 9: return Swap{where, members};
    case 10: return Merge{where, members, {}};
    case 11: return Clone{where, members};
    case 12: return NeuronMask{where, experts, {int(random() % 32), 32 + int(random() % 32)}};
    case 13: return RouterRow{where, experts, 1, RowSource{RowSource::Kind::kRotate, members[1], value * 20}};
    case 0: return Mute{where, experts};
    case 1: return Unmute{where, experts};
    case 2: return Force{where, experts};
    case 3: return Bias{where, experts, value};
    case 4: return SelectBias{where, experts, value / 10};
    case 5: return ExpertScale{where, experts, value};
    case 6: return TopK{where, 3 + int(random() % 4)};
    case 7: return Temperature{where, 0.5f + float(random() % 4) / 2};
    default: return RouterRow{where, experts, value};
  }
}

// 200 random edit sequences: tokens are generated under edits, then all is undone. From there on every frame and
// every token must be that of a run that never saw an edit, from the same cache: a backend of our own is fed the
// edited tokens under the recipes of the epochs, and the rest natively.
TEST_F(SessionOnDemo, AfterUndoTheRunIsThatOfTheNativeModelFromTheSameCache) {
  const auto session = open();
  auto weights = WeightStore::open(*checkpoint_);
  ASSERT_TRUE(weights);
  auto backend = make_backend("cpu", *checkpoint_, *weights, {});
  ASSERT_TRUE(backend);
  const auto cache = (*backend)->new_cache(64);
  std::vector<float> logits(checkpoint_->plan.vocab);
  Ids start = prompt("bible");
  start.resize(6);
  const Recipe native;

  std::mt19937_64 random(200);
  int changed_rows = 0;
  for (int sequence = 0; sequence < 200; ++sequence) {
    session->send(Reset{});
    session->undo_to(0);
    session->send(Start{start, 10, true});
    for (int token = 0; token < 3; ++token) {
      for (int edits = 1 + int(random() % 4); edits > 0; --edits) (void)session->send(EditCommand{random_edit(random), {}});
      if (random() % 4 == 0) session->undo();
      if (random() % 4 == 0) session->redo();
      session->send(Step{});
    }
    session->wait();
    session->undo_to(0);
    session->send(Play{});
    const auto end = session->wait();
    ASSERT_EQ(end->state, RunState::kFinished);
    const auto frames = frames_of(*end);
    const size_t undone_at = start.size() + 3;
    // A path that was sent before the first token is the sequence's; its undo waits for the next one.
    const Recipe* after = end->recipe_at(undone_at);
    ASSERT_TRUE(!after || after->layers.empty());
    const Recipe undone{.path = after ? after->path : LayerPath{}};

    cache->truncate(0);
    for (size_t t = 0; t < frames.size();) {
      const size_t count = t == 0 ? start.size() : 1;  // the prompt in one piece, as the session took it
      const FrameHeader& h = frames[t]->header();
      std::vector<RoutingFrame> again(count, RoutingFrame(h.moe_layers, h.experts, h.slots, h.capture, h.passes));
      Ids ids;
      for (size_t i = 0; i < count; ++i) ids.push_back(frames[t + i]->header().token_id);
      const Recipe* recipe = t < undone_at ? end->recipe_at(t) : &undone;
      ASSERT_TRUE((*backend)->forward({.tokens = ids, .cache = cache.get(), .recipe = recipe ? recipe : &native, .logits = logits, .frames = again}));
      for (size_t i = 0; i < count; ++i) {
        again[i].header().token_id = ids[i];
        ASSERT_TRUE(same_routing(*frames[t + i], again[i])) << "sequence " << sequence << " token " << t + i;
        changed_rows += frames[t + i]->layer(3).changed > 0;
      }
      t += count;
      ASSERT_EQ(sample(logits, {}, 0, 0), end->generated_ids[t - start.size()]) << "sequence " << sequence << " token " << t;
    }
  }
  EXPECT_GT(changed_rows, 100);  // the edits did something
}

// Random edits, undos, steps, rewinds and branches; then the edits are taken out and the run goes back to before the
// first of them. What follows must be, bit for bit, the run that nobody touched. SWITCHYARD_FULL=1: 500 sequences.
TEST_F(SessionOnDemo, EditsAndRewindsEndAsTheUntouchedRun) {
  Ids start = prompt("bible");
  start.resize(6);
  const auto untouched = open();
  untouched->send(Start{start, 30});
  const auto want = untouched->wait();
  const auto want_frames = frames_of(*want);

  const auto session = open();
  std::mt19937_64 random(501);
  const int sequences = std::getenv("SWITCHYARD_FULL") ? 500 : 40;
  uint64_t branches = 0;
  for (int sequence = 0; sequence < sequences; ++sequence) {
    session->undo_to(0);
    session->send(Start{start, 12, true});
    session->wait();
    for (int step = 0; step < 12; ++step) {
      if (random() % 3) session->wait();  // else it comes with the next command, between the same two tokens
      switch (random() % 8) {
        case 0: session->undo(); break;
        case 1: session->redo(); break;
        case 2: session->send(SwitchBranch{uint32_t(random() % 3)}); break;
        case 3: session->send(Rewind{random() % 14}); break;
        case 4: case 5: session->send(Step{}); break;
        default: (void)session->send(EditCommand{random_edit(random), {}}); break;
      }
    }
    const auto now = session->wait();
    branches += now->branches.size();
    uint64_t back = 0;  // the first token of this branch that was not routed natively, or the end of the prompt
    while (back < start.size() && back < now->frames->size() && !now->recipe_at(back)) ++back;
    session->undo_to(0);
    session->send(Rewind{back});
    session->undo_to(0);  // what was in force there
    session->send(Play{});
    const auto end = session->wait();
    const Ids& ids = end->generated_ids;
    ASSERT_GE(ids.size(), 12u);
    ASSERT_LE(ids.size(), want->generated_ids.size());  // steps may have prolonged it
    ASSERT_TRUE(std::equal(ids.begin(), ids.end(), want->generated_ids.begin())) << "sequence " << sequence;
    const auto frames = frames_of(*end);
    ASSERT_EQ(frames.size(), start.size() + ids.size() - 1);
    for (size_t t = 0; t < frames.size(); ++t) ASSERT_TRUE(same_routing(*frames[t], *want_frames[t])) << "sequence " << sequence << " token " << t;
  }
  EXPECT_GT(branches, uint64_t(sequences) * 3 / 2);
}

}  // namespace
}  // namespace switchyard
