// The families that can be run, by the model_type of config.json. One file a family, data only.
// Adding one: write families/<name>.cpp, declare it here, add a row in families.cpp.
// Called while a checkpoint opens; any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/model/plan_builder.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

ModelPlan plan_aria_text(PlanBuilder& builder);
ModelPlan plan_bailing_moe(PlanBuilder& builder);
ModelPlan plan_bailing_moe_v2(PlanBuilder& builder);
ModelPlan plan_dbrx(PlanBuilder& builder);
ModelPlan plan_deepseek_v2(PlanBuilder& builder);
ModelPlan plan_deepseek_v3(PlanBuilder& builder);
ModelPlan plan_doge(PlanBuilder& builder);
ModelPlan plan_dots1(PlanBuilder& builder);
ModelPlan plan_ernie4_5_moe(PlanBuilder& builder);
ModelPlan plan_flex_olmo(PlanBuilder& builder);
ModelPlan plan_glm4_moe(PlanBuilder& builder);
ModelPlan plan_gpt_oss(PlanBuilder& builder);
ModelPlan plan_granitemoe(PlanBuilder& builder);
ModelPlan plan_granitemoeshared(PlanBuilder& builder);
ModelPlan plan_hunyuan_v1_moe(PlanBuilder& builder);
ModelPlan plan_jamba(PlanBuilder& builder);
ModelPlan plan_jetmoe(PlanBuilder& builder);
ModelPlan plan_lfm2_moe(PlanBuilder& builder);
ModelPlan plan_llama4_text(PlanBuilder& builder);
ModelPlan plan_longcat_flash(PlanBuilder& builder);
ModelPlan plan_minimax(PlanBuilder& builder);
ModelPlan plan_minimax_m2(PlanBuilder& builder);
ModelPlan plan_mixtral(PlanBuilder& builder);
ModelPlan plan_nllb_moe(PlanBuilder& builder);
ModelPlan plan_olmoe(PlanBuilder& builder);
ModelPlan plan_openmoe(PlanBuilder& builder);
ModelPlan plan_phimoe(PlanBuilder& builder);
ModelPlan plan_qwen2_moe(PlanBuilder& builder);
ModelPlan plan_qwen3_moe(PlanBuilder& builder);
ModelPlan plan_qwen3_next(PlanBuilder& builder);
ModelPlan plan_switch_transformers(PlanBuilder& builder);

// OpenMoE calls itself llama; its experts tell it.
bool is_openmoe(const JsonView& config);

// What the numbers of a family are checked against.
enum class Oracle : uint8_t { kTransformers, kIndependent };

struct Family {
  std::string_view model_type;
  ModelPlan (*plan)(PlanBuilder&);
  Oracle oracle = Oracle::kTransformers;
  bool nested = false;  // a multimodal wrapper: the language model's config is in text_config
  std::string_view note = {};  // what a user should know, for the table of assets/help/families.md
};
std::span<const Family> families();  // in the order of their names

// The family of a config. Unknown families are refused with the list of known ones, quantised checkpoints by method.
Result<Family> family_of(const JsonView& config);

// Refuses what family_of() refuses, and every tensor that is missing or has another shape than the config asks for.
// tensors: sorted by name.
Result<ModelPlan> plan_model(const JsonView& config, std::span<const TensorInfo> tensors,
                             std::span<const std::string> shards);

std::string supported_families();  // "mixtral, olmoe, qwen3_moe"

}  // namespace switchyard
