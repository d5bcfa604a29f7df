// The table of families.
#include "engine/model/families/families.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

constexpr std::array kFamilies{
    Family{"aria", plan_aria_text, Oracle::kTransformers, true},
    Family{"aria_text", plan_aria_text},
    Family{"bailing_moe", plan_bailing_moe, Oracle::kIndependent},
    Family{"bailing_moe_v2", plan_bailing_moe_v2, Oracle::kIndependent},
    Family{"dbrx", plan_dbrx},
    Family{"deepseek_v2", plan_deepseek_v2},
    Family{"deepseek_v3", plan_deepseek_v3},
    Family{"doge", plan_doge},
    Family{"dots1", plan_dots1},
    Family{"ernie4_5_moe", plan_ernie4_5_moe},
    Family{"flex_olmo", plan_flex_olmo},
    Family{"glm4_moe", plan_glm4_moe},
    Family{"gpt_oss", plan_gpt_oss},
    Family{"granitemoe", plan_granitemoe},
    Family{"granitemoeshared", plan_granitemoeshared},
    Family{"hunyuan_v1_moe", plan_hunyuan_v1_moe},
    Family{"jamba", plan_jamba},
    Family{"jetmoe", plan_jetmoe},
    Family{"lfm2_moe", plan_lfm2_moe},
    Family{"llama4", plan_llama4_text, Oracle::kTransformers, true},
    Family{"llama4_text", plan_llama4_text},
    Family{"longcat_flash", plan_longcat_flash},
    Family{"minimax", plan_minimax},
    Family{"minimax_m2", plan_minimax_m2},
    Family{"mixtral", plan_mixtral},
    Family{"nllb-moe", plan_nllb_moe},
    Family{"olmoe", plan_olmoe},
    Family{"openmoe", plan_openmoe, Oracle::kIndependent},
    Family{"phimoe", plan_phimoe, Oracle::kTransformers, false,
           "beyond the original context short_factor stays, as in transformers 5; remote SlimMoE code is refused"},
    Family{"qwen2_moe", plan_qwen2_moe},
    Family{"qwen3_moe", plan_qwen3_moe},
    Family{"qwen3_next", plan_qwen3_next},
    Family{"switch_transformers", plan_switch_transformers},
};

}  // namespace

std::span<const Family> families() {
  return kFamilies;
}

std::string supported_families() {
  std::string list;
  for (const Family& family : kFamilies) list += (list.empty() ? "" : ", ") + std::string(family.model_type);
  return list;
}

Result<Family> family_of(const JsonView& config) {
  SY_TRY(std::string model_type, config.text("model_type"));
  if (model_type == "llama" && is_openmoe(config)) model_type = "openmoe";
  const auto family =
      std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& f) { return f.model_type == model_type; });
  if (family == kFamilies.end())
    return config.fail(fmt::format("has model_type {}, which is not supported.", quote(model_type)),
                       fmt::format("Supported families: {}.", supported_families()));
  SY_CHECK(read_quantisation(config));
  return *family;
}

Result<ModelPlan> plan_model(const JsonView& config, std::span<const TensorInfo> tensors,
                             std::span<const std::string> shards) {
  SY_TRY(const Family family, family_of(config));
  SY_TRY(const JsonView own, family.nested ? config.at("text_config") : Result<JsonView>(config));
  SY_TRY(const Quantisation quantisation, read_quantisation(config));
  PlanBuilder builder(own, tensors, shards, quantisation);
  ModelPlan plan = family.plan(builder);
  if (!builder.failed() && plan.moe_layers.empty())
    builder.refuse_config("describes a model without a layer of experts.");
  if (builder.failed()) return tl::unexpected<Error>(*builder.error());
  plan.family = family.model_type;
  return plan;
}

}  // namespace switchyard
