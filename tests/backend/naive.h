// A third executor of plans: scalar loops in double precision, one token after the other, written from
// specs/families.md 1.0 alone. It judges the kinds that no golden of transformers reaches. Routing is
// route(), which has its own proofs (tests/routing).
#pragma once

#include <span>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"

namespace switchyard::testing {

// Logits [tokens, vocab] under the native router. fp32 checkpoints only; slow.
std::vector<double> naive_logits(const ModelPlan& plan, const WeightStore& weights, std::span<const TokenId> tokens);

}  // namespace switchyard::testing
