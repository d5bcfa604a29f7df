// The bench measures what it says on the demo; no test asks how fast that was.
#include "engine/runtime/bench.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

struct CountingSink final : TraceSink {
  Result<void> begin_sequence(uint32_t, uint32_t, SequenceOrigin) override { return ++sequences, Result<void>(); }
  Result<void> begin_epoch(uint32_t, uint64_t, const std::string&) override { return {}; }
  Result<void> append(const RoutingFrame&) override { return ++frames, Result<void>(); }
  Result<void> close() override { return ++closed, Result<void>(); }
  uint64_t dropped() const override { return 0; }
  int sequences = 0, frames = 0, closed = 0;
};

struct Opened {
  Checkpoint checkpoint = open_checkpoint(SWITCHYARD_SOURCE_DIR "/assets/models/demo").value();
  std::unique_ptr<Backend> backend =
      make_cpu_backend(checkpoint.plan, WeightStore::open(checkpoint).value(), {.threads = 2}, nullptr).value();
};

TEST(Bench, SpreadIsMedianAndEnds) {
  const Spread odd = spread_of({3, 1, 2}), even = spread_of({4, 1, 2, 3});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(even.median, 2.5);
}

TEST(Bench, CountsTheBytesThatOneTokenOfTheDemoReads) {
  // From config.json: hidden 256, 8 heads and 2 kv heads of 32, 4 of 32 experts of width 64, vocabulary 4096.
  const uint64_t attention = 256 * 256 * 2 + 2 * 64 * 256 + 2 * 32, experts = 32 * 256 + 4 * 3 * 64 * 256,
                 norms = 2 * 256;
  EXPECT_EQ(weight_bytes_per_token(Opened().checkpoint.plan),
            2 * (8 * (attention + experts + norms) + 256 + 4096 * 256));
}

TEST(Bench, MeasuresEverySettingOnceARound) {
  Opened demo;
  const auto sink = std::make_shared<CountingSink>();
  const auto result = bench(demo.checkpoint, *demo.backend,
                            {.prompt_tokens = 20, .new_tokens = 6, .repeat = 2, .threads = 1, .sink = sink});
  ASSERT_TRUE(result) << result.error().message();
  ASSERT_EQ(result->capture.size(), 4u);
  EXPECT_EQ(result->capture[0].level, "off");
  EXPECT_EQ(result->capture[0].cost.share, 0);
  EXPECT_FALSE(result->capture[0].cost.low);
  EXPECT_LE(*result->capture[1].cost.low, result->capture[1].cost.share);
  EXPECT_LE(result->capture[1].cost.share, *result->capture[1].cost.high);
  EXPECT_FALSE(result->capture[3].cost.low);  // measured apart
  EXPECT_FALSE(result->edited);
  EXPECT_EQ(result->capture[1].level, "ids");
  EXPECT_EQ(result->capture[2].level, "logits");
  EXPECT_EQ(result->capture[3].level, "recorded");
  EXPECT_EQ(sink->sequences, 3);  // a warm-up and two rounds
  EXPECT_EQ(sink->frames, 3 * 6);
  EXPECT_EQ(sink->closed, 1);
  for (const Spread& spread : {result->prefill_tokens_per_s, result->decode_tokens_per_s, result->layers_per_s}) {
    EXPECT_GT(spread.min, 0);
    EXPECT_LE(spread.min, spread.median);
    EXPECT_LE(spread.median, spread.max);
  }
  EXPECT_GT(result->ceiling.gb_per_s, 0);
  EXPECT_EQ(result->ceiling.bytes, demo.checkpoint.weight_bytes());
  EXPECT_DOUBLE_EQ(result->share_of_ceiling, double(result->bytes_per_token) * result->decode_tokens_per_s.median /
                                                 (result->ceiling.gb_per_s * 1e9));
  EXPECT_EQ(result->layer_bytes_per_token, result->bytes_per_token - 2 * 4096 * 256);  // the tied head, bf16
  EXPECT_EQ(result->noisy, result->other_load > 0.03);
  EXPECT_FALSE(result->machine.processor.empty());
  EXPECT_GT(result->machine.memory_bytes, 0u);
}

TEST(Bench, ACostIsTheMedianOverPairsWithItsInterval) {
  std::vector<double> other, times;
  for (int i = 0; i < 200; ++i) {
    other.push_back(1.0 + (i % 7));                       // tokens differ, by far more than the settings do
    times.push_back(other.back() / (i % 2 ? 0.97 : 0.99));  // a third and a hundredth slower, half of them each
  }
  other[3] = 500;  // another program in between
  const Cost cost = paired_cost(other, times);
  EXPECT_NEAR(cost.share, 0.02, 0.0101);
  EXPECT_GE(*cost.low, 0.01 - 1e-12);
  EXPECT_LE(*cost.high, 0.03 + 1e-12);
  EXPECT_LT(*cost.low, *cost.high);
  EXPECT_NEAR(paired_cost({2, 3, 4}, {4, 6, 8}).share, 0.5, 1e-12);
}

TEST(Bench, MeasuresWhatARecipeCosts) {
  Opened demo;
  Recipe more;  // experts a token than the model takes: its records are larger
  more.layers.resize(demo.checkpoint.plan.moe_layers.size());
  for (LayerRecipe& layer : more.layers) layer.k = 9;
  const auto result = bench(demo.checkpoint, *demo.backend, {.prompt_tokens = 8, .new_tokens = 5, .repeat = 1, .threads = 1, .edited = more});
  ASSERT_TRUE(result) << result.error().message();
  ASSERT_TRUE(result->edited);
  EXPECT_EQ(result->edited->level, "edited");
  EXPECT_GT(result->edited->tokens_per_s.min, 0);
  EXPECT_EQ(result->capture.size(), 3u);
}

TEST(Bench, RefusesMoreTokensThanTheContext) {
  Opened demo;
  const auto refused = bench(demo.checkpoint, *demo.backend, {.prompt_tokens = 2000, .new_tokens = 49});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
}

TEST(Bench, CanBeStopped) {
  Opened demo;
  Task task;
  task.cancel();
  const auto stopped = bench(demo.checkpoint, *demo.backend, {.prompt_tokens = 4, .new_tokens = 4, .repeat = 1}, &task);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace switchyard
