// The checkpoint's own vectors that steer a router beside its weight, for whoever recomputes a decision from logits:
// shadow comparison, the gate inspector. Reads the mapped files; a job's thread, or while a session opens.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/model/checkpoint.h"

namespace switchyard {

// Each [E] or empty.
struct RouterTensors {
  std::vector<float> logit_bias, select_bias;
};

// [routing rows]; empty when no router of the plan has any.
Result<std::vector<RouterTensors>> read_router_tensors(const ModelPlan& plan, const WeightStore& weights);
// Opens the files only where the plan has such vectors.
Result<std::vector<RouterTensors>> read_router_tensors(const Checkpoint& checkpoint);

}  // namespace switchyard
