// See adapter_rows.h.
#include "engine/routing/adapter_rows.h"

#include <algorithm>
#include <utility>

#include "engine/model/linears.h"
#include "engine/routing/frame.h"
#include "engine/routing/stages.h"

namespace switchyard {
namespace {

// The first place of a sublayer behind those of single experts.
int behind_experts(const SublayerOp& op) {
  const auto* moe = std::get_if<MoeSpec>(&op);
  return moe ? kFfnPlaces * int(moe->experts.size()) : 0;
}

bool sees_encoder(const SublayerOp& op, int place) {
  const auto* attention = std::get_if<AttentionSpec>(&op);
  return attention && attention->cross && (place == kPlaceK || place == kPlaceV);
}

}  // namespace

std::vector<AdapterRow> adapter_rows(const ModelPlan& plan, const Recipe& recipe) {
  std::vector<AdapterRow> out;
  if (recipe.adapters.empty()) return out;
  const int routers = static_cast<int>(plan.rows.size());
  int router = 0, next_place = 0;
  for (int layer = 0; layer < static_cast<int>(plan.layers.size()); ++layer) {
    while (router < routers && plan.moe_layers[size_t(router)] <= layer) ++router;
    const int own = router - 1;  // the layer's last
    const int passes = recipe.passes_of(layer);
    const bool routes = passes > 0 && own >= 0 && plan.moe_layers[size_t(own)] == layer;
    int row = routes ? own + decisions_of(recipe.layer(own)) * passes * routers : 0;
    for (const Sublayer& sublayer : plan.layers[size_t(layer)].sublayers) {
      const int first = std::exchange(next_place, next_place + places_of(sublayer.op));
      for (int place = first + behind_experts(sublayer.op); routes && place < next_place; ++place) {
        const AdapterSet* set = recipe.adapters_at(place);
        if (!set || sees_encoder(sublayer.op, place - first) || !looks_at_input(set->rule) || set->linears.at(place).choices() > plan.max_experts()) continue;
        out.push_back({row, place, set});
        row += routers;
      }
    }
  }
  return out;
}

int row_of(std::span<const AdapterRow> rows, int place) {
  const auto at = std::lower_bound(rows.begin(), rows.end(), place, [](const AdapterRow& row, int p) { return row.place < p; });
  return at == rows.end() || at->place != place ? -1 : at->row;
}

int most_chosen(const AdapterRule& rule, const AdaptedLinear& linear) {
  const bool all = rule.router == AdapterRouter::kDynMole || rule.router == AdapterRouter::kMogu;
  return all ? linear.choices() : std::min(rule.k, linear.choices());
}

void record_adapters(RoutingFrame& frame, int row, std::span<const float> weights, std::span<const float> scores) {
  thread_local std::vector<ExpertId> ids;
  thread_local std::vector<float> chosen;
  ids.clear(), chosen.clear();
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] != 0) ids.push_back(static_cast<ExpertId>(i)), chosen.push_back(weights[i]);
  if (ids.empty()) return;
  const std::vector<SlotKind> kinds(ids.size(), SlotKind::kRouted);
  Decision decision;
  decision.k_used = static_cast<int>(ids.size());
  decision.stats = stages::stats_of(stages::softmax_sums(scores, nullptr), scores, ids);
  frame.record(row, decision, ids, chosen, kinds, scores);
}

}  // namespace switchyard
