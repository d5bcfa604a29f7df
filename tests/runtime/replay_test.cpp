// A recorded run replayed: bit for bit the same on the model that was recorded, the recorded routes where edits made
// them, and clear refusals where a trace does not fit.
#include <algorithm>
#include <fstream>

#include <gtest/gtest.h>

#include "engine/runtime/forced_pass.h"
#include "engine/runtime/session.h"
#include "engine/trace/replay.h"
#include "engine/trace/trace.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

const Checkpoint& demo() {
  static const Checkpoint checkpoint = *open_checkpoint("demo");
  return checkpoint;
}

std::unique_ptr<Session> session(Sampling sampling = {}) {
  SessionOptions options{.backend = "cpu", .threads = 1, .ignore_eos = true};
  options.sampling = sampling;
  auto opened = Session::open(demo(), options);
  EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message());
  return std::move(*opened);
}

using Frames = std::vector<std::shared_ptr<const RoutingFrame>>;

struct Recorded {
  std::vector<TokenId> generated;
  Frames frames;
};

Recorded run(Session& session, const std::vector<TokenId>& prompt, uint64_t tokens) {
  session.send(Start{prompt, tokens, false});
  const auto last = session.wait();
  EXPECT_EQ(last->state, RunState::kFinished);
  return {last->generated_ids, last->frames->range(0, last->frames->size())};
}

const std::vector<TokenId> kPrompt = {5, 99, 7, 300, 12, 41, 8, 77, 150, 3};

Recorded record(const std::string& path, const std::vector<EditCommand>& edits, CaptureLevel capture, const std::string& run_json = "{}",
           Sampling sampling = {}) {
  const auto live = session(sampling);
  TraceHeader header = *make_trace_header(demo(), capture);
  header.edits_json = to_json_script(edits);
  header.run_json = run_json;
  auto recorder = TraceRecorder::create(path, header);
  EXPECT_TRUE(recorder.has_value()) << (recorder ? "" : recorder.error().message());
  live->send(SetCapture{capture});
  if (!edits.empty()) {
    EXPECT_TRUE(live->send(edits, "script").has_value());
  }
  live->record_to(*recorder);
  const Recorded out = run(*live, kPrompt, 24);
  live->record_to(nullptr);
  live->wait();
  EXPECT_TRUE((*recorder)->close().has_value());
  return out;
}

std::vector<EditCommand> some_edits() {
  std::vector<EditCommand> edits = {{Bias{{{2}}, {4}, 1.5f}, {}}, {TopK{{{5}}, 2}, {}}, {Mute{{{3}}, {1, 2}}, {}},
                                    {SetScheme{{{6}}, *make_scheme({"top_p", {{"p", 0.7}}})}, {}}};
  edits.push_back({Temperature{{{0}}, 1.7f}, 15});
  return edits;
}

class ReplayTest : public ::testing::Test {
 protected:
  void SetUp() override { read_schemes_from_traces(); }
  const TemporaryFolder folder_;
  const std::string trace_ = (folder_.path() / "run.moetrace.h5").string();
};

TEST_F(ReplayTest, OfANativeRunIsTheRunBitForBit) {
  const Recorded recorded = record(trace_, {}, CaptureLevel::kLogits);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay.has_value()) << replay.error().message();
  EXPECT_EQ(replay->prompt, kPrompt);
  EXPECT_EQ(replay->generated.size(), 23u);
  EXPECT_TRUE(replay->notes.empty());
  const auto live = session();
  ASSERT_TRUE(live->send(replay->edit).has_value());
  const Recorded again = run(*live, replay->prompt, 24);
  EXPECT_EQ(again.generated, recorded.generated);
  ASSERT_EQ(again.frames.size(), recorded.frames.size());
  for (size_t t = 0; t < again.frames.size(); ++t)
    EXPECT_TRUE(std::ranges::equal(again.frames[t]->arena(), recorded.frames[t]->arena())) << "token " << t;
}

// The routes of a run under edits, on the same model without them: the same experts, weights, router logits and text,
// although what is native differs.
TEST_F(ReplayTest, OfAnEditedRunNeedsNoneOfItsRoutingEdits) {
  const std::vector<EditCommand> edits = some_edits();
  const Recorded recorded = record(trace_, edits, CaptureLevel::kWeights), native = run(*session(), kPrompt, 24);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay.has_value()) << replay.error().message();
  const auto live = session();
  ASSERT_TRUE(live->send(replay->edit).has_value());
  const Recorded again = run(*live, replay->prompt, 24);
  EXPECT_EQ(again.generated, recorded.generated);
  ASSERT_EQ(again.frames.size(), recorded.frames.size());
  bool differs = false;
  for (size_t t = 0; t < again.frames.size(); ++t)
    for (int row = 0; row < int(demo().plan.moe_layers.size()); ++row) {
      const RoutingFrame &a = *again.frames[t], &b = *recorded.frames[t];
      ASSERT_TRUE(std::ranges::equal(a.used_ids(row), b.used_ids(row))) << "token " << t << " row " << row;
      const size_t used = a.layer(row).k_used;
      ASSERT_TRUE(std::ranges::equal(a.weights(row).first(used), b.weights(row).first(used)));
      if (t < native.frames.size()) differs |= !std::ranges::equal(a.used_ids(row), native.frames[t]->used_ids(row));
    }
  EXPECT_TRUE(differs) << "the edits changed nothing, so that the test shows nothing";
}

// The logits of a teacher-forced pass, on both backends' common path: equal bits under the edits and under the replay.
TEST_F(ReplayTest, GivesTheSameLogitsInATeacherForcedPass) {
  const std::vector<EditCommand> edits = some_edits();
  const Recorded recorded = record(trace_, edits, CaptureLevel::kWeights);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay.has_value());
  std::vector<TokenId> tokens = kPrompt;
  tokens.insert(tokens.end(), replay->generated.begin(), replay->generated.end());
  const auto weights = *WeightStore::open(demo());
  const auto backend = *make_backend("cpu", demo(), weights, {.threads = 1});
  const auto logits_of = [&](const std::vector<EditCommand>& script) {
    ForcedPass pass(*backend, demo().plan, recipe_spans(script, demo().plan), int(tokens.size()));
    pass.begin(0);
    std::vector<float> logits(tokens.size() * size_t(demo().plan.vocab));
    std::vector<RoutingFrame> frames;
    EXPECT_TRUE(pass.forward(tokens, logits, CaptureLevel::kOff, frames).has_value());
    return logits;
  };
  EXPECT_EQ(logits_of(edits), logits_of({replay->edit}));
  EXPECT_NE(logits_of(edits), logits_of({}));
}

TEST_F(ReplayTest, OfIdsAloneWeighsByTheModelsRule) {
  const Recorded recorded = record(trace_, {{TopK{{}, 2}, {}}}, CaptureLevel::kIds);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay.has_value()) << replay.error().message();
  ASSERT_EQ(replay->notes.size(), 1u);
  EXPECT_NE(replay->notes[0].find("no weights"), std::string::npos);
  const auto live = session();
  ASSERT_TRUE(live->send(replay->edit).has_value());
  const Recorded again = run(*live, replay->prompt, 24);
  EXPECT_EQ(again.generated, recorded.generated);  // renormalised over the same experts, so the same weights
  for (const auto& frame : again.frames) EXPECT_EQ(frame->layer(0).k_used, 2);
}

TEST_F(ReplayTest, SaysWhatItsRoutesDoNotHold) {
  record(trace_, {{ExpertScale{{{1}}, {0}, 0.5f}, {}}}, CaptureLevel::kWeights);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay.has_value());
  ASSERT_EQ(replay->notes.size(), 1u);
  EXPECT_NE(replay->notes[0].find("edits of experts"), std::string::npos);
}

TEST_F(ReplayTest, TakesTheSamplingOfTheRecord) {
  const Sampling sampling{.greedy = false, .temperature = 1.5f, .top_p = 0.9f, .top_k = 40, .seed = 11};
  const Recorded recorded = record(trace_, {}, CaptureLevel::kWeights,
                              R"({"sampling":{"greedy":false,"temperature":1.5,"top_p":0.9,"top_k":40,"seed":11}})", sampling);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay && replay->sampling && replay->seed);
  Sampling same{.greedy = !replay->sampling->do_sample, .temperature = replay->sampling->temperature, .top_p = replay->sampling->top_p,
                .top_k = replay->sampling->top_k, .seed = *replay->seed};
  EXPECT_EQ(same, sampling);
  const auto live = session(same);
  ASSERT_TRUE(live->send(replay->edit).has_value());
  EXPECT_EQ(run(*live, replay->prompt, 24).generated, recorded.generated);
}

TEST_F(ReplayTest, AScriptNamesTheTraceAndIsReadBack) {
  record(trace_, {}, CaptureLevel::kWeights);
  const auto replay = read_replay(trace_, 0, demo().plan);
  ASSERT_TRUE(replay.has_value());
  const auto script = parse_script(to_json_script({replay->edit}), demo().plan);
  ASSERT_TRUE(script.has_value()) << script.error().message();
  EXPECT_EQ(*script, std::vector{replay->edit});
  const auto& scheme = std::get<SetScheme>((*script)[0].edit).scheme;
  EXPECT_EQ(scheme.of_layer(demo().plan.moe_layers[2]).data->table, std::get<SetScheme>(replay->edit.edit).scheme.of_layer(demo().plan.moe_layers[2]).data->table);
}

TEST_F(ReplayTest, RefusesASequenceThatARewindBegan) {
  const auto live = session();
  auto recorder = TraceRecorder::create(trace_, *make_trace_header(demo(), CaptureLevel::kWeights));
  ASSERT_TRUE(recorder.has_value()) << recorder.error().message();
  live->record_to(*recorder);
  run(*live, kPrompt, 12);
  live->send(Rewind{15});
  ASSERT_TRUE(live->send(EditCommand{Mute{{}, {0, 1, 2}}, {}}).has_value());
  live->send(Play{6});
  live->wait();
  live->record_to(nullptr);
  live->wait();
  ASSERT_TRUE((*recorder)->close().has_value());
  const auto whole = read_replay(trace_, 0, demo().plan), rest = read_replay(trace_, 1, demo().plan);
  EXPECT_TRUE(whole.has_value()) << whole.error().message();
  ASSERT_FALSE(rest.has_value());
  EXPECT_NE(rest.error().message().find("goes on from another at position 15"), std::string::npos) << rest.error().message();
}

TEST_F(ReplayTest, RefusesWhatDoesNotFit) {
  record(trace_, {}, CaptureLevel::kWeights);
  const auto why = [&](const ModelPlan& plan, int sequence = 0) {
    const auto replay = read_replay(trace_, sequence, plan);
    return replay ? std::string() : replay.error().message();
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  ModelPlan other = demo().plan;
  other.moe_layers.back() += 1;
  EXPECT_TRUE(has(why(other), "routers in the layers")) << why(other);
  EXPECT_TRUE(has(why(demo().plan, 1), "there is no sequence 1; the trace has 1")) << why(demo().plan, 1);
  ModelPlan small = demo().plan;
  small.vocab = 100;
  EXPECT_TRUE(has(why(small), "token id 300, the model knows 0 to 99")) << why(small);
  const auto no_file = read_replay(folder_.path() / "none.moetrace.h5", 0, demo().plan);
  ASSERT_FALSE(no_file.has_value());
  EXPECT_EQ(no_file.error().code, ErrorCode::kNotFound);
  std::ofstream(folder_.path() / "bad.moetrace.h5") << "no trace at all";
  const auto bad = read_replay(folder_.path() / "bad.moetrace.h5", 0, demo().plan);
  ASSERT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code, ErrorCode::kMalformed);
}

}  // namespace
}  // namespace switchyard
