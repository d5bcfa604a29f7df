// Small shared steps of the ops. Pure; engine thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>

#include "engine/model/plan.h"

namespace switchyard::reference {

inline std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});
at::Tensor activate(Activation activation, const at::Tensor& x);
std::span<const float> floats(const at::Tensor& vector);  // undefined: empty

// cos and sin of the positions [past, past + tokens) in a sequence of `length`, each [tokens, dims / 2].
struct Rotation {
  at::Tensor cos, sin;
};
Rotation rotation(const RopeSpec& spec, int64_t past, int64_t tokens, int64_t length);

// x: [heads, tokens, head_dim]; the first spec.dims of a head turn, the rest passes through.
at::Tensor rotate(const RopeSpec& spec, const Rotation& by, const at::Tensor& x);

// Positions of ids [tokens] that follow `past` others, see ModelPlan::sinusoidal_positions: [tokens, hidden].
at::Tensor sinusoids(const at::Tensor& ids, int64_t past, int padding_id, int64_t hidden);

// Room for `needed` tokens along dimension 1 of a [heads, room, dim] cache; the first `past` are kept.
void reserve(at::Tensor& cache, int64_t heads, int64_t dim, int64_t past, int64_t needed);

}  // namespace switchyard::reference
