// The log of an adaptation as columns of numbers: the table of the Adaptation panel and its plots. Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/runtime/session.h"
#include "views/ui/table_twin.h"

namespace switchyard {

// One row per step. Norms: the largest of any layer, and that layer.
TableData adaptation_table(const AdaptationState& state, const ModelPlan& plan);

// "step 3 of 8", "frozen", "reverted", "failed: …": one line for people.
std::string adaptation_status(const AdaptationState& state, uint32_t sequence);

// Row of the largest norm; -1: none.
int largest_norm(const std::vector<double>& norms);

}  // namespace switchyard
