// The kinds of plan.h in ATen operators, fp32. Pure but for the KV cache and the frames they fill.
// Called by ReferenceBackend::forward() on the engine thread; formulas: specs/families.md 1.0.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "engine/backend/reference/tensors.h"
#include "engine/model/plan.h"
#include "engine/routing/frame.h"
#include "engine/routing/recipe.h"

namespace switchyard::reference {

// Keys and values of one layer, [kv_heads, room, head_dim]; the first `past` of `room` tokens are filled.
struct KvLayer {
  at::Tensor k, v;
};

// Over the last dimension of x.
at::Tensor norm(const NormSpec& spec, const NormTensors& weights, const at::Tensor& x);

// x: [tokens, hidden], already normed. Appends keys and values at `past`; kv has room for them.
at::Tensor attention(const AttentionSpec& spec, const AttentionTensors& weights, const at::Tensor& x, KvLayer& kv,
                     int64_t past);

at::Tensor glu(Activation activation, const GluTensors& weights, const at::Tensor& x);

// Routes every row of x [tokens, hidden] by route(), records into frames (empty: no capture), runs the
// selected experts. Experts add up in order of their id, so a run repeats bit for bit.
at::Tensor moe(const MoeSpec& spec, const MoeTensors& weights, const at::Tensor& x, int moe_layer,
               const LayerRecipe* recipe, std::span<RoutingFrame> frames);

}  // namespace switchyard::reference
