// See mixing.h.
#include "engine/backend/reference/mixing.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/InferenceMode.h>

#include <vector>

#include "engine/routing/edited_weights.h"

namespace switchyard::reference {

at::Tensor mix_tensors(const ExpertMix& mix, DType type, const std::function<const at::Tensor&(ExpertId)>& part) {
  const at::Tensor& first = part(mix[0].expert);
  if (!first.defined()) return {};
  std::vector<const float*> sources;
  for (const ExpertShare& share : mix) sources.push_back(part(share.expert).const_data_ptr<float>());
  const c10::InferenceMode off(false);  // kept for later runs, also for those that take a gradient
  at::Tensor out = at::empty_like(first);
  mix_weights(mix, sources, type, {out.data_ptr<float>(), size_t(out.numel())});
  return out;
}

}  // namespace switchyard::reference
