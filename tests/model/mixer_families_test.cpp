// Families with mixers of their own, on the goldens of tests/goldens: what their plans say and which configs they
// refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/checkpoint.h"
#include "engine/model/families/families.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

std::string folder(const std::string& golden) {
  return SWITCHYARD_SOURCE_DIR "/tests/goldens/" + golden;
}

Checkpoint opened(const std::string& golden) {
  auto checkpoint = open_checkpoint(folder(golden));
  EXPECT_TRUE(checkpoint) << checkpoint.error().message();
  return std::move(checkpoint).value_or(Checkpoint{});
}

// What the golden says when one key of its config is another.
std::string refusal(const std::string& golden, const std::string& key, const Json& value) {
  const Checkpoint checkpoint = opened(golden);
  Json config = *parse_json(file_content(folder(golden) + "/config.json"), "config.json");
  config[key] = value;
  const auto plan = plan_model(JsonView(config, "config.json"), checkpoint.tensors, checkpoint.shards);
  return plan ? "accepted" : plan.error().message();
}

TEST(MixerFamilies, RefuseWhatTheyDoNotCompute) {
  struct Row {
    std::string golden, key;
    Json value;
    std::string what;
  };
  const std::vector<Row> rows = {
      {"deepseek_v2", "topk_method", "noaux_tc", "supported are greedy and group_limited_greedy"},
      {"deepseek_v2", "scoring_func", "sigmoid", "supported is softmax"},
      {"deepseek_v2", "mlp_bias", true, "mlp_bias = true, which is not supported"},
      {"deepseek_v2", "num_key_value_heads", 1, "latent attention needs num_attention_heads"},
      {"deepseek_v3", "scoring_func", "softmax", "supported is sigmoid"},
      {"deepseek_v3", "n_group", 3, "cannot be done"},
      {"deepseek_v3", "topk_group", 99, "cannot be done"},
      {"jamba", "hidden_act", "gelu", "supported is silu"},
      {"jamba", "attn_layer_offset", 77, "needs less than attn_layer_period"},
      {"jamba", "mamba_dt_rank", 3, "has shape"},
      {"lfm2_moe", "conv_L_cache", 9, "conv.conv.weight"},
      {"minimax", "layer_types", Json::array({"full_attention"}), "layer_types"},
      {"qwen3_next", "hidden_act", "gelu", "supported is silu"},
      {"qwen3_next", "linear_num_value_heads", 3, "not a multiple of linear_num_key_heads"},
      {"longcat_flash", "zero_expert_type", "zero", "supported is identity"},
      {"longcat_flash", "zero_expert_num", 1, "has shape"},
      {"jetmoe", "activation_function", "xielu", "activation_function = \"xielu\""},
      {"doge", "is_moe", false, "without a layer of experts"},
      {"doge", "num_experts", 4, "has shape"},
  };
  for (const Row& row : rows)
    EXPECT_THAT(refusal(row.golden, row.key, row.value), HasSubstr(row.what)) << row.golden << " " << row.key;
}

TEST(MixerFamilies, DeepseekReadsBothQueryFormsAndKeepsItsLatentEps) {
  const ModelPlan plan = opened("deepseek_v2").plan, lite = opened("deepseek_v2_lite").plan;
  EXPECT_TRUE(plan.layers[0].get<LatentAttentionSpec>().q_a);
  const auto& attention = lite.layers[0].get<LatentAttentionSpec>();
  EXPECT_FALSE(attention.q_a);
  EXPECT_EQ(attention.q.rows, attention.heads * (attention.nope_dim + attention.rope_dim));
  EXPECT_EQ(attention.kv_a.rows, attention.kv_rank + attention.rope_dim);
  EXPECT_FLOAT_EQ(attention.kv_a_norm.eps, 1e-6f);  // families.md 1.5: fixed
}

TEST(MixerFamilies, JetmoeHasTwoRoutersALayer) {
  const ModelPlan plan = opened("jetmoe").plan;
  ASSERT_EQ(plan.rows.size(), 2 * plan.layers.size());
  EXPECT_EQ(plan.row_name(2), "layer 1 attention");
  EXPECT_EQ(plan.row_name(3), "layer 1");
  EXPECT_THAT(plan.moe_layers, testing::ElementsAre(0, 0, 1, 1));
  EXPECT_FLOAT_EQ(plan.layers[0].sublayers[0].norm.eps, 1e-6f);  // families.md 1.11: fixed
}

TEST(MixerFamilies, LongcatDefersItsExpertsAndItsLastIdsAreIdentities) {
  const ModelPlan plan = opened("longcat_flash").plan;
  const auto& sublayers = plan.layers[0].sublayers;
  ASSERT_EQ(sublayers.size(), 5u);
  EXPECT_TRUE(sublayers[1].deferred);
  EXPECT_EQ(sublayers[1].norm.weight.name, sublayers[2].norm.weight.name);
  const auto& moe = std::get<MoeSpec>(sublayers[1].op);
  EXPECT_GT(moe.identity_experts, 0);
  EXPECT_EQ(int(moe.experts.size()) + moe.identity_experts, moe.router.experts);
}

TEST(MixerFamilies, SayWhichStateCannotBeCutAndWhichTokensAreCoupled) {
  for (const char* golden : {"jamba", "lfm2_moe", "qwen3_next", "minimax"})
    EXPECT_TRUE(opened(golden).plan.recurrent());
  for (const char* golden : {"deepseek_v3", "jetmoe", "longcat_flash", "doge"})
    EXPECT_FALSE(opened(golden).plan.recurrent()) << golden;
  EXPECT_TRUE(opened("doge").plan.couples_tokens());
  EXPECT_FALSE(opened("jamba").plan.couples_tokens());
}

}  // namespace
}  // namespace switchyard
