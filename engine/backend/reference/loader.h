// The weights of a plan as fp32 tensors. Used on the loading thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"

namespace switchyard::reference {

// Thrown inside the module, turned into an error at its border.
struct LoadError {
  Error error;
};

struct Norm {
  NormSpec spec;
  at::Tensor weight, bias;
  at::Tensor operator()(const at::Tensor& x) const;  // over the last dimension; kNone: x itself
};

// Copies tensors, whatever their storage, to fp32. Throws LoadError, also when the task is cancelled.
class Loader {
 public:
  Loader(const WeightStore& weights, const Task* task) : weights_(weights), task_(task) {}

  at::Tensor matrix(const TensorRef& ref) const;  // [rows, cols]; absent: undefined
  at::Tensor vector(const TensorRef& ref) const;  // [elements]
  Norm norm(const NormSpec& spec) const;

 private:
  const WeightStore& weights_;
  const Task* task_;
};

}  // namespace switchyard::reference
