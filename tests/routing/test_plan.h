// A plan without weights for tests of routing and edits: layer 0 dense, then MoE layers of 8, 8 and 6
// experts, top-2, hidden vectors of 4 and experts of 6 units without tensors; attention with a q_proj [3, 4] and a
// k_proj [2, 4] in each.
#pragma once

#include <string>

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
  for (int layer = 0; layer < 4; ++layer) {
    AttentionSpec attention;
    const std::string at = "model.layers." + std::to_string(layer) + ".self_attn.";
    attention.q = {.name = at + "q_proj.weight", .rows = 3, .cols = 4};
    attention.k = {.name = at + "k_proj.weight", .rows = 2, .cols = 4};
    plan.layers[layer].sublayers.push_back({.op = attention});
  }
  number_rows(plan);
  return plan;
}

}  // namespace switchyard::test
