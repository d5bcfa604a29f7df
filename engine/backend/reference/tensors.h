// The weights of a plan as fp32 tensors. Built once on the loading thread, then read by forward().
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <variant>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"

namespace switchyard::reference {

// Same shapes as the TensorRefs of plan.h; vectors are [n], absent tensors undefined.
struct NormTensors {
  at::Tensor weight, bias;
};
struct AttentionTensors {
  at::Tensor q, k, v, o, q_bias, k_bias, v_bias, o_bias;
  NormTensors q_norm, k_norm;
  at::Tensor inv_freq;  // [rope.dims / 2]
};
struct GluTensors {
  at::Tensor gate, up, down;
};
struct MoeTensors {
  at::Tensor router, router_bias, select_bias;
  std::vector<GluTensors> experts;
};
struct LayerTensors {
  NormTensors attention_norm, ffn_norm;
  AttentionTensors attention;
  std::variant<GluTensors, MoeTensors> ffn;
};
struct ModelTensors {
  at::Tensor embedding, lm_head;  // one tensor where tied
  NormTensors final_norm;
  std::vector<LayerTensors> layers;
};

// Copies every tensor (bf16, fp16 or fp32) to fp32. Reports progress and can be cancelled through `task`.
// May throw c10::Error or bad_alloc: the caller turns these into errors.
Result<ModelTensors> load_tensors(const ModelPlan& plan, const WeightStore& weights, Task* task);

}  // namespace switchyard::reference
