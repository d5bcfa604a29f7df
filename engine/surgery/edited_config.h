// config.json of an exported model: the original with its numbers of experts changed. Pure; any thread.
#pragma once

#include <string>

#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/routing/recipe.h"
#include "engine/surgery/removal.h"

namespace switchyard {

// kUsage, with the reason, where the config has no place for what changed.
Result<std::string> edited_config(std::string_view config_json, const ModelPlan& plan, const Recipe& recipe,
                                  const std::vector<KeptExperts>& kept);

}  // namespace switchyard
