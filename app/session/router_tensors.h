// The checkpoint's own router biases, for views that recompute a decision. Read by a job; pure.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/model/checkpoint.h"
#include "views/view.h"

namespace switchyard {

// [moe_layers]; empty when no router of the plan has any.
Result<std::vector<RouterTensors>> read_router_tensors(const Checkpoint& checkpoint);

}  // namespace switchyard
