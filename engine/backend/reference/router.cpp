// See router.h.
#include "engine/backend/reference/router.h"

#include <ATen/TensorOperators.h>

#include "engine/backend/reference/math.h"
#include "engine/routing/capacity.h"
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
  const auto experts = size_t(spec_.experts), slots = size_t(slots_needed(spec_, recipe)), tokens = size_t(x.size(0));
  const auto raw = [&](size_t token) { return std::span(logits.const_data_ptr<float>() + token * experts, experts); };
  std::vector<Decision> decisions(tokens);
  std::vector<ExpertId> ids(tokens * slots);
  std::vector<float> applied(tokens * slots), scratch(experts * 4);
  std::vector<SlotKind> kinds(tokens * slots);
  for (size_t token = 0; token < tokens; ++token) {
    const DecisionSpans out{std::span(ids).subspan(token * slots, slots),
                            std::span(applied).subspan(token * slots, slots),
                            std::span(kinds).subspan(token * slots, slots)};
    decisions[token] = route(spec_, recipe, raw(token), floats(bias_), floats(select_bias_), scratch, out);
  }
  std::vector<uint32_t> room;
  limit_to_capacity(spec_, recipe, {int(slots), decisions, ids, applied, kinds}, room);

  std::vector<Share> shares(experts);
  for (size_t token = 0; token < tokens; ++token) {
    const size_t first = token * slots;
    if (!step.frames.empty())
      step.frames[token].record(step.row, decisions[token], std::span(ids).subspan(first, slots),
                                std::span(applied).subspan(first, slots), std::span(kinds).subspan(first, slots),
                                raw(token));
    for (size_t at = first; at < first + size_t(decisions[token].k_used); ++at) {
      if (kinds[at] != SlotKind::kRouted && kinds[at] != SlotKind::kForced) continue;
      shares[ids[at]].rows.push_back(int64_t(token));
      shares[ids[at]].weights.push_back(applied[at]);
    }
  }
  return shares;
}

}  // namespace switchyard::reference
