// A trace as the window shows it when the model is not on this machine: what its header says is all there is.
#include "app/session/trace_run.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "engine/model/checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class TraceWithoutModel : public testing::TestWithParam<const char*> {
 protected:
  // The checkpoint of a golden, opened at a place that is gone before the trace is read.
  void SetUp() override {
    fs::copy(fs::path(SWITCHYARD_SOURCE_DIR) / "tests/goldens" / GetParam(), folder_.path() / "gone",
             fs::copy_options::recursive);
    auto opened = open_checkpoint((folder_.path() / "gone").string());
    ASSERT_TRUE(opened) << opened.error().message();
    checkpoint_ = std::move(*opened);
  }

  std::shared_ptr<TraceRecorder> recorder() const {
    auto header = make_trace_header(checkpoint_, CaptureLevel::kWeights);
    EXPECT_TRUE(header) << header.error().message();
    auto made = TraceRecorder::create(trace_, *header);
    EXPECT_TRUE(made) << made.error().message();
    return *made;
  }

  // What a short run under an edit routed, while the trace was written.
  std::vector<std::shared_ptr<const RoutingFrame>> recorded(const Edit& edit) const {
    auto opened = Session::open(checkpoint_, {.backend = "auto", .threads = 1, .capture = CaptureLevel::kWeights, .ignore_eos = true});
    EXPECT_TRUE(opened) << opened.error().message();
    const std::unique_ptr<Session> session = std::move(*opened);
    EXPECT_TRUE(session->send(EditCommand{edit, {}}));
    session->record_to(recorder());
    session->send(Start{{5, 9, 12, 7}, 5});
    const auto end = session->wait();
    EXPECT_EQ(end->state, RunState::kFinished) << (end->error ? end->error->message() : "");
    auto frames = end->frames->range(0, end->frames->size());
    EXPECT_FALSE(frames.empty());
    session->record_to(nullptr);
    session->wait();
    return frames;
  }

  // The trace, and its plan against the model's.
  TraceRun loaded() const {
    fs::remove_all(folder_.path() / "gone");
    auto run = load_trace_run(trace_);
    EXPECT_TRUE(run) << run.error().message();
    const ModelPlan& plan = checkpoint_.plan;
    EXPECT_EQ(run->info.score, plan.routed(0).router.score);
    EXPECT_EQ(run->plan.moe_layers, plan.moe_layers);
    EXPECT_EQ(run->plan.encoder_layers, plan.encoder_layers);
    for (int row = 0; row < int(plan.rows.size()); ++row) {
      EXPECT_EQ(run->plan.row_name(row), plan.row_name(row));
      EXPECT_EQ(run->plan.encoder_row(row), plan.encoder_row(row));
    }
    return std::move(*run);
  }

  const TemporaryFolder folder_;
  const fs::path trace_ = folder_.path() / "run.moetrace.h5";
  Checkpoint checkpoint_;
};

TEST_P(TraceWithoutModel, KeepsTheNamesOfItsRowsAndTheScore) {
  ASSERT_TRUE(recorder()->close());
  loaded();
}

// jetmoe: two rows a layer; llama4: sigmoid after top-k; jamba: not every layer routes.
INSTANTIATE_TEST_SUITE_P(Goldens, TraceWithoutModel,
                         testing::Values("nllb_moe", "switch_transformers", "jetmoe", "llama4_text", "deepseek_v3",
                                         "jamba"),
                         [](const auto& info) { return std::string(info.param); });

// A layer that ran in passes: the rows of the trace become the later rows of frames again.
class TraceOfPasses : public TraceWithoutModel {};

TEST_P(TraceOfPasses, ComesBackWithEveryDecision) {
  const auto scheme = make_scheme({"chain_of_experts", {{"iterations", 3.0}}});
  const auto frames = recorded(SetScheme{{{checkpoint_.plan.moe_layers.back()}}, *scheme});
  const TraceRun run = loaded();
  ASSERT_EQ(run.frames.size(), frames.size());
  const int routers = int(checkpoint_.plan.rows.size());
  for (size_t t = 0; t < frames.size(); ++t) {
    ASSERT_EQ(run.frames[t]->rows(), 3 * routers);
    for (int row = 0; row < 3 * routers; ++row) {
      EXPECT_EQ(run.frames[t]->passed(row), row < routers || row % routers == routers - 1);
      EXPECT_TRUE(std::ranges::equal(frames[t]->used_ids(row), run.frames[t]->used_ids(row))) << "token " << t << ", row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, TraceOfPasses, testing::Values("qwen3_moe"), [](const auto& info) { return std::string(info.param); });

// A layer path: rows of the repeated layer, nothing of the skipped one.
class TraceOfAPath : public TraceWithoutModel {};

TEST_P(TraceOfAPath, ComesBackWithEveryPass) {
  std::vector<uint8_t> passes(checkpoint_.plan.layers.size(), 1);
  passes[size_t(checkpoint_.plan.moe_layers.front())] = 2, passes[size_t(checkpoint_.plan.moe_layers.back())] = 0;
  const auto frames = recorded(LayerPath{passes});
  const TraceRun run = loaded();
  ASSERT_EQ(run.frames.size(), frames.size());
  const int routers = int(checkpoint_.plan.rows.size());
  for (size_t t = 0; t < frames.size(); ++t) {
    ASSERT_EQ(run.frames[t]->rows(), 2 * routers);
    for (int row = 0; row < 2 * routers; ++row) {
      const int layer = checkpoint_.plan.moe_layers[size_t(row % routers)];
      EXPECT_EQ(run.frames[t]->passed(row), row / routers < passes[size_t(layer)]) << "token " << t << ", row " << row;
      EXPECT_EQ(frames[t]->passed(row), run.frames[t]->passed(row));
      EXPECT_TRUE(std::ranges::equal(frames[t]->used_ids(row), run.frames[t]->used_ids(row))) << "token " << t << ", row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, TraceOfAPath, testing::Values("qwen3_moe"
#ifdef SWITCHYARD_WITH_REFERENCE
                         , "jetmoe"
#endif
                         ), [](const auto& info) { return std::string(info.param); });

#ifdef SWITCHYARD_WITH_REFERENCE
// Recorded from a session and read back: every frame, and where the encoder ends.
class EncoderDecoderTrace : public TraceWithoutModel {};

TEST_P(EncoderDecoderTrace, ComesBackWithEveryDecisionAndTheEndOfTheEncoder) {
  auto opened = Session::open(checkpoint_,
                              {.backend = "auto", .threads = 1, .capture = CaptureLevel::kWeights, .ignore_eos = true});
  ASSERT_TRUE(opened) << opened.error().message();
  const std::unique_ptr<Session> session = std::move(*opened);
  session->record_to(recorder());
  session->send(Start{{5, 9, 12, 7, 30, 41, 2}, 6});
  const auto end = session->wait();
  ASSERT_EQ(end->state, RunState::kFinished) << (end->error ? end->error->message() : "");
  const auto frames = end->frames->range(0, end->frames->size());
  session->record_to(nullptr);
  session->wait();

  const TraceRun run = loaded();
  EXPECT_EQ(run.snapshot->encoder_tokens, 7u);
  EXPECT_EQ(run.snapshot->encoder_tokens, end->encoder_tokens);
  EXPECT_EQ(run.snapshot->prompt_ids, end->prompt_ids);
  ASSERT_EQ(run.frames.size(), frames.size());
  for (size_t t = 0; t < frames.size(); ++t) {
    EXPECT_EQ(run.frames[t]->header().token_id, frames[t]->header().token_id);
    EXPECT_EQ(run.frames[t]->header().position, frames[t]->header().position);
    for (int row = 0; row < int(checkpoint_.plan.rows.size()); ++row) {
      const auto want = frames[t]->used_ids(row), got = run.frames[t]->used_ids(row);
      EXPECT_TRUE(std::ranges::equal(want, got)) << "token " << t << ", " << checkpoint_.plan.row_name(row);
      EXPECT_EQ(got.empty(), checkpoint_.plan.encoder_row(row) != (t < 7)) << "token " << t << " row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, EncoderDecoderTrace, testing::Values("nllb_moe", "switch_transformers"),
                         [](const auto& info) { return std::string(info.param); });
#endif

}  // namespace
}  // namespace switchyard
