// Opening the demo checkpoint and its weights.
#include "engine/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace switchyard {
namespace {

float bf16(const std::byte* at) {
  uint16_t half;
  std::memcpy(&half, at, 2);
  const uint32_t word = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

// Numbers: assets/models/demo/config.json and README.md.
TEST(Checkpoint, OpensTheDemoWithAFullPlan) {
  const auto demo = open_checkpoint("demo");
  ASSERT_TRUE(demo) << demo.error().message();
  EXPECT_EQ(demo->name, "demo");
  const ModelPlan& plan = demo->plan;
  EXPECT_EQ(plan.family, "qwen3_moe");
  EXPECT_EQ(plan.dtype, DType::kBF16);
  EXPECT_EQ(plan.layers.size(), 8u);
  EXPECT_THAT(plan.moe_layers, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(plan.hidden, 256);
  EXPECT_EQ(plan.vocab, 4096);
  EXPECT_EQ(plan.context, 2048);
  EXPECT_TRUE(plan.tied);
  EXPECT_EQ(plan.lm_head.name, "model.embed_tokens.weight");
  EXPECT_THAT(plan.eos_ids, testing::ElementsAre(0));
  EXPECT_EQ(plan.bos_id, 0);
  EXPECT_EQ(plan.max_experts(), 32);
  EXPECT_EQ(plan.max_experts_per_token(), 4);
  const MoeSpec& moe = plan.moe(7);
  EXPECT_EQ(moe.router.renorm, Renorm::kSum);
  EXPECT_EQ(moe.expert.width, 64);
  ASSERT_EQ(moe.experts.size(), 32u);
  EXPECT_EQ(moe.experts[31].down.name, "model.layers.7.mlp.experts.31.down_proj.weight");
  const AttentionSpec& attention = plan.layers[3].get<AttentionSpec>();
  EXPECT_EQ(attention.qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(attention.q.rows, 256);
  EXPECT_EQ(attention.k.rows, 64);
  EXPECT_EQ(attention.sliding_window, 0);
  EXPECT_FLOAT_EQ(attention.scale, 1 / std::sqrt(32.0f));
  // Every tensor of the file once: the file holds nothing else, so 2 bytes each is its weight.
  EXPECT_EQ(plan.parameters() * 2, static_cast<int64_t>(demo->weight_bytes()));
  // 28 of 32 experts of 3 x 64 x 256 rest in each of 8 layers.
  EXPECT_EQ(plan.parameters() - plan.active_parameters(), 8 * 28 * 3 * 64 * 256);
  EXPECT_TRUE(demo->sampling.do_sample);
  EXPECT_FLOAT_EQ(demo->sampling.temperature, 0.8f);
  EXPECT_FLOAT_EQ(demo->sampling.top_p, 0.95f);
  EXPECT_EQ(demo->sampling.top_k, 0);
}

TEST(Checkpoint, ViewsGiveTheStoredNumbers) {
  const auto demo = open_checkpoint("demo");
  ASSERT_TRUE(demo) << demo.error().message();
  const auto weights = WeightStore::open(*demo);
  ASSERT_TRUE(weights) << weights.error().message();
  EXPECT_EQ((*weights)->bytes(), demo->weight_bytes());
  const TensorInfo* info = demo->find("model.norm.weight");
  ASSERT_NE(info, nullptr);
  const auto norm = (*weights)->view(demo->plan.final_norm.weight);
  ASSERT_TRUE(norm) << norm.error().message();
  EXPECT_EQ(norm->cols, 256);
  for (int i = 0; i < 256; ++i) {
    const float value = bf16(norm->data + 2 * i);
    EXPECT_TRUE(value > 0.01f && value < 100) << value;  // norm weights of a trained model
  }
  EXPECT_TRUE((*weights)->check_unchanged());
}

}  // namespace
}  // namespace switchyard
