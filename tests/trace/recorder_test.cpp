// What goes into the recorder comes out of the reader, at every capture level and shape, and the file is
// closed the way readers are promised.
#include <fstream>

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/trace/file.h"
#include "engine/trace/provenance.h"
#include "tests/trace/synthetic.h"

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<TraceReader> opened(const fs::path& path) {
  auto reader = TraceReader::open(path);
  EXPECT_TRUE(reader) << reader.error().message();
  return reader ? std::move(*reader) : nullptr;
}

struct RoundTrip : ::testing::TestWithParam<SyntheticShape> {};

// 6,100 tokens: two blocks, a stretch with a wider slot axis that starts a third, epochs and sequences.
TEST_P(RoundTrip, EveryValueComesBack) {
  const Folder folder;
  const SyntheticShape shape = GetParam();
  constexpr uint64_t kTokens = 6100;
  record_synthetic(folder / "a.moetrace.h5", shape, kTokens);
  EXPECT_FALSE(fs::exists(folder / "a.moetrace.h5.part"));
  const auto reader = opened(folder / "a.moetrace.h5");
  ASSERT_TRUE(reader);
  const TraceInfo& info = reader->info();
  EXPECT_EQ(info.tokens, kTokens);
  EXPECT_EQ(info.sequences, 7u);
  EXPECT_EQ(info.layers, shape.layers);
  EXPECT_EQ(info.experts, shape.experts);
  EXPECT_EQ(info.top_k, std::min(shape.k + 2, shape.experts));
  EXPECT_EQ(info.moe_layers, synthetic_header(shape).moe_layers);
  EXPECT_EQ(info.capture, shape.capture);
  EXPECT_TRUE(info.complete);
  EXPECT_EQ(info.dropped, 0u);
  EXPECT_TRUE(info.notes.empty());
  EXPECT_EQ(info.run_json, R"({"seed":7})");
  EXPECT_EQ(synthetic_difference(*reader, shape), "");
  const auto report = verify_trace(folder / "a.moetrace.h5");
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_THAT(report->problems, ::testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Shapes, RoundTrip,
                         ::testing::Values(SyntheticShape{3, 16, 4, CaptureLevel::kIds}, SyntheticShape{3, 16, 4, CaptureLevel::kWeights},
                                           SyntheticShape{3, 16, 4, CaptureLevel::kLogits}, SyntheticShape{1, 4, 4, CaptureLevel::kLogits},
                                           SyntheticShape{2, 255, 8, CaptureLevel::kWeights},    // the largest E with ids of one byte
                                           SyntheticShape{2, 256, 8, CaptureLevel::kLogits}));   // the smallest with two

TEST(Recorder, EpochsChainTheHashOfTheirParent) {
  const Folder folder;
  record_synthetic(folder / "a.moetrace.h5", {}, 700);
  const auto epochs = opened(folder / "a.moetrace.h5")->epochs();
  ASSERT_TRUE(epochs);
  ASSERT_EQ(epochs->size(), 3u);
  std::string parent;
  for (size_t p = 0; p < epochs->size(); ++p) {
    const auto json = nlohmann::json::parse((*epochs)[p].json);
    EXPECT_EQ(json["epoch"], p);
    EXPECT_EQ(json["edits"][0]["kind"], "mute");
    EXPECT_EQ(json["parent_sha256"], parent.empty() ? nlohmann::json() : nlohmann::json(parent));
    parent = sha256_of_text((*epochs)[p].json);
  }
}

TEST(Recorder, AnEmptyRecordingIsACompleteTrace) {
  const Folder folder;
  record_synthetic(folder / "a.moetrace.h5", {}, 0);
  const auto reader = opened(folder / "a.moetrace.h5");
  EXPECT_EQ(reader->info().tokens, 0u);
  EXPECT_TRUE(reader->info().complete);
  EXPECT_EQ(reader->sequence_offsets()->size(), 1u);
  EXPECT_TRUE(reader->token_ids(0, 0)->empty());
}

TEST(Recorder, NeverWritesOverAFileUnlessAsked) {
  const Folder folder;
  const fs::path path = folder / "a.moetrace.h5";
  std::ofstream(path) << "precious";
  const auto refused = TraceRecorder::create(path, synthetic_header({}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOutput);
  EXPECT_EQ(refused.error().message(), path.string() + ": exists already. Choose another name, or overwrite it with --force.");
  EXPECT_FALSE(fs::exists(path.string() + ".part"));
  RecorderOptions force;
  force.overwrite = true;
  record_synthetic(path, {}, 10, force);
  EXPECT_EQ(opened(path)->info().tokens, 10u);
}

TEST(Recorder, AFileThatAppearsWhileRecordingIsKept) {
  const Folder folder;
  const fs::path path = folder / "a.moetrace.h5";
  auto recorder = TraceRecorder::create(path, synthetic_header({}));
  ASSERT_TRUE(recorder);
  ASSERT_TRUE(append_synthetic(**recorder, {}, 0));
  std::ofstream(path) << "precious";
  const auto closed = (*recorder)->close();
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kOutput);
  EXPECT_EQ(fs::file_size(path), 8u);
  EXPECT_EQ(opened(path.string() + ".part")->info().tokens, 1u) << "the recording is in the .part";
}

TEST(Recorder, APartOfAnEarlierRunIsNotDestroyed) {
  const Folder folder;
  const fs::path path = folder / "a.moetrace.h5";
  std::ofstream(path.string() + ".part") << "tokens of yesterday";
  const auto refused = TraceRecorder::create(path, synthetic_header({}));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("switchyard trace recover"), std::string::npos);
  EXPECT_EQ(fs::file_size(path.string() + ".part"), 19u);
}

TEST(Recorder, RefusesNamesAndHeadersThatCannotBeATrace) {
  const Folder folder;
  EXPECT_EQ(TraceRecorder::create(folder / "a.h5", synthetic_header({})).error().code, ErrorCode::kUsage);
  EXPECT_EQ(TraceRecorder::create(folder / ".moetrace.h5", synthetic_header({})).error().code, ErrorCode::kUsage);
  EXPECT_EQ(TraceRecorder::create(folder / "no/such/folder/a.moetrace.h5", synthetic_header({})).error().code, ErrorCode::kOutput);
  TraceHeader off = synthetic_header({});
  off.capture = CaptureLevel::kOff;
  EXPECT_EQ(TraceRecorder::create(folder / "a.moetrace.h5", off).error().code, ErrorCode::kUsage);
  TraceHeader none = synthetic_header({});
  none.moe_layers.clear();
  EXPECT_EQ(TraceRecorder::create(folder / "a.moetrace.h5", none).error().code, ErrorCode::kUsage);
  EXPECT_TRUE(fs::is_empty(folder.path())) << "a refusal leaves nothing behind";
}

TEST(Recorder, RefusesFramesOfAnotherShape) {
  const Folder folder;
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header({}));
  EXPECT_FALSE(recorder->append(synthetic_frame({4, 16, 4}, 0)));
  EXPECT_FALSE(recorder->append(synthetic_frame({3, 32, 4}, 0)));
  EXPECT_FALSE(recorder->append(synthetic_frame({3, 16, 4, CaptureLevel::kWeights}, 0))) << "the trace records logits";
  ASSERT_TRUE(recorder->append(synthetic_frame({}, 0)));
  ASSERT_TRUE(recorder->close());
  EXPECT_EQ(opened(folder / "a.moetrace.h5")->info().tokens, 1u);
}

TEST(Recorder, TakesNothingAfterTheCloseAndClosesOnce) {
  const Folder folder;
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header({}));
  ASSERT_TRUE(append_synthetic(*recorder, {}, 0));
  EXPECT_TRUE(recorder->close());
  EXPECT_TRUE(recorder->close());
  EXPECT_FALSE(recorder->append(synthetic_frame({}, 1)));
  EXPECT_FALSE(recorder->begin_sequence(1, 0));
  EXPECT_FALSE(recorder->begin_epoch(1, 0, "{}"));
}

// A branch: its rows are a sequence of their own that names the parent and the token it goes on from (formats.md).
TEST(Recorder, ASequenceNamesWhatItGoesOnFrom) {
  const Folder folder;
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header({}));
  uint64_t row = 0;
  const auto rows = [&](uint64_t count) {
    for (; count > 0; --count) ASSERT_TRUE(recorder->append(synthetic_frame({}, row++)));
  };
  ASSERT_TRUE(recorder->begin_sequence(0, 3));
  rows(10);
  ASSERT_TRUE(recorder->begin_sequence(0, 0, {.parent = 0, .offset = 6}));
  rows(5);
  ASSERT_TRUE(recorder->begin_sequence(0, 0, {.parent = 1, .offset = 11}));
  rows(1);
  ASSERT_TRUE(recorder->close());
  auto file = TraceFile::open(folder / "a.moetrace.h5");
  ASSERT_TRUE(file) << file.error().message();
  const auto sequences = (*file)->sequences();
  ASSERT_TRUE(sequences);
  ASSERT_EQ(sequences->size(), 3u);
  const auto is = [&](size_t s, uint64_t first, int64_t parent, uint32_t offset) {
    EXPECT_EQ((*sequences)[s].first_token, first);
    EXPECT_EQ((*sequences)[s].parent, parent);
    EXPECT_EQ((*sequences)[s].fork_offset, offset);
  };
  is(0, 0, -1, 0);
  is(1, 10, 0, 6);
  is(2, 15, 1, 11);
  const auto report = verify_trace(folder / "a.moetrace.h5");
  ASSERT_TRUE(report);
  EXPECT_THAT(report->problems, ::testing::IsEmpty());
}

// Rows of a file are fixed: a recipe that makes more decisions in a layer is recorded in the next one.
TEST(Recorder, GoesOnInAnotherFileWhereARecipeNeedsMoreRows) {
  const Folder folder;
  const SyntheticShape shape{.layers = 3, .taps = 0};
  TraceHeader header = synthetic_header(shape);
  header.router_names = {"layer 1", "layer 3", "layer 5"};
  header.router_width = 2;
  std::vector<float> routers(size_t(3 * shape.experts * 2));
  std::iota(routers.begin(), routers.end(), 1.0f);
  header.router_weight = std::make_shared<const std::vector<float>>(routers);
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", header);
  const std::vector<DecisionRow> native{{0, 1, "layer 1"}, {1, 3, "layer 3"}, {2, 5, "layer 5"}};
  std::vector<DecisionRow> two = native;
  two.insert(two.begin() + 2, {4, 3, "layer 3 · pass 2"});
  std::vector<DecisionRow> three = native;
  three.push_back({5, 5, "layer 5 · pass 2"});
  // A frame with two rows of each router; those of the second pass hold the experts of token + 1000.
  const auto frame = [&](uint64_t token, bool passes) {
    const RoutingFrame base = synthetic_frame(shape, token), later = synthetic_frame(shape, token + 1000);
    RoutingFrame out(3, shape.experts, shape.k, shape.capture, passes ? 2 : 1);
    out.header() = base.header();
    out.header().passes = passes ? 2 : 1;
    for (int row = 0; row < out.rows(); ++row) {
      const RoutingFrame& from = row < 3 ? base : later;
      const Decision decision{.k_used = from.layer(row % 3).k_used, .stats = from.layer(row % 3).stats};
      out.record(row, decision, from.ids(row % 3), from.weights(row % 3), from.kinds(row % 3), from.logits(row % 3));
    }
    return out;
  };
  uint64_t token = 0;
  const auto epoch = [&](uint32_t number, const std::vector<DecisionRow>& rows, int tokens) {
    ASSERT_TRUE(recorder->need_rows(rows));
    if (number == 0) {
      ASSERT_TRUE(recorder->begin_sequence(0, 6));
    }
    ASSERT_TRUE(recorder->begin_epoch(number, token, R"({"schema":1,"edits":[{"kind":"top_k","layer":1,"k":)" + std::to_string(number + 1) + "}]}"));
    for (int i = 0; i < tokens; ++i) ASSERT_TRUE(recorder->append(frame(token++, rows.size() > 3)));
  };
  epoch(0, native, 4);
  epoch(1, two, 3);     // the second file
  epoch(2, native, 2);  // fits
  epoch(3, two, 1);     // fits
  epoch(4, three, 2);   // the third: both
  ASSERT_TRUE(recorder->begin_sequence(0, 0, {.parent = 0, .offset = 11}));
  ASSERT_TRUE(recorder->append(frame(token++, true)));
  ASSERT_TRUE(recorder->close());
  const auto paths = recorder->paths();
  ASSERT_EQ(paths.size(), 3u);
  EXPECT_EQ(paths[1].filename(), "a-2.moetrace.h5");
  EXPECT_EQ(paths[2].filename(), "a-3.moetrace.h5");
  EXPECT_EQ(recorder->committed_tokens(), 13u);

  const auto first = opened(paths[0]), second = opened(paths[1]), third = opened(paths[2]);
  EXPECT_EQ(first->info().tokens, 4u);
  EXPECT_EQ(second->info().tokens, 6u);
  EXPECT_EQ(third->info().tokens, 3u);
  EXPECT_THAT(second->info().router_names, ::testing::ElementsAre("layer 1", "layer 3", "layer 3 · pass 2", "layer 5"));
  EXPECT_THAT(second->info().moe_layers, ::testing::ElementsAre(1, 3, 3, 5));
  EXPECT_THAT(third->info().router_names, ::testing::ElementsAre("layer 1", "layer 3", "layer 3 · pass 2", "layer 5", "layer 5 · pass 2"));
  EXPECT_THAT(second->info().edits_json, ::testing::HasSubstr("\"k\":2"));
  EXPECT_EQ((*second->epochs()).size(), 3u);

  const auto id = [&](const TraceReader& reader, int row, uint64_t at) { return (*reader.expert_ids(row, at, 1))[0]; };
  const auto expected = [&](uint64_t of, int row) { return synthetic_frame(shape, of).ids(row)[0]; };
  EXPECT_EQ(id(*second, 1, 0), expected(4, 1));
  EXPECT_EQ(id(*second, 2, 0), expected(1004, 1));
  EXPECT_EQ(id(*second, 3, 0), expected(4, 2));
  EXPECT_EQ(id(*second, 2, 3), kNoExpert) << "under the native recipe there is no second pass";
  EXPECT_EQ(id(*second, 2, 5), expected(1009, 1));
  EXPECT_EQ(id(*third, 4, 0), expected(1010, 2));
  for (const auto& path : paths) {
    const auto report = verify_trace(path);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_THAT(report->problems, ::testing::IsEmpty());
  }
  // The routers follow their rows; later passes are no routers of their own.
  const auto router = [&](int row) { return std::vector<float>(routers.begin() + row * shape.experts * 2, routers.begin() + (row + 1) * shape.experts * 2); };
  EXPECT_EQ(*second->router_weight(1), router(1));
  EXPECT_EQ(*third->router_weight(3), router(2));
  for (const auto& [reader, row] : {std::pair(second.get(), 2), {third.get(), 2}, {third.get(), 4}})
    EXPECT_THAT(*reader->router_weight(row), ::testing::Each(0.0f));
  // Of the prompt of 6 tokens 4 were in the first file; the branch goes on from a token that the third has.
  const auto sequences = (*TraceFile::open(paths[1]))->sequences();
  ASSERT_TRUE(sequences);
  ASSERT_EQ(sequences->size(), 1u);
  EXPECT_EQ((*sequences)[0].prompt_len, 2u);
  const auto last = (*TraceFile::open(paths[2]))->sequences();
  ASSERT_EQ(last->size(), 2u);
  EXPECT_EQ((*last)[1].parent, 0);
}

TEST(Recorder, AFileInWhichNothingIsGetsTheRowsItself) {
  const Folder folder;
  const SyntheticShape shape{.layers = 2, .taps = 0};
  TraceHeader header = synthetic_header(shape);
  header.router_names = {"layer 1", "layer 3"};
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", header);
  ASSERT_TRUE(recorder->need_rows({{0, 1, "layer 1"}, {2, 1, "layer 1 · pass 2"}, {1, 3, "layer 3"}}));
  ASSERT_TRUE(recorder->begin_sequence(0, 1));
  ASSERT_TRUE(recorder->begin_epoch(0, 0, "{}"));
  ASSERT_TRUE(recorder->append(synthetic_frame(shape, 0)));
  ASSERT_TRUE(recorder->close());
  EXPECT_EQ(recorder->paths().size(), 1u);
  EXPECT_THAT(opened(folder / "a.moetrace.h5")->info().router_names, ::testing::ElementsAre("layer 1", "layer 1 · pass 2", "layer 3"));
  EXPECT_FALSE(std::filesystem::exists(folder / "a.moetrace.h5.part"));
}

TEST(Recorder, AForgottenRecorderStillLeavesACompleteFile) {
  const Folder folder;
  {
    auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header({}));
    for (uint64_t token = 0; token < 50; ++token) ASSERT_TRUE(append_synthetic(*recorder, {}, token));
  }
  EXPECT_TRUE(opened(folder / "a.moetrace.h5")->info().complete);
}

// Record mode with a ring far smaller than the run: the engine waits, nothing is lost.
TEST(Recorder, BackPressureLosesNothing) {
  const Folder folder;
  RecorderOptions options;
  options.ring_frames = 2;
  options.flush_seconds = 0.05;
  record_synthetic(folder / "a.moetrace.h5", {}, 3000, options);
  EXPECT_EQ(synthetic_difference(*opened(folder / "a.moetrace.h5"), {}), "");
}

// Free-run mode drops whole tokens, says how many, and the file adds up with what was offered.
TEST(Recorder, FreeRunDropsWholeTokensAndCountsThem) {
  const Folder folder;
  RecorderOptions options;
  options.ring_frames = 2;
  options.block_when_full = false;
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header({}), options);
  constexpr uint64_t kOffered = 20'000;
  for (uint64_t token = 0; token < kOffered; ++token) ASSERT_TRUE(append_synthetic(*recorder, {}, token));
  ASSERT_TRUE(recorder->close());
  EXPECT_GT(recorder->dropped(), 0u) << "two slots cannot keep up";
  const auto reader = opened(folder / "a.moetrace.h5");
  EXPECT_EQ(reader->info().tokens + recorder->dropped(), kOffered);
  EXPECT_EQ(reader->info().dropped, recorder->dropped());
  ASSERT_FALSE(reader->info().notes.empty());
  // Whole tokens: what is there agrees with itself in every column.
  const auto ids = reader->token_ids(0, reader->info().tokens);
  const auto experts = reader->expert_ids(1, 0, reader->info().tokens);
  const auto position = reader->token_column("position", 0, reader->info().tokens);
  ASSERT_TRUE(ids && experts && position);
  for (uint64_t t = 0; t < reader->info().tokens; ++t) {
    uint64_t token = 0;  // the only one below 20,000 with this id (5 t mod 50,000) and position (t mod 1,000)
    while (token * 5 % 50'000 != uint64_t((*ids)[t]) || token % 1000 != (*position)[t]) ASSERT_LT(++token, kOffered);
    EXPECT_EQ((*experts)[t * reader->info().top_k] , synthetic_id({}, token, 1, 0));
  }
}

// The writer commits by itself, without a close.
TEST(Recorder, CommitsWithinTheFlushTime) {
  const Folder folder;
  RecorderOptions options;
  options.flush_seconds = 0.01;
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header({}), options);
  for (uint64_t token = 0; token < 30; ++token) ASSERT_TRUE(append_synthetic(*recorder, {}, token));
  for (int i = 0; i < 1000 && recorder->committed_tokens() < 30; ++i) usleep(10'000);
  EXPECT_EQ(recorder->committed_tokens(), 30u);
  EXPECT_TRUE(recorder->close());
}

TEST(Reader, RefusesRangesAndFieldsThatAreNotThere) {
  const Folder folder;
  const SyntheticShape shape{3, 16, 4, CaptureLevel::kIds};
  record_synthetic(folder / "a.moetrace.h5", shape, 10);
  const auto reader = opened(folder / "a.moetrace.h5");
  EXPECT_FALSE(reader->token_ids(5, 6));
  EXPECT_FALSE(reader->token_ids(UINT64_MAX, 2));
  EXPECT_FALSE(reader->expert_ids(3, 0, 1));
  EXPECT_FALSE(reader->expert_ids(-1, 0, 1));
  EXPECT_FALSE(reader->token_column("no_such", 0, 1));
  EXPECT_FALSE(reader->scalar("expert_id", 0, 0, 1)) << "not a scalar";
  EXPECT_EQ(reader->weights(0, 0, 1).error().message(),
            reader->info().path.string() + ": the trace has no /routing/weight. Record it with --capture weights.");
  EXPECT_EQ(reader->router_logits(0, 0, 1).error().hint, "Record it with --capture logits.");
}

}  // namespace
}  // namespace switchyard::testing
