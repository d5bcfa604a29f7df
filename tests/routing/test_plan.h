// A plan without weights for tests of routing and edits: layer 0 dense, then MoE layers of 8, 8 and 6
// experts, top-2, hidden vectors of 4 and experts of 6 units.
#pragma once

#include "engine/model/plan.h"

namespace switchyard::test {

inline ModelPlan small_plan() {
  ModelPlan plan;
  plan.family = "test";
  plan.hidden = 4;
  plan.layers.resize(4);
  for (int layer = 1; layer < 4; ++layer) {
    MoeSpec moe;
    moe.router.experts = layer < 3 ? 8 : 6;
    moe.router.experts_per_token = 2;
    moe.router.renorm = Renorm::kSum;
    moe.expert.width = 6;
    plan.layers[layer].sublayers.push_back({.op = moe});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard::test
