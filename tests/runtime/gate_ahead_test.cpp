// What the next router would choose for this one's input: against transformers (tests/data/taps.py), the same in one
// piece and token by token, and of an encoder-decoder within each side only.
#include <algorithm>
#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/runtime/forced_pass.h"
#include "engine/runtime/session.h"

namespace switchyard {
namespace {

using Guesses = std::vector<std::vector<ExpertId>>;  // [token] of one row

struct Engine {
  Checkpoint checkpoint;
  std::shared_ptr<const WeightStore> weights;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<GateAhead> ahead;
  explicit Engine(const std::string& folder, const std::string& name = "cpu")
      : checkpoint(*open_checkpoint(folder)),
        weights(*WeightStore::open(checkpoint)),
        backend(*make_backend(name, checkpoint, weights, {.threads = 2})),
        ahead(*GateAhead::make(checkpoint.plan, *weights)) {}

  std::vector<RoutingFrame> frames(const std::vector<TokenId>& ids, size_t piece, std::vector<EditCommand> edits = {}) {
    ForcedPass pass(*backend, checkpoint.plan, recipe_spans(edits, checkpoint.plan), int(ids.size()));
    pass.set_taps(Taps::kPredGate, ahead.get());
    pass.begin(0);
    std::vector<RoutingFrame> all, some;
    for (size_t first = 0; first < ids.size(); first += piece) {
      const auto done = pass.forward(std::span(ids).subspan(first, std::min(piece, ids.size() - first)), {}, CaptureLevel::kIds, some);
      EXPECT_TRUE(done) << done.error().message();
      std::move(some.begin(), some.end(), std::back_inserter(all));
    }
    return all;
  }
};
std::string golden(const char* name) { return std::string(SWITCHYARD_SOURCE_DIR "/tests/goldens/") + name; }
constexpr char kDemo[] = SWITCHYARD_SOURCE_DIR "/assets/models/demo";

// The backend that runs this golden; null: this build has none.
const char* runs_on(const char* name) {
  if (missing_on_cpu(open_checkpoint(golden(name))->plan).empty()) return "cpu";
#ifdef SWITCHYARD_WITH_REFERENCE
  return "reference";
#else
  return nullptr;
#endif
}

Guesses guesses(const std::vector<RoutingFrame>& frames, int row) {
  Guesses out;
  for (const RoutingFrame& frame : frames) {
    auto& own = out.emplace_back();
    for (const ExpertId id : frame.guessed(row))
      if (id != kNoExpert) own.push_back(id);
  }
  return out;
}

class GateAheadOn : public testing::TestWithParam<std::string> {};

TEST_P(GateAheadOn, ChoosesWhatTransformersChooses) {
  const auto file = nlohmann::json::parse(std::ifstream(SWITCHYARD_SOURCE_DIR "/tests/data/taps.json"));
  const auto ids = file["token_ids"].get<std::vector<TokenId>>();
  Engine engine(kDemo, GetParam());
  const auto frames = engine.frames(ids, 5);
  ASSERT_EQ(frames.size(), ids.size());
  int compared = 0;
  for (const auto& layer : file["layers"]) {
    const auto& layers = engine.checkpoint.plan.moe_layers;
    const int row = int(std::find(layers.begin(), layers.end(), layer["layer"].get<int>()) - layers.begin());
    if (layer["ahead"].empty()) continue;
    EXPECT_EQ(guesses(frames, row + 1), layer["ahead"].get<Guesses>());
    ++compared;
  }
  EXPECT_EQ(compared, 2);
  EXPECT_THAT(guesses(frames, 0), testing::Each(testing::IsEmpty()));
}
INSTANTIATE_TEST_SUITE_P(Backends, GateAheadOn,
#ifdef SWITCHYARD_WITH_REFERENCE
                         testing::Values("cpu", "reference"),
#else
                         testing::Values("cpu"),
#endif
                         [](const auto& one) { return one.param; });

TEST(GateAhead, IsTheSameInAnyPieces) {
  Engine engine(kDemo);
  const std::vector<TokenId> ids = {5, 99, 7, 300, 12, 41, 8, 77, 150};
  const auto one = engine.frames(ids, ids.size()), each = engine.frames(ids, 1);
  for (size_t row = 1; row < engine.checkpoint.plan.rows.size(); ++row) EXPECT_EQ(guesses(one, int(row)), guesses(each, int(row)));
}

// The checkpoint's router as it is: an edit of the next row does not reach the guess, its effect on the run does.
TEST(GateAhead, LeavesEditsOut) {
  Engine engine(kDemo);
  const std::vector<TokenId> ids = {5, 99, 7, 300};
  const int layers = int(engine.checkpoint.plan.moe_layers.size());
  const auto plain = engine.frames(ids, 4), muted = engine.frames(ids, 4, {{Mute{{{layers - 1}}, {plain[0].ids(layers - 1)[0]}}, {}}});
  EXPECT_EQ(guesses(plain, layers - 1), guesses(muted, layers - 1));
  EXPECT_NE(plain[0].ids(layers - 1)[0], muted[0].ids(layers - 1)[0]);
}

// DeepSeek-V3: groups and a selection bias; gpt-oss: a logit bias. What the row itself chose for another input has as
// many experts; JetMoE: attention and feed-forward routers take turns.
TEST(GateAhead, FollowsEveryRulesNumberOfExperts) {
  for (const char* name : {"deepseek_v3", "gpt_oss", "jetmoe", "llama4_text"}) {
    SCOPED_TRACE(name);
    if (!runs_on(name)) continue;
    Engine engine(golden(name), runs_on(name));
    const auto frames = engine.frames({3, 9, 14, 20}, 4);
    for (int row = 1; row < int(engine.checkpoint.plan.rows.size()); ++row)
      for (const auto& guess : guesses(frames, row)) {
        EXPECT_EQ(int(guess.size()), engine.checkpoint.plan.routed(row).router.experts_per_token);
        EXPECT_EQ(std::set<ExpertId>(guess.begin(), guess.end()).size(), guess.size());
      }
  }
}

// The decoder's first router follows none of its side.
TEST(GateAhead, StaysOnItsSide) {
  if (!runs_on("switch_transformers")) GTEST_SKIP() << "this build has no backend that runs it";
  Engine engine(golden("switch_transformers"), runs_on("switch_transformers"));
  const ModelPlan& plan = engine.checkpoint.plan;
  int first = 0;
  while (plan.moe_layers[size_t(first)] < plan.encoder_layers) ++first;
  ForcedPass pass(*engine.backend, plan, recipe_spans({}, plan), 12);
  pass.set_taps(Taps::kPredGate, engine.ahead.get());
  pass.begin(0);
  std::vector<RoutingFrame> encoder, decoder;
  ASSERT_TRUE(pass.encode(std::vector<TokenId>{3, 9, 14, 1}, CaptureLevel::kIds, encoder));
  ASSERT_TRUE(pass.forward(std::vector<TokenId>{0, 5, 8}, {}, CaptureLevel::kIds, decoder));
  EXPECT_THAT(guesses(encoder, first), testing::Each(testing::IsEmpty()));
  EXPECT_THAT(guesses(decoder, first), testing::Each(testing::IsEmpty()));
  for (int row = 1; row < first; ++row) EXPECT_THAT(guesses(encoder, row), testing::Each(testing::Not(testing::IsEmpty())));
  for (int row = first + 1; row < int(plan.rows.size()); ++row) EXPECT_THAT(guesses(decoder, row), testing::Each(testing::Not(testing::IsEmpty())));
}

}  // namespace
}  // namespace switchyard
