// Families whose experts are stored in other orders or whose config is nested: gpt_oss, phimoe, dbrx, llama4.
// On the checkpoints of tests/goldens: where each matrix stands, and what is refused. Their numbers: tests/families.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/model/checkpoint.h"
#include "engine/model/families/families.h"
#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

struct Golden {
  Checkpoint checkpoint;
  Json config;

  explicit Golden(const std::string& name) {
    const std::string folder = SWITCHYARD_SOURCE_DIR "/tests/goldens/" + name;
    auto opened = open_checkpoint(folder);
    EXPECT_TRUE(opened) << opened.error().message();
    if (opened) checkpoint = *std::move(opened);
    config = *parse_json(file_content(folder + "/config.json"), name);
  }
  const ModelPlan& plan() const { return checkpoint.plan; }
  Result<ModelPlan> planned() const {
    return plan_model(JsonView(config, "config.json"), checkpoint.tensors, checkpoint.shards);
  }
  std::string refusal() const {
    const auto plan = planned();
    return plan ? "accepted" : plan.error().message();
  }
};

// gate_up_proj is [E, H, 2 I] with gate and up columns in turn, down_proj [E, I, H] (families.md 1.7).
TEST(GptOss, FindsItsTransposedInterleavedExperts) {
  const Golden golden("gpt_oss");
  const MoeSpec& moe = golden.plan().moe(1);
  const int64_t hidden = golden.plan().hidden, width = moe.expert.width;
  EXPECT_EQ(moe.expert.kind, FfnKind::kGluOss);
  EXPECT_EQ(moe.expert.limit, 7.0f);
  EXPECT_EQ(moe.expert.alpha, 1.702f);
  const FfnWeights& third = moe.experts[3];
  EXPECT_EQ(third.gate.element_offset, 3 * hidden * 2 * width);
  EXPECT_EQ(third.up.element_offset, third.gate.element_offset + 1);
  EXPECT_EQ(third.up.row_stride, 2);
  EXPECT_EQ(third.up.col_stride, 2 * width);
  EXPECT_EQ(third.down.row_stride, 1);
  EXPECT_EQ(third.down.col_stride, hidden);
  EXPECT_EQ(third.up_bias.element_offset, 3 * 2 * width + 1);
  EXPECT_EQ(third.up_bias.col_stride, 2);
  EXPECT_EQ(golden.plan().layers[0].get<AttentionSpec>().sliding_window, 8);
  EXPECT_EQ(golden.plan().layers[1].get<AttentionSpec>().sliding_window, 0);
}

TEST(GptOss, RefusesALayerTypeItDoesNotHave) {
  Golden golden("gpt_oss");
  golden.config["layer_types"][0] = "chunked_attention";
  EXPECT_THAT(golden.refusal(), HasSubstr("layer_types with \"chunked_attention\""));
}

TEST(Phimoe, TakesTwoExpertsWhateverTheConfigSays) {
  Golden golden("phimoe");
  golden.config["num_experts_per_tok"] = 1;
  const auto plan = golden.planned();
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->routed(0).router.score, ScoreFn::kSparseMixer);
  EXPECT_EQ(plan->routed(0).router.experts_per_token, 2);
  EXPECT_EQ(plan->final_norm.kind, NormKind::kLayerNorm);
  EXPECT_TRUE(plan->lm_head_bias);
}

// families.md 1.8: short_mscale and long_mscale stand in place of longrope's attention factor.
TEST(Phimoe, HasAMagnitudeOfItsOwnForShortAndLongSequences) {
  Golden golden("phimoe");
  const int pairs = golden.plan().layers[0].get<AttentionSpec>().head_dim / 2;
  golden.config.erase("rope_parameters");
  golden.config["rope_scaling"] = {{"type", "longrope"},
                                   {"short_factor", std::vector<double>(size_t(pairs), 1.0)},
                                   {"long_factor", std::vector<double>(size_t(pairs), 2.0)},
                                   {"short_mscale", 1.25},
                                   {"long_mscale", 1.5},
                                   {"original_max_position_embeddings", 32}};
  const auto plan = golden.planned();
  ASSERT_TRUE(plan) << plan.error().message();
  const RopeSpec& rope = plan->layers[0].get<AttentionSpec>().rope;
  EXPECT_EQ(rope.attention_factor, 1.25f);
  EXPECT_EQ(rope.long_attention_factor, 1.5f);
  EXPECT_EQ(rope.original, 32);
  golden.config["rope_scaling"].erase("long_mscale");
  EXPECT_THAT(golden.refusal(), HasSubstr("long_mscale"));
}

TEST(Phimoe, RefusesSlimMoe) {
  Golden golden("phimoe");
  golden.config["auto_map"] = {{"AutoModelForCausalLM", "modeling_slimmoe.PhiMoEForCausalLM"}};
  EXPECT_THAT(golden.refusal(), HasSubstr("SlimMoE"));
  golden.config["auto_map"] = {{"AutoModelForCausalLM", "modeling_phimoe.PhiMoEForCausalLM"}};
  EXPECT_EQ(golden.refusal(), "accepted");
}

// w1, v1 and w2 are [E F, H]; w2 is used untransposed, so the down projection is its transpose (families.md 1.10).
TEST(Dbrx, CutsItsFlatMatrices) {
  const Golden golden("dbrx");
  const ModelPlan& plan = golden.plan();
  const MoeSpec& moe = plan.moe(0);
  const int64_t hidden = plan.hidden, width = moe.expert.width;
  const FfnWeights& second = moe.experts[2];
  EXPECT_THAT(second.gate.name, testing::EndsWith("experts.mlp.w1"));
  EXPECT_THAT(second.up.name, testing::EndsWith("experts.mlp.v1"));
  EXPECT_EQ(second.down.element_offset, 2 * width * hidden);
  EXPECT_EQ(second.down.rows, hidden);
  EXPECT_EQ(second.down.row_stride, 1);
  EXPECT_EQ(second.down.col_stride, hidden);
  const auto& attention = plan.layers[0].get<AttentionSpec>();
  EXPECT_EQ(attention.k.element_offset, hidden * hidden);
  EXPECT_EQ(attention.v.element_offset, (hidden + attention.kv_heads * attention.head_dim) * hidden);
}

// Absent: 1; null: not renormalised.
TEST(Dbrx, TellsNoRenormalisationFromAbsent) {
  Golden golden("dbrx");
  golden.config["ffn_config"]["moe_normalize_expert_weights"] = nullptr;
  EXPECT_EQ(golden.planned()->routed(0).router.renorm, Renorm::kNone);
  golden.config["ffn_config"].erase("moe_normalize_expert_weights");
  EXPECT_EQ(golden.planned()->routed(0).router.renorm, Renorm::kPNorm);
  EXPECT_EQ(golden.planned()->routed(0).router.renorm_floor, 1.0f);
  golden.config["ffn_config"]["moe_normalize_expert_weights"] = 0;
  EXPECT_THAT(golden.refusal(), HasSubstr("moe_normalize_expert_weights = 0"));
}

// families.md 1.10: the nested theta counts, whatever the top level says.
TEST(Dbrx, ReadsTheNestedTheta) {
  Golden golden("dbrx");
  golden.config["attn_config"]["rope_theta"] = 500000.0;
  const auto plan = golden.planned();
  ASSERT_TRUE(plan) << plan.error().message();
  const RopeSpec& rope = plan->layers[0].get<AttentionSpec>().rope;
  EXPECT_FLOAT_EQ(rope.inv_freq[1], 1.0f / std::pow(500000.0f, 2.0f / float(rope.dims)));
  golden.config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2}};
  EXPECT_THAT(golden.refusal(), HasSubstr("rope_parameters of another type than default"));
  golden.config.erase("rope_parameters");
  golden.config["tie_word_embeddings"] = true;
  EXPECT_THAT(golden.refusal(), HasSubstr("tie_word_embeddings"));
}

// Of the wrapper only the language model is read; its experts are [E, H, 2 I], gate half then up half.
TEST(Llama4, OpensInsideTheWrapper) {
  const Golden golden("llama4");
  const ModelPlan& plan = golden.plan();
  EXPECT_EQ(plan.family, "llama4");
  const MoeSpec& moe = plan.moe(0);
  EXPECT_THAT(moe.router_weight.name, testing::StartsWith("language_model.model.layers."));
  EXPECT_EQ(moe.experts[0].up.element_offset, moe.expert.width);
  EXPECT_EQ(moe.experts[0].up.row_stride, 1);
  EXPECT_EQ(moe.experts[0].up.col_stride, 2 * moe.expert.width);
  EXPECT_EQ(moe.router.apply, ApplyTo::kInput);
  EXPECT_TRUE(moe.shared);
}

// Rope, L2 norm and chunks in all layers but every fourth, which has the query temperature (families.md 1.15).
TEST(Llama4, HasEveryFourthLayerWithoutRope) {
  Golden golden("llama4_text");
  golden.config["no_rope_layers"] = Json::array();  // empty counts as absent, as published configs write it
  golden.config.erase("layer_types");
  const auto plan = golden.planned();
  ASSERT_TRUE(plan) << plan.error().message();
  for (size_t n = 0; n < plan->layers.size(); ++n) {
    const auto& attention = plan->layers[n].get<AttentionSpec>();
    const bool rope = (n + 1) % 4 != 0;
    EXPECT_EQ(attention.rope.kind, rope ? RopeKind::kInterleaved : RopeKind::kNone) << n;
    EXPECT_EQ(attention.qk_norm, rope ? QkNorm::kL2PostRope : QkNorm::kNone) << n;
    EXPECT_EQ(attention.chunk > 0, rope) << n;
    EXPECT_EQ(attention.temperature_floor > 0, !rope) << n;
  }
  golden.config["no_rope_layers"] = {1};
  EXPECT_THAT(golden.refusal(), HasSubstr("has 1 values of no_rope_layers"));
}

}  // namespace
}  // namespace switchyard
