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

ModelPlan plan_mixtral(PlanBuilder& builder);
ModelPlan plan_olmoe(PlanBuilder& builder);
ModelPlan plan_qwen3_moe(PlanBuilder& builder);

using MakePlan = ModelPlan (*)(PlanBuilder&);

// The family of a config. Unknown families are refused with the list of known ones, quantised checkpoints by method.
Result<MakePlan> family_of(const JsonView& config);

// Refuses what family_of() refuses, and every tensor that is missing or has another shape than the config asks for.
// tensors: sorted by name.
Result<ModelPlan> plan_model(const JsonView& config, std::span<const TensorInfo> tensors,
                             std::span<const std::string> shards);

std::string supported_families();  // "mixtral, olmoe, qwen3_moe"

}  // namespace switchyard
