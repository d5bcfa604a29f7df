// Weighted sums of experts' tensors. Engine thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "engine/model/dtype.h"
#include "engine/routing/recipe.h"

namespace switchyard::reference {

// part: the tensor of an expert, all of one shape; undefined ones give an undefined sum.
at::Tensor mix_tensors(const ExpertMix& mix, DType type, const std::function<const at::Tensor&(ExpertId)>& part);

}  // namespace switchyard::reference
