// Families against the checkpoints that transformers saves (tests/data/families, made by make_family_fixtures.py):
// each in both layouts and both spellings of config.json.
#include "engine/model/families/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<std::string> kShard{"model.safetensors"};

struct Fixture {
  Json json;

  explicit Fixture(const std::string& name)
      : json(*parse_json(file_content(SWITCHYARD_SOURCE_DIR "/tests/data/families/" + name + ".json"), name)) {}

  std::vector<TensorInfo> tensors(const std::string& layout = "tensors") const {
    std::vector<TensorInfo> list;
    for (const auto& [name, entry] : json[layout].items())
      list.push_back({.name = name,
                      .dtype = *parse_dtype(entry[0].get<std::string>()),
                      .shape = entry[1].get<std::vector<int64_t>>()});
    return list;
  }
  Json config(const std::string& spelling = "config_v4") const { return json[spelling]; }
};

Result<ModelPlan> plan_of(const Json& config, const std::vector<TensorInfo>& tensors) {
  return plan_model(JsonView(config, "config.json"), tensors, kShard);
}

std::string refusal(const Json& config, const std::vector<TensorInfo>& tensors) {
  const auto plan = plan_of(config, tensors);
  return plan ? "accepted" : plan.error().message();
}

ModelPlan planned(const std::string& name) {
  const Fixture fixture(name);
  const auto plan = plan_of(fixture.config(), fixture.tensors());
  EXPECT_TRUE(plan) << plan.error().message();
  return plan.value_or(ModelPlan{});
}

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  Fixture fixture_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Families, EveryFamily,
                         testing::Values("mixtral", "mixtral_window", "olmoe", "olmoe_bias", "qwen3_moe",
                                         "qwen3_moe_step"),
                         [](const auto& info) { return info.param; });

TEST_P(EveryFamily, OpensInBothLayoutsAndSpellingsWithEveryParameterCounted) {
  for (const char* layout : {"tensors", "packed"})
    for (const char* spelling : {"config_v4", "config_v5"}) {
      const auto plan = plan_of(fixture_.config(spelling), fixture_.tensors(layout));
      ASSERT_TRUE(plan) << layout << ", " << spelling << ": " << plan.error().message();
      EXPECT_EQ(plan->parameters(), fixture_.json["parameters"].get<int64_t>()) << layout << ", " << spelling;
      EXPECT_EQ(plan->dtype, fixture_.tensors(layout)[0].dtype);
    }
}

TEST_P(EveryFamily, PackedExpertsStandWhereTheirNamesSay) {
  const auto separate = plan_of(fixture_.config(), fixture_.tensors());
  const auto packed = plan_of(fixture_.config(), fixture_.tensors("packed"));
  ASSERT_TRUE(separate && packed);
  ASSERT_EQ(separate->moe_layers, packed->moe_layers);
  for (size_t row = 0; row < packed->moe_layers.size(); ++row) {
    const MoeSpec& a = separate->moe(static_cast<int>(row));
    const MoeSpec& b = packed->moe(static_cast<int>(row));
    EXPECT_EQ(a.router, b.router);
    ASSERT_EQ(a.experts.size(), b.experts.size());
    const int64_t matrix = a.experts[0].gate.elements();
    for (size_t e = 0; e < b.experts.size(); ++e) {
      // families.md 1.0: gate_up_proj [E, 2I, H] = rows gate then up; down_proj [E, H, I].
      EXPECT_EQ(b.experts[e].gate.element_offset, static_cast<int64_t>(2 * e) * matrix);
      EXPECT_EQ(b.experts[e].up.element_offset, static_cast<int64_t>(2 * e + 1) * matrix);
      EXPECT_EQ(b.experts[e].down.element_offset, static_cast<int64_t>(e) * matrix);
      EXPECT_EQ(b.experts[e].gate.rows, a.experts[e].gate.rows);
      EXPECT_EQ(b.experts[e].down.cols, a.experts[e].down.cols);
      EXPECT_EQ(a.experts[e].gate.element_offset, 0);
    }
    EXPECT_THAT(b.experts[0].gate.name, testing::EndsWith(".mlp.experts.gate_up_proj"));
  }
}

TEST_P(EveryFamily, RefusesEachMissingTensorByName) {
  for (const char* layout : {"tensors", "packed"})
    for (const TensorInfo& missing : fixture_.tensors(layout)) {
      auto rest = fixture_.tensors(layout);
      std::erase_if(rest, [&](const TensorInfo& tensor) { return tensor.name == missing.name; });
      const std::string message = refusal(fixture_.config(), rest);
      if (missing.name.ends_with("experts.gate_up_proj")) {  // then the original names are looked for
        EXPECT_THAT(message, HasSubstr("is missing"));
        continue;
      }
      EXPECT_THAT(message, AllOf(HasSubstr("model.safetensors: tensor \"" + missing.name + "\" is missing"),
                                 HasSubstr("with shape " + shape_text(missing.shape))))
          << layout;
    }
}

TEST_P(EveryFamily, RefusesEachWrongShapeWithFoundAndNeeded) {
  for (const char* layout : {"tensors", "packed"})
    for (size_t i = 0; i < fixture_.tensors(layout).size(); ++i)
      for (const size_t axis : {size_t{0}, fixture_.tensors(layout)[i].shape.size() - 1}) {
        auto tensors = fixture_.tensors(layout);
        const std::string needed = shape_text(tensors[i].shape);
        tensors[i].shape[axis] += 1;
        EXPECT_THAT(refusal(fixture_.config(), tensors),
                    AllOf(HasSubstr("tensor \"" + tensors[i].name + "\" has shape " + shape_text(tensors[i].shape)),
                          HasSubstr("needs " + needed)));
      }
}

TEST_P(EveryFamily, RefusesQuantisedTensorsByDtype) {
  auto tensors = fixture_.tensors();
  tensors[1].dtype = DType::kF8E4M3;
  EXPECT_THAT(
      refusal(fixture_.config(), tensors),
      HasSubstr("is stored as F8_E4M3, supported are F32, BF16 and F16. Quantised weights need a quantization_config"));
}

TEST_P(EveryFamily, RefusesNonsenseInEachNumericKey) {
  const std::vector<int64_t> boundaries{0,
                                        -1,
                                        (1LL << 31) - 1,
                                        1LL << 31,
                                        (1LL << 31) + 1,
                                        (1LL << 32) - 1,
                                        1LL << 32,
                                        (1LL << 32) + 1,
                                        (1LL << 53) - 1,
                                        (1LL << 53) + 1,
                                        INT64_MAX,
                                        INT64_MIN};
  int tried = 0;
  for (const std::string key :
       {"hidden_size", "vocab_size", "max_position_embeddings", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "num_experts_per_tok", "num_experts", "num_local_experts", "intermediate_size",
        "moe_intermediate_size", "head_dim", "decoder_sparse_step"}) {
    if (!fixture_.config().contains(key) || fixture_.config()[key].is_null()) continue;
    for (const int64_t value : boundaries) {
      Json config = fixture_.config();
      config[key] = value;
      EXPECT_THAT(refusal(config, fixture_.tensors()),
                  AllOf(HasSubstr("config.json: /" + key + " is "), HasSubstr("needs 1 to ")))
          << value;
      ++tried;
    }
    for (const Json& value : {Json(UINT64_MAX), Json(1.5), Json("8"), Json(true), Json::array({8})}) {
      Json config = fixture_.config();
      config[key] = value;
      EXPECT_THAT(refusal(config, fixture_.tensors()), HasSubstr("config.json: /" + key + " is ")) << value;
    }
  }
  EXPECT_GE(tried, 9 * 12);
}

TEST(Mixtral, Plan) {
  const ModelPlan plan = planned("mixtral");
  EXPECT_THAT(plan.moe_layers, ElementsAre(0, 1));
  const RouterSpec& router = plan.routed(1).router;
  EXPECT_EQ(router.experts, 8);
  EXPECT_EQ(router.experts_per_token, 2);
  EXPECT_EQ(router.score, ScoreFn::kSoftmaxAll);
  EXPECT_EQ(router.renorm, Renorm::kSum);
  EXPECT_EQ(plan.routed(1).router_weight.name, "model.layers.1.block_sparse_moe.gate.weight");
  // w1 = gate, w3 = up, w2 = down (families.md 1.0, layout B).
  EXPECT_EQ(plan.moe(0).experts[7].gate.name, "model.layers.0.block_sparse_moe.experts.7.w1.weight");
  EXPECT_EQ(plan.moe(0).experts[7].up.name, "model.layers.0.block_sparse_moe.experts.7.w3.weight");
  EXPECT_EQ(plan.moe(0).experts[7].down.name, "model.layers.0.block_sparse_moe.experts.7.w2.weight");
  const AttentionSpec& attention = plan.layers[0].get<AttentionSpec>();
  EXPECT_EQ(attention.qk_norm, QkNorm::kNone);
  EXPECT_EQ(attention.head_dim, 16);  // head_dim null: 64 / 4
  EXPECT_EQ(attention.sliding_window, 0);
  EXPECT_FALSE(attention.q_bias);
  EXPECT_FLOAT_EQ(plan.final_norm.eps, 1e-5f);
  EXPECT_FALSE(plan.tied);
  EXPECT_EQ(plan.lm_head.name, "lm_head.weight");
  EXPECT_THAT(plan.eos_ids, ElementsAre(3));
  EXPECT_EQ(plan.bos_id, 2);
}

TEST(Mixtral, SlidingWindowAndExplicitHeadDim) {
  const ModelPlan plan = planned("mixtral_window");
  EXPECT_EQ(plan.layers[1].get<AttentionSpec>().sliding_window, 8);
  EXPECT_EQ(plan.layers[1].get<AttentionSpec>().head_dim, 32);
  EXPECT_EQ(plan.layers[1].get<AttentionSpec>().q.rows, 128);  // nh hd, not hidden
  EXPECT_EQ(plan.dtype, DType::kF16);
}

TEST(Olmoe, Plan) {
  const ModelPlan plan = planned("olmoe");
  EXPECT_EQ(plan.routed(0).router.renorm, Renorm::kSum);  // norm_topk_prob true
  EXPECT_EQ(plan.routed(0).router.experts_per_token, 3);
  const AttentionSpec& attention = plan.layers[0].get<AttentionSpec>();
  EXPECT_EQ(attention.qk_norm, QkNorm::kFullVector);
  EXPECT_EQ(attention.q_norm.weight.cols, 64);
  EXPECT_EQ(attention.k_norm.weight.cols, 32);
  EXPECT_FLOAT_EQ(attention.clip_qkv, 0.5f);
  EXPECT_FLOAT_EQ(attention.q_norm.eps, 1e-5f);
}

TEST(Olmoe, BiasesAndNoRenormalisation) {
  const ModelPlan plan = planned("olmoe_bias");
  EXPECT_EQ(plan.routed(0).router.renorm, Renorm::kNone);
  const AttentionSpec& attention = plan.layers[1].get<AttentionSpec>();
  EXPECT_EQ(attention.q_bias.name, "model.layers.1.self_attn.q_proj.bias");
  EXPECT_EQ(attention.v_bias.cols, 32);
  EXPECT_EQ(attention.o_bias.cols, 64);
  EXPECT_EQ(attention.clip_qkv, 0);
}

TEST(Qwen3Moe, DenseLayersByList) {
  const ModelPlan plan = planned("qwen3_moe");
  EXPECT_THAT(plan.moe_layers, ElementsAre(0, 2, 3));
  const auto& dense = plan.layers[1].get<FfnSpec>();
  EXPECT_EQ(dense.width, 48);
  EXPECT_EQ(dense.weights.up.name, "model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(plan.layers[0].get<AttentionSpec>().qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(plan.layers[0].get<AttentionSpec>().q_norm.weight.cols, 32);
  EXPECT_EQ(plan.routed(0).router.renorm, Renorm::kSum);
  EXPECT_THAT(plan.eos_ids, ElementsAre(3, 4));
  EXPECT_EQ(plan.layers[0].get<AttentionSpec>().sliding_window, 0);
}

TEST(Qwen3Moe, DenseLayersByStepWindowAndTie) {
  const ModelPlan plan = planned("qwen3_moe_step");
  EXPECT_THAT(plan.moe_layers, ElementsAre(1, 3));  // (n + 1) % 2 == 0
  EXPECT_EQ(plan.layers[2].get<AttentionSpec>().sliding_window, 16);
  EXPECT_TRUE(plan.tied);
  EXPECT_EQ(plan.lm_head.name, "model.embed_tokens.weight");
  EXPECT_EQ(plan.routed(0).router.renorm, Renorm::kNone);
}

TEST(Families, TheWindowNeedsItsFlag) {
  const Fixture fixture("qwen3_moe");
  Json config = fixture.config();
  config["sliding_window"] = 0;  // transformers 5 writes this where the flag is false
  EXPECT_EQ(plan_of(config, fixture.tensors())->layers[0].get<AttentionSpec>().sliding_window, 0);
}

TEST(Families, TiedIsWhatTheKeySaysElseTheAbsenceOfLmHead) {
  const Fixture fixture("mixtral");
  Json config = fixture.config();
  config.erase("tie_word_embeddings");
  EXPECT_FALSE(plan_of(config, fixture.tensors())->tied);
  auto without_head = fixture.tensors();
  std::erase_if(without_head, [](const TensorInfo& tensor) { return tensor.name == "lm_head.weight"; });
  EXPECT_TRUE(plan_of(config, without_head)->tied);
  config["tie_word_embeddings"] = false;
  EXPECT_THAT(refusal(config, without_head), HasSubstr("tensor \"lm_head.weight\" is missing"));
  config["tie_word_embeddings"] = true;
  EXPECT_TRUE(plan_of(config, fixture.tensors())->tied);
}

TEST(Families, TheExampleOfTheStyleGuide) {
  const Fixture fixture("qwen3_moe");
  Json config = fixture.config();
  config["num_experts"] = 6;
  EXPECT_EQ(refusal(config, fixture.tensors()),
            "model.safetensors: tensor \"model.layers.0.mlp.gate.weight\" has shape [8, 64], "
            "the config (num_experts = 6) needs [6, 64]. Is config.json from another revision?");
}

TEST(Families, ExtraTensorsAreTolerated) {
  const Fixture fixture("olmoe");
  auto tensors = fixture.tensors();
  tensors.push_back({.name = "mtp.layers.0.weight", .dtype = DType::kU8, .shape = {3}});
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  EXPECT_TRUE(plan_of(fixture.config(), tensors));
}

TEST(Families, AModelWithoutExpertsIsRefused) {
  const Fixture fixture("qwen3_moe");
  Json config = fixture.config();
  config["mlp_only_layers"] = {0, 1, 2, 3};
  auto tensors = fixture.tensors();
  for (const int n : {0, 2, 3})
    for (const TensorInfo& dense : fixture.tensors())
      if (const auto at = dense.name.find("layers.1.mlp."); at != std::string::npos) {
        TensorInfo copy = dense;
        copy.name.replace(at, 8, "layers." + std::to_string(n));
        tensors.push_back(copy);
      }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  EXPECT_EQ(refusal(config, tensors), "config.json: describes a model without a layer of experts.");
}

TEST(Families, RefusesWhatItDoesNotKnow) {
  const Fixture fixture("olmoe");
  Json config = fixture.config();
  config["model_type"] = "llama";
  EXPECT_EQ(
      refusal(config, fixture.tensors()),
      "config.json: has model_type \"llama\", which is not supported. Supported families: " + supported_families() + ".");
  config = fixture.config();
  config["quantization_config"] = {{"quant_method", "bitsandbytes"}};
  EXPECT_THAT(refusal(config, fixture.tensors()), HasSubstr("quant_method \"bitsandbytes\""));
  config = fixture.config();
  config["hidden_act"] = "xielu";
  EXPECT_THAT(refusal(config, fixture.tensors()), HasSubstr("hidden_act = \"xielu\""));
  config = fixture.config();
  config["num_experts_per_tok"] = 9;
  EXPECT_THAT(refusal(config, fixture.tensors()), HasSubstr("num_experts_per_tok = 9, more than its 8 experts"));
  config = fixture.config();
  config["num_hidden_layers"] = 1024;
  config["num_experts"] = 65535;
  EXPECT_THAT(refusal(config, fixture.tensors()), HasSubstr("the limit is 1000000 experts in all"));
}

}  // namespace
}  // namespace switchyard
