// Small vectors out of the mapped shards. A job's thread.
#include "app/session/router_tensors.h"

#include <bit>
#include <cstring>

#include <qfloat16.h>

namespace switchyard {
namespace {

Result<std::vector<float>> read_vector(const WeightStore& weights, const TensorRef& ref) {
  std::vector<float> out;
  if (!ref) return out;
  SY_TRY(const TensorView view, weights.view(ref));
  out.resize(size_t(view.rows * view.cols));
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t half = 0;
    switch (view.dtype) {
      case DType::kF32:
        std::memcpy(&out[i], view.data + 4 * i, 4);
        break;
      case DType::kBF16:
        std::memcpy(&half, view.data + 2 * i, 2);
        out[i] = std::bit_cast<float>(uint32_t(half) << 16);
        break;
      case DType::kF16: {
        qfloat16 value;
        std::memcpy(&value, view.data + 2 * i, 2);
        out[i] = float(value);
        break;
      }
      default:
        return fail(ErrorCode::kUsage, "Router biases of type " + std::string(name(view.dtype)) + " cannot be shown.",
                    ref.name);
    }
  }
  return out;
}

}  // namespace

Result<std::vector<RouterTensors>> read_router_tensors(const Checkpoint& checkpoint) {
  bool any = false;
  const ModelPlan& plan = checkpoint.plan;
  for (int row = 0; row < int(plan.moe_layers.size()); ++row)
    any = any || plan.routed(row).router_bias || plan.routed(row).select_bias;
  std::vector<RouterTensors> out;
  if (!any) return out;
  SY_TRY(const auto weights, WeightStore::open(checkpoint));
  for (int row = 0; row < int(plan.moe_layers.size()); ++row) {
    RouterTensors tensors;
    SY_TRY(tensors.logit_bias, read_vector(*weights, plan.routed(row).router_bias));
    SY_TRY(tensors.select_bias, read_vector(*weights, plan.routed(row).select_bias));
    out.push_back(std::move(tensors));
  }
  return out;
}

}  // namespace switchyard
