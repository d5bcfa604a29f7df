// What the recurrent mixers share (Mamba, gated delta rule, lightning attention, short convolution). Their state is
// replaced whole by every run, never changed in place, so that a kept copy stays what it was (see cache.h).
// Formulas: specs/families.md 1.19 and 1.21 to 1.23. Engine thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::reference {

// Depthwise causal convolution over time. x: [tokens, channels]; weight: [channels, kernel]; bias: [channels] or
// undefined; state: the last kernel - 1 inputs [kernel - 1, channels], undefined before the first token.
at::Tensor causal_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              at::Tensor& state);

}  // namespace switchyard::reference
