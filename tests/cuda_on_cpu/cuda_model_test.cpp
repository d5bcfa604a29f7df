// Whole models through the kernels: the demo gives the tokens and routes of transformers and of the cpu backend, in
// decode and in prefill; checkpoints of every family that the backend runs give the cpu backend's numbers.
#include <fstream>
#include <iostream>

#include <nlohmann/json.hpp>

#include "engine/backend/cuda/model.h"
#include "tests/cuda_on_cpu/model_on_device.h"

namespace switchyard::cuda::testing {
namespace {

TokenId largest(const float* logits, int vocab) {
  return TokenId(std::max_element(logits, logits + vocab) - logits);
}

const OpenModel& demo() {
  static const OpenModel model = OpenModel::open("demo");
  return model;
}
nlohmann::json expected() {
  nlohmann::json out;
  std::ifstream(SWITCHYARD_SOURCE_DIR "/assets/models/demo/expected.json") >> out;
  return out;
}

// Prompts of the demo by prefill, then greedily token by token.
TEST(DemoOnDevice, GivesTheTokensLogitsAndRoutesOfTransformers) {
  const auto device = demo().device();
  const int vocab = demo().plan().vocab;
  const auto all = expected();
  int prompts = 0;
  for (const auto& [name, prompt] : all["prompts"].items()) {
    if (++prompts > 2) break;
    SCOPED_TRACE(name);
    const std::vector<TokenId> ids = prompt["ids"];
    const auto cache = device->new_cache(256);
    const Pass pass = demo().forward(*device, *cache, ids, {}, CaptureLevel::kLogits, LogitRows::kLast);
    const float* last = pass.logits.data();
    for (int i = 0; i < vocab; ++i) ASSERT_NEAR(last[i], prompt["last_logits"][size_t(i)].get<float>(), 2e-3);
    for (size_t row = 0; row < demo().plan().moe_layers.size(); ++row)
      for (size_t t = 0; t < ids.size(); ++t) {
        const auto used = pass.frames[t].used_ids(int(row));
        ASSERT_EQ(std::vector<int>(used.begin(), used.end()),
                  prompt["routing"][row]["experts"][t].get<std::vector<int>>())
            << "row " << row << " token " << t;
      }
    const std::vector<TokenId> greedy = prompt["greedy_ids"];
    std::vector<TokenId> generated{largest(last, vocab)};
    while (generated.size() < std::min<size_t>(greedy.size(), 5)) {
      const Pass one = demo().forward(*device, *cache, {&generated.back(), 1});
      generated.push_back(largest(one.logits.data(), vocab));
    }
    EXPECT_TRUE(std::equal(generated.begin(), generated.end(), greedy.begin()));
  }
}

TEST(DemoOnDevice, DecodeAndPrefillDecideAsTheCpuBackend) {
  std::vector<TokenId> ids = expected()["prompts"].begin().value()["ids"];
  ids.resize(4);
  const auto device = demo().device();
  const auto on_cpu = demo().cpu->new_cache(256), decoded = device->new_cache(256), filled = device->new_cache(256);
  const Pass cpu = demo().forward(*demo().cpu, *on_cpu, ids);
  for (const auto& [name, pass] : {std::pair("decode", demo().one_by_one(*device, *decoded, ids)),
                                   {"prefill", demo().forward(*device, *filled, ids)}}) {
    const Difference difference = compare(pass, cpu);
    std::cout << name << ": " << difference << "\n";
    EXPECT_EQ(difference.sets, 0) << name;
    EXPECT_LT(difference.logits, 1e-4) << name;
    EXPECT_LT(difference.weights, 1e-5) << name;
  }
}

// Of one model a family and a way of storing it, what differs between layers.
TEST(FamiliesOnDevice, GiveTheNumbersOfTheCpuBackend) {
  int run = 0;
  for (const std::string name : {"mixtral",
                                 "mixtral_window",
                                 "mixtral_f16",
                                 "olmoe",
                                 "olmoe_bf16",
                                 "olmoe_norm",
                                 "qwen2_moe",
                                 "qwen2_moe_step",
                                 "qwen3_moe_packed",
                                 "qwen3_moe_yarn",
                                 "deepseek_v2_lite",
                                 "deepseek_v2_groups",
                                 "deepseek_v3",
                                 "deepseek_v3_yarn",
                                 "gpt_oss",
                                 "gpt_oss_bf16",
                                 "dbrx",
                                 "phimoe",
                                 "glm4_moe_groups",
                                 "dots1",
                                 "ernie4_5_moe_bias",
                                 "hunyuan_v1_moe",
                                 "minimax_m2",
                                 "llama4_text",
                                 "granitemoe",
                                 "granitemoeshared",
                                 "bailing_moe",
                                 "bailing_moe_v2",
                                 "flex_olmo",
                                 "aria_text"}) {
    SCOPED_TRACE(name);
    const OpenModel model = OpenModel::open(name);
    if (const std::string missing = missing_on_cuda(model.plan()); !missing.empty()) {
      std::cout << name << ": not run, " << missing << "\n";
      continue;
    }
    ++run;
    std::vector<TokenId> ids;
    for (int i = 0; i < 7; ++i) ids.push_back(TokenId((i * 37 + 5) % model.plan().vocab));
    const auto device = model.device({}, 64);
    const auto on_cpu = model.cpu->new_cache(64), decoded = device->new_cache(64), filled = device->new_cache(64);
    const Pass cpu = model.forward(*model.cpu, *on_cpu, ids);
    for (const auto& [way, pass] : {std::pair("decode", model.one_by_one(*device, *decoded, ids)),
                                    {"prefill", model.forward(*device, *filled, ids)}}) {
      const Difference difference = compare(pass, cpu);
      std::cout << name << " " << way << ": " << difference << "\n";
      EXPECT_EQ(difference.sets, 0);
      EXPECT_LT(difference.logits, 2e-4);
      EXPECT_LT(difference.weights, 1e-5);
    }
  }
  EXPECT_GE(run, 20);
}

}  // namespace
}  // namespace switchyard::cuda::testing
