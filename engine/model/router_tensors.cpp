#include "engine/model/router_tensors.h"

namespace switchyard {
namespace {

bool has_any(const ModelPlan& plan) {
  for (int row = 0; row < int(plan.moe_layers.size()); ++row)
    if (plan.routed(row).router_bias || plan.routed(row).select_bias) return true;
  return false;
}

Result<std::vector<float>> read_vector(const WeightStore& weights, const TensorRef& ref, int experts) {
  std::vector<float> out;
  if (!ref) return out;
  out.resize(size_t(experts));
  SY_CHECK(weights.read(ref, out.data()));
  return out;
}

}  // namespace

Result<std::vector<RouterTensors>> read_router_tensors(const ModelPlan& plan, const WeightStore& weights) {
  std::vector<RouterTensors> out;
  if (!has_any(plan)) return out;
  for (int row = 0; row < int(plan.moe_layers.size()); ++row) {
    const RoutedSpec& routed = plan.routed(row);
    RouterTensors tensors;
    SY_TRY(tensors.logit_bias, read_vector(weights, routed.router_bias, routed.router.experts));
    SY_TRY(tensors.select_bias, read_vector(weights, routed.select_bias, routed.router.experts));
    out.push_back(std::move(tensors));
  }
  return out;
}

Result<std::vector<RouterTensors>> read_router_tensors(const Checkpoint& checkpoint) {
  if (!has_any(checkpoint.plan)) return std::vector<RouterTensors>{};
  SY_TRY(const auto weights, WeightStore::open(checkpoint));
  return read_router_tensors(checkpoint.plan, *weights);
}

}  // namespace switchyard
