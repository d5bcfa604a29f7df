// Which experts an exported model keeps, and why an edit cannot be said in a checkpoint. Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// Of one routing row, in the order of their new ids: the experts that are not muted.
using KeptExperts = std::vector<ExpertId>;
std::vector<KeptExperts> kept_experts(const ModelPlan& plan, const Recipe& recipe);  // [rows]

// Experts per token of a row under the recipe, no more than it keeps.
int k_of(const ModelPlan& plan, const Recipe& recipe, const std::vector<KeptExperts>& kept, int row);

// What the recipe asks and no checkpoint of this architecture can hold, a sentence each; empty: all can be written.
std::vector<std::string> inexpressible(const ModelPlan& plan, const Recipe& recipe,
                                       const std::vector<KeptExperts>& kept);

}  // namespace switchyard
