// A third executor of plans: scalar loops in double precision, one token after the other, written from
// specs/families.md 1.0 alone. It judges the kinds that no golden of transformers reaches. Routing is
// route(), which has its own proofs (tests/routing).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"

namespace switchyard::testing {

// The parts of a routed layer, for a test that puts them together in its own way.
struct NaiveBlock {
  using Vector = std::vector<double>;
  int row = 0;  // routing row
  const MoeSpec& spec;
  std::function<Vector(const Vector& x)> logits;                   // of the router
  std::function<Vector(size_t expert, const Vector& x)> units;     // what the down projection takes
  std::function<Vector(size_t expert, const Vector& units)> down;  // without the routing weight
  std::function<Vector(const Vector& x)> rest;                     // shared block and bias; zeros where there is none
  Vector expert(size_t id, const Vector& x) const { return down(id, units(id, x)); }
};
// What becomes of the residual stream h in a routed layer; x = norm(h).
using NaiveLayer = std::function<std::vector<double>(const NaiveBlock& block, const std::vector<double>& h, const std::vector<double>& x)>;

// Logits [tokens, vocab] under the native router, or with `layer` in the place of the routed ones. fp32 checkpoints
// only; slow.
std::vector<double> naive_logits(const ModelPlan& plan, const WeightStore& weights, std::span<const TokenId> tokens,
                                 const NaiveLayer& layer = {});

}  // namespace switchyard::testing
