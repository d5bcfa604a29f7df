#include "views/gate_inspector/values.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace switchyard {
namespace {

// What happened, where the logits of one token cannot tell it.
void show_as_recorded(const RoutingFrame& frame, int moe_layer, GateTable& out) {
  const LayerHeader& layer = frame.layer(moe_layer);
  const auto ids = frame.used_ids(moe_layer);
  const auto weights = frame.weights(moe_layer);
  out.stats = layer.stats;
  out.k_used = layer.k_used;
  out.changed = layer.changed;
  for (GateRow& row : out.rows) row.selected = false, row.weight = 0;
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    GateRow& row = out.rows[ids[slot]];
    row.selected = true;
    row.weight = weights.empty() ? std::numeric_limits<float>::quiet_NaN() : weights[slot];
  }
}

}  // namespace

GateTable gate_table(const RunData& data, const TimeCursor& cursor, int row) {
  GateTable out;
  const RoutingFrame* frame = data.shown(cursor);
  if (!frame || !data.plan || row >= frame->rows()) return out;
  const int moe_layer = row % int(data.plan->moe_layers.size());
  const RouterSpec& spec = data.plan->routed(moe_layer).router;
  const LayerRecipe* recipe = recipe_shown(data, cursor, moe_layer);
  const LayerHeader& header = frame->layer(row);
  out.stats = header.stats;
  out.k_used = header.k_used;
  out.changed = header.changed;
  out.edited = recipe != nullptr;
  out.passed = frame->passed(row);
  if (!out.passed) return out;

  const auto raw = frame->logits(row);
  const bool of_experts = chooses_experts(*data.plan, row, recipe_of(data, data.shown_index(cursor)));
  if (!of_experts) out.note = "a choice among adapters or slices of experts, by number";
  if (!of_experts || raw.size() < size_t(spec.experts)) {
    constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
    const auto ids = frame->used_ids(row);
    const auto weights = frame->weights(row);
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      GateRow one{int(ids[slot]), kNone, kNone, kNone, kNone, kNone, weights.empty() ? kNone : weights[slot],
                  kNone,          true,  false, {}};
      if (of_experts) one.edits = edits_of(recipe, one.expert);
      out.rows.push_back(one);
    }
    std::sort(out.rows.begin(), out.rows.end(), [](const GateRow& a, const GateRow& b) { return a.expert < b.expert; });
    return out;
  }

  out.has_logits = true;
  // The gate of a later pass that a file brings has no bias.
  const int routers = int(data.plan->moe_layers.size()), decisions = decisions_of(recipe), pass = row / routers;
  const bool own_gate = !recipe || gate_of(recipe->scheme, pass % decisions).empty();
  std::span<const float> logit_bias, select_bias;
  if (size_t(moe_layer) < data.router_tensors.size()) {
    if (own_gate) logit_bias = data.router_tensors[size_t(moe_layer)].logit_bias;
    select_bias = data.router_tensors[size_t(moe_layer)].select_bias;
  }
  out.missing_bias = (spec.has_select_bias && select_bias.empty()) || (spec.has_logit_bias && own_gate && logit_bias.empty());
  const FrameHeader& token = frame->header();
  const GateExplanation gate = explain(spec, recipe,
                                       {.logits = raw.first(size_t(spec.experts)),
                                        .router_bias = logit_bias,
                                        .select_bias = select_bias,
                                        .token = token.token_id,
                                        .index = token.token_index,
                                        .first_index = token.token_index,
                                        .together = token.phase == Phase::kPrefill ? 2 : 1,
                                        .sequence = token.sequence,
                                        .row = moe_layer + pass / decisions * routers});
  out.note = gate.unknown;
  out.stats = gate.decision.stats;
  out.k_used = gate.decision.k_used;
  out.changed = gate.decision.changed;
  for (size_t e = 0; e < size_t(spec.experts); ++e)
    out.rows.push_back({int(e), gate.logits[e], gate.edited_logits[e], gate.scores[e], gate.select_scores[e],
                        gate.native_scores[e], gate.weights[e], gate.native_weights[e], gate.selected[e] != 0,
                        gate.native_selected[e] != 0, edits_of(recipe, int(e))});
  if (!out.note.empty()) show_as_recorded(*frame, row, out);
  return out;
}

std::vector<int> by_score(const GateTable& table) {
  std::vector<int> order(table.rows.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&table](int i) {
    const GateRow& row = table.rows[size_t(i)];
    if (!table.has_logits) return std::isfinite(row.weight) ? row.weight : 0.0f;
    return std::isfinite(row.edited) ? row.edited : row.logit;
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) > key(b); });
  return order;
}

}  // namespace switchyard
