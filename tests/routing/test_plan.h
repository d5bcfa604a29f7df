// A plan without weights for tests of routing and edits: layer 0 dense, then MoE layers of 8, 8 and 6
// experts, top-2.
#pragma once

#include "engine/model/plan.h"

namespace switchyard::test {

inline ModelPlan small_plan() {
  ModelPlan plan;
  plan.family = "test";
  plan.layers.resize(4);
  for (int layer = 1; layer < 4; ++layer) {
    MoeSpec moe;
    moe.router.experts = layer < 3 ? 8 : 6;
    moe.router.experts_per_token = 2;
    moe.router.renorm = Renorm::kSum;
    plan.layers[layer].sublayers.push_back({.op = moe});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard::test
