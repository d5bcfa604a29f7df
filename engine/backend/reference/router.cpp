// See router.h.
#include "engine/backend/reference/router.h"

#include <ATen/TensorOperators.h>

#include "engine/backend/reference/math.h"
#include "engine/routing/decision.h"

namespace switchyard::reference {

Router::Router(const RoutedSpec& spec, const Loader& load)
    : spec_(spec.router),
      weight_(load.matrix(spec.router_weight)),
      bias_(load.vector(spec.router_bias)),
      select_bias_(load.vector(spec.select_bias)) {}

std::vector<Share> Router::route_rows(const at::Tensor& x, const Step& step) const {
  at::Tensor logits = project(x, weight_, bias_);
  if (spec_.product_key) {  // the two key sets as transformers views them: halves of the whole, not of a row
    const at::Tensor keys = logits.reshape({2, x.size(0), -1});
    logits = (keys[0].unsqueeze(2) + keys[1].unsqueeze(1)).flatten(1);
  }
  logits = logits.contiguous();
  const LayerRecipe* recipe = step.recipe->layer(step.row);
  const int experts = spec_.experts, slots = slots_needed(spec_, recipe);
  std::vector<ExpertId> ids(slots);
  std::vector<float> applied(slots), scratch(size_t(experts) * 4);
  std::vector<SlotKind> kinds(slots);
  std::vector<Share> shares(experts);
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const std::span<const float> raw{logits.const_data_ptr<float>() + row * experts, size_t(experts)};
    const Decision decision =
        route(spec_, recipe, raw, floats(bias_), floats(select_bias_), scratch, {ids, applied, kinds});
    if (!step.frames.empty()) step.frames[row].record(step.row, decision, ids, applied, kinds, raw);
    for (int slot = 0; slot < decision.k_used; ++slot) {
      if (kinds[slot] != SlotKind::kRouted && kinds[slot] != SlotKind::kForced) continue;
      shares[ids[slot]].rows.push_back(row);
      shares[ids[slot]].weights.push_back(applied[slot]);
    }
  }
  return shares;
}

}  // namespace switchyard::reference
