// Adaptation between the tokens of a run: steps are entries of the history, repeat from the seed, from a script and after
// a rewind, stop where the budget ends, and can be taken back as one.
#include <algorithm>
#include <cmath>
#include <thread>

#include <gtest/gtest.h>

#include "engine/runtime/adapt.h"
#include "tests/runtime/hash_session.h"

namespace switchyard {
namespace {

using Phase = AdaptationState::Phase;

const std::vector<TokenId> kPrompt = {5, 99, 7, 300, 12, 41, 8, 77, 150, 3};

const Checkpoint& demo() {
  static const Checkpoint checkpoint = *open_checkpoint("demo");
  return checkpoint;
}

std::unique_ptr<Session> session(const char* backend = "cpu") {
  SessionOptions options{.backend = backend, .threads = 1, .ignore_eos = true};
  auto opened = Session::open(demo(), options);
  EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message());
  return std::move(*opened);
}

AdaptationPlan usage(int every = 8, int max_steps = 3) {
  return {.options = {.method = AdaptMethod::kUsageBias, .steps = 2, .lr = 0.05, .layer_share = 1}, .every = every, .max_steps = max_steps};
}

AdaptationPlan spsa() {
  return {.options = {.method = AdaptMethod::kSpsa, .steps = 2, .lr = 0.1, .layer_share = 1, .seed = 3}, .every = 8, .max_steps = 8};
}

using Frames = std::vector<std::shared_ptr<const RoutingFrame>>;
Frames frames_of(const SessionSnapshot& snapshot) { return snapshot.frames->range(0, snapshot.frames->size()); }

std::shared_ptr<const SessionSnapshot> run(Session& session, uint64_t tokens, const std::vector<TokenId>& prompt = kPrompt) {
  session.send(Start{prompt, tokens, false});
  return session.wait();
}

// All entries of the history as one script.
std::vector<EditCommand> script_of(const SessionSnapshot& snapshot) {
  std::vector<EditCommand> script;
  for (const HistoryEntry& entry : snapshot.history)
    for (EditCommand command : entry.edits) {
      command.at_token = entry.first_token;
      script.push_back(std::move(command));
    }
  return script;
}

void expect_same(const Frames& a, const Frames& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t t = 0; t < a.size(); ++t) {
    EXPECT_EQ(a[t]->header().token_id, b[t]->header().token_id);
    EXPECT_TRUE(std::ranges::equal(a[t]->arena(), b[t]->arena())) << "token " << t;
  }
}

TEST(LiveAdaptor, StepsAreNamedEntriesOfTheHistoryAtTheirTokens) {
  const auto live = session();
  live->send(StartAdaptation{usage()});
  const auto last = run(*live, 40);
  ASSERT_TRUE(last->adaptation);
  EXPECT_EQ(last->adaptation->phase, Phase::kActive);
  EXPECT_TRUE(last->adaptation->spent);
  EXPECT_FALSE(last->error) << last->error->message();
  const auto& log = last->adaptation->log;
  ASSERT_EQ(log.size(), 3u);  // the budget
  ASSERT_EQ(last->history.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const uint64_t token = i == 0 ? 0 : 10 + 8 * i;  // the whole prompt, then every 8 tokens behind it
    EXPECT_EQ(last->history[i].sentence, "Adaptation · step " + std::to_string(i + 1));
    EXPECT_EQ(last->history[i].author, "adaptor");
    EXPECT_EQ(last->history[i].first_token, token);
    EXPECT_EQ(log[i].token, token);
    EXPECT_EQ(log[i].number, int(i + 1));
    EXPECT_EQ(log[i].context, i == 0 ? 10 : token + 1);  // the newest token is known, though not yet routed
    EXPECT_EQ(log[i].iterations.size(), 2u);
    EXPECT_EQ(log[i].edits, last->history[i].edits.size());
  }
  EXPECT_GT(log[2].norms[0], log[0].norms[0]);  // each step goes on from the last
  EXPECT_GT(log[2].rerouted, 0);
  // What is on record of the token is what was in force.
  for (const auto& frame : frames_of(*last))
    EXPECT_EQ(last->recipe_at(frame->header().token_index)->epoch, frame->header().recipe_epoch);
}

TEST(LiveAdaptor, AStepIsAdaptOnWhatIsKnown) {
  const auto live = session();
  live->send(StartAdaptation{spsa()});
  const auto last = run(*live, 12);
  ASSERT_EQ(last->adaptation->log.size(), 2u);
  const auto weights = *WeightStore::open(demo());
  const auto backend = *make_backend("cpu", demo(), weights, {.threads = 1});
  Recipe start;
  std::vector<TokenId> known = kPrompt;
  for (size_t step = 0; step < 2; ++step) {
    if (step == 1) known.insert(known.end(), last->generated_ids.begin(), last->generated_ids.begin() + 9);
    const auto alone = adapt({.backend = *backend, .plan = demo().plan, .tokens = known, .start = start}, spsa().options);
    ASSERT_TRUE(alone.has_value()) << alone.error().message();
    const AdaptationEntry& entry = last->adaptation->log[step];
    EXPECT_EQ(entry.loss_before, alone->loss_before);
    EXPECT_EQ(entry.loss_after, alone->loss_after);
    EXPECT_EQ(entry.norms, alone->norms);
    size_t at = 0;  // its entry: a step without gain leaves none
    for (size_t i = 0; i < last->history.size(); ++i)
      if (last->history[i].sentence == "Adaptation · step " + std::to_string(step + 1)) at = i + 1;
    ASSERT_EQ(at > 0, !alone->edits.empty());
    if (at > 0) {
      EXPECT_EQ(last->history[at - 1].edits, alone->edits);
    }
    for (const EditCommand& edit : alone->edits) apply(edit.edit, demo().plan, start);
  }
}

TEST(LiveAdaptor, RepeatsFromItsSeedAndFromTheHistoryAlone) {
  const auto first = session(), second = session(), scripted = session();
  for (Session* one : {first.get(), second.get()}) one->send(StartAdaptation{usage(8, 8)});
  const auto a = run(*first, 20), b = run(*second, 20);
  ASSERT_GE(a->history.size(), 3u);
  EXPECT_EQ(a->generated_ids, b->generated_ids);
  expect_same(frames_of(*a), frames_of(*b));
  ASSERT_TRUE(scripted->send(script_of(*a)).has_value());
  const auto c = run(*scripted, 20);
  EXPECT_EQ(c->generated_ids, a->generated_ids);
  expect_same(frames_of(*a), frames_of(*c));
  EXPECT_EQ(c->adaptation, nullptr);
}

TEST(LiveAdaptor, EmaRunsAndRepeatsFromTheHistory) {
  AdaptationPlan plan{.options = {.method = AdaptMethod::kEma, .steps = 1, .eta = 0.1, .layers = {1, 2}}, .every = 8, .max_steps = 3};
  const auto live = session(), scripted = session();
  live->send(StartAdaptation{plan});
  const auto a = run(*live, 24);
  ASSERT_EQ(a->adaptation->log.size(), 3u);
  EXPECT_FALSE(a->error);
  EXPECT_GT(a->adaptation->log[0].norms[1], 0);
  EXPECT_EQ(a->adaptation->log[0].norms[3], 0);
  ASSERT_TRUE(scripted->send(script_of(*a)).has_value());
  const auto c = run(*scripted, 24);
  EXPECT_EQ(c->generated_ids, a->generated_ids);
  expect_same(frames_of(*a), frames_of(*c));
  // And back, scheme and rows.
  live->send(RevertAdaptation{});
  EXPECT_TRUE(live->wait()->epochs.back().recipe->is_identity());
}

#ifdef SWITCHYARD_WITH_REFERENCE
TEST(LiveAdaptor, RewiresByTheExactGradient) {
  const auto live = session("reference");
  live->send(StartAdaptation{{.options = {.method = AdaptMethod::kRewire, .steps = 5, .lr = 0.05}, .every = 8, .max_steps = 2}});
  const auto last = run(*live, 12);
  ASSERT_EQ(last->adaptation->log.size(), 2u) << (last->error ? last->error->message() : "");
  EXPECT_LT(last->adaptation->log[0].loss_after, last->adaptation->log[0].loss_before - 0.01);
  EXPECT_EQ(last->history[0].sentence, "Adaptation · step 1");
}
#endif

// A rewind to before a step: it is taken again with the same numbers; to its token: it holds and is not taken twice.
TEST(LiveAdaptor, ARewindTakesTheSameStepsAgain) {
  const auto live = session();
  live->send(StartAdaptation{usage(8, 8)});
  const auto before = run(*live, 30);
  const Frames frames = frames_of(*before);
  ASSERT_EQ(before->adaptation->log.size(), 4u);  // before tokens 0, 18, 26, 34
  for (const uint64_t token : {uint64_t(20), uint64_t(26)}) {
    live->send(Rewind{token});
    live->send(Play{before->prompt_ids.size() + 30 - token - 1});
    const auto after = live->wait();
    SCOPED_TRACE("rewound to token " + std::to_string(token));
    EXPECT_EQ(after->generated_ids, before->generated_ids);
    expect_same(frames_of(*after), frames);
    live->send(SwitchBranch{0});
    live->wait();
  }
  const auto log = live->snapshot()->adaptation->log;
  ASSERT_EQ(log.size(), 4u + 2u + 1u);
  const auto same = [&](size_t a, size_t b) {
    EXPECT_EQ(log[a].token, log[b].token);
    EXPECT_EQ(log[a].number, log[b].number);
    EXPECT_EQ(log[a].loss_after, log[b].loss_after);
    EXPECT_EQ(log[a].norms, log[b].norms);
  };
  same(4, 2);
  same(5, 3);
  same(6, 3);
}

TEST(LiveAdaptor, AFrozenOneTakesNoStepsAndGoesOnLater) {
  const auto live = session();
  live->send(StartAdaptation{usage(8, 8)});
  auto now = run(*live, 4);
  ASSERT_EQ(now->adaptation->log.size(), 1u);
  live->send(FreezeAdaptation{});
  live->send(Play{16});
  now = live->wait();
  EXPECT_EQ(now->adaptation->phase, Phase::kFrozen);
  EXPECT_EQ(now->adaptation->log.size(), 1u);
  EXPECT_EQ(now->history_cursor, 1u);  // what was found stays
  live->send(FreezeAdaptation{false});
  live->send(Play{16});
  EXPECT_GT(live->wait()->adaptation->log.size(), 1u);
}

TEST(LiveAdaptor, RevertsAsOneEntryAndKeepsWhatTheUserDid) {
  const auto live = session();
  const EditCommand own{Bias{{{1}}, {3}, 0.7f}, {}}, other{Mute{{{6}}, {2}}, {}};
  ASSERT_TRUE(live->send(own).has_value());
  live->wait();
  live->send(StartAdaptation{usage()});
  auto now = run(*live, 20);
  ASSERT_TRUE(live->send(other).has_value());  // meanwhile, elsewhere
  now = live->wait();
  const Recipe adapted = *now->epochs.back().recipe;
  const size_t entries = now->history.size();
  live->send(RevertAdaptation{});
  now = live->wait();
  EXPECT_EQ(now->adaptation->phase, Phase::kReverted);
  ASSERT_EQ(now->history.size(), entries + 1);
  EXPECT_EQ(now->history.back().sentence, "Adaptation · reverted");
  Recipe wanted;
  apply(own.edit, demo().plan, wanted);
  apply(other.edit, demo().plan, wanted);
  EXPECT_EQ(now->epochs.back().recipe->layers, wanted.layers);
  live->undo();
  EXPECT_EQ(live->wait()->epochs.back().recipe->layers, adapted.layers);
  // Nothing more to revert, no further steps.
  live->redo();
  live->send(RevertAdaptation{});
  live->send(Play{20});
  now = live->wait();
  EXPECT_EQ(now->history.size(), entries + 1);
}

TEST(LiveAdaptor, ANewSequenceBeginsAsBeforeUnlessItIsKept) {
  for (const bool keep : {false, true}) {
    SCOPED_TRACE(keep);
    AdaptationPlan plan = usage();
    plan.keep = keep;
    const auto live = session();
    live->send(StartAdaptation{plan});
    const auto first = run(*live, 4), second = run(*live, 4);
    ASSERT_EQ(second->adaptation->log.size(), 2u);
    EXPECT_EQ(second->adaptation->log[1].number, 1);
    if (keep) {
      EXPECT_GT(second->adaptation->log[1].norms[0], second->adaptation->log[0].norms[0]);
    } else {
      EXPECT_EQ(second->adaptation->log[1].norms, second->adaptation->log[0].norms);
      EXPECT_EQ(second->generated_ids, first->generated_ids);
      EXPECT_EQ(second->history[1].sentence, "Adaptation · as before, for a new sequence");
    }
  }
}

TEST(LiveAdaptor, KeepsToItsLayersAndItsNorm) {
  AdaptationPlan plan = usage(4, 100);
  plan.options.layers = {2, 3};
  plan.options.max_norm = 0.2;
  const auto live = session();
  live->send(StartAdaptation{plan});
  const auto last = run(*live, 40);
  ASSERT_GT(last->adaptation->log.size(), 5u);
  const Recipe& recipe = *last->epochs.back().recipe;
  for (size_t row = 0; row < recipe.layers.size(); ++row) {
    double square = 0;
    for (const float value : recipe.layers[row].logit_bias) square += double(value) * value;
    if (row == 2 || row == 3) EXPECT_NEAR(std::sqrt(square), 0.2, 1e-6);
    else EXPECT_EQ(square, 0);
  }
}

TEST(LiveAdaptor, StartedInTheMidstItBeginsWithTheNextToken) {
  const auto live = session();
  run(*live, 6);
  live->send(StartAdaptation{usage(8, 2)});
  live->send(Play{20});
  const auto last = live->wait();
  ASSERT_EQ(last->adaptation->log.size(), 2u);
  EXPECT_EQ(last->adaptation->log[0].token, 15u);  // 10 of the prompt and 5 of the 6 generated were routed
  EXPECT_EQ(last->adaptation->log[1].token, 23u);
}

TEST(LiveAdaptor, RefusesWhatCannotBeAndChangesNothing) {
  const auto live = session();
  const auto why = [&](AdaptationPlan plan) {
    const uint64_t serial = live->snapshot()->error_serial;
    live->send(StartAdaptation{std::move(plan)});
    const auto now = live->wait();
    EXPECT_EQ(now->adaptation, nullptr);
    return now->error_serial > serial ? now->error->message() : std::string();
  };
  EXPECT_NE(why({}).find("no gradients"), std::string::npos);  // rewiring on the cpu backend
  EXPECT_NE(why({.options = {.method = AdaptMethod::kSpsa, .layers = {99}}}).find("layer 99 has no experts"), std::string::npos);
  EXPECT_NE(why({.options = {.method = AdaptMethod::kSpsa}, .every = 0}).find("every 0"), std::string::npos);
  live->send(FreezeAdaptation{});
  EXPECT_NE(live->wait()->error->message().find("no adaptation"), std::string::npos);
}

// A pause does not wait for a long step: it is cut short, leaves nothing behind, and is taken whole when the run goes on.
TEST(LiveAdaptor, APauseCutsAStepShort) {
  test::HashSession live;
  AdaptationPlan plan = spsa();
  plan.options.steps = 200;
  live->send(StartAdaptation{plan});
  live.controls->microseconds_per_token = 1000;
  live->send(Start{test::prompt_of(60), 4, false});
  while (!live->snapshot()->adaptation || !live->snapshot()->adaptation->stepping) std::this_thread::yield();
  live->send(Pause{});
  auto now = live->wait();
  EXPECT_EQ(now->state, RunState::kPaused);
  EXPECT_EQ(now->adaptation->log.size(), 0u);
  EXPECT_FALSE(now->adaptation->stepping);
  EXPECT_TRUE(now->history.empty());
  EXPECT_FALSE(now->error);
  live.controls->microseconds_per_token = 0;
  live->send(Play{});
  now = live->wait();
  EXPECT_EQ(now->state, RunState::kFinished);
  EXPECT_EQ(now->adaptation->log.size(), 1u);
  EXPECT_EQ(now->adaptation->log[0].iterations.size(), 200u);
}

TEST(LiveAdaptor, AStepThatFailsEndsTheAdaptationAndIsTold) {
  test::HashSession live;
  live.controls->fail_at = 20;
  live->send(StartAdaptation{usage()});
  live->send(Start{test::prompt_of(30), 4, true});
  while (!live->snapshot()->adaptation || live->snapshot()->adaptation->phase == Phase::kActive) std::this_thread::yield();
  live.controls->fail_at = -1;
  const auto now = live->wait();
  EXPECT_EQ(now->adaptation->phase, Phase::kFailed);
  EXPECT_NE(now->adaptation->reason.find("the device is gone"), std::string::npos);
  EXPECT_TRUE(now->history.empty());
}

}  // namespace
}  // namespace switchyard
