// See gate_tables.h.
#include "engine/backend/cuda/gate_tables.h"

#include <algorithm>
#include <cstring>

#include "engine/routing/scheme_stages.h"

namespace switchyard::cuda {

std::string beyond_table(const LayerRecipe& recipe) {
  const Stages& s = recipe.scheme.stages;
  const bool recorded = s.selector == Selector::kReplay;
  if (recipe.scheme &&
      (recipe.scheme.code || s.source != LogitSource::kLinear || s.mixing != Mixing::kNone || s.bank || s.null_source == NullSource::kFile ||
       runs_in_passes(recipe.scheme) || cuts_experts(recipe.scheme) || (s.weights == WeightRule::kNative && !recorded)))
    return "the scheme " + describe(recipe.scheme.choice);
  if (std::ranges::any_of(recipe.router_rows, [](const RowSource& row) { return row.kind != RowSource::Kind::kOwn; }))
    return "replaced router rows";
  return {};
}

template <class T>
void GatePage::keep(std::span<const T> values, const T* GateTable::*place) {
  if (values.empty()) return;
  const size_t offset = (arrays_.size() + 15) / 16 * 16;
  arrays_.resize(offset + values.size_bytes());
  std::memcpy(arrays_.data() + offset, values.data(), values.size_bytes());
  GateTable& table = tables_.back();
  const size_t field =
      size_t(reinterpret_cast<unsigned char*>(&(table.*place)) - reinterpret_cast<unsigned char*>(tables_.data()));
  kept_.push_back({field, offset});
}

void GatePage::place(const unsigned char* base) {
  for (const Kept& kept : kept_) {
    const unsigned char* const at = base + kept.offset;
    std::memcpy(reinterpret_cast<unsigned char*>(tables_.data()) + kept.field, &at, sizeof(at));
  }
}

void GatePage::add(const ModelGate& gate, const LayerRecipe* recipe, uint32_t epoch) {
  const RouterSpec& spec = gate.spec;
  GateTable& table = tables_.emplace_back();
  table.score = spec.score, table.group_score = spec.group_score, table.group_fill = spec.group_fill,
  table.renorm = spec.renorm, table.apply = spec.apply;
  table.experts = uint16_t(spec.experts), table.groups = uint16_t(spec.groups),
  table.groups_kept = uint16_t(spec.groups_kept);
  table.native_k = uint16_t(spec.experts_per_token), table.k = uint16_t(stages::k_in_force(spec, recipe)),
  table.slots = uint16_t(slots_needed(spec, recipe));
  table.scale = spec.scale, table.renorm_floor = spec.renorm_floor, table.jitter = spec.jitter;
  table.router_bias = gate.router_bias, table.select_bias = gate.select_bias, table.epoch = epoch;
  if (!recipe) return;
  table.flags |= GateFlags::kEdited;
  table.temperature = recipe->temperature;
  if (stages::any_nonzero(recipe->select_bias)) table.flags |= GateFlags::kSelectBias;
  keep<float>(recipe->row_scale, &GateTable::row_scale);
  keep<float>(recipe->logit_bias, &GateTable::logit_bias);
  keep<float>(recipe->select_bias, &GateTable::edit_bias);
  keep<float>(recipe->expert_scale, &GateTable::output_scale);
  keep<uint8_t>(recipe->muted, &GateTable::muted);
  keep<uint8_t>(recipe->forced, &GateTable::forced);
  if (recipe->scheme) add_scheme(spec, *recipe, table);
}

void GatePage::add_scheme(const RouterSpec&, const LayerRecipe& recipe, GateTable& table) {
  const Stages& s = recipe.scheme.stages;
  const SchemeData* data = recipe.scheme.data.get();
  table.mode = s.selector == Selector::kReplay ? GateMode::kReplay : GateMode::kScheme;
  table.scheme_score = s.score, table.selector = s.selector, table.activation = s.activation,
  table.schedule = s.schedule;
  table.weight_rule = s.weights, table.null_source = s.null_source, table.entropy = s.entropy,
  table.granularity = s.granularity, table.out = s.out;
  table.nulls = uint16_t(s.nulls), table.forced_low = uint16_t(s.forced_low), table.k_min = uint16_t(s.k_min),
  table.k_max = uint16_t(s.k_max);
  table.steps = s.steps, table.guaranteed = s.guaranteed;
  table.p = s.p, table.threshold = s.threshold, table.tau = s.tau, table.tau_end = s.tau_end, table.h = s.h,
  table.q = s.q, table.eps = s.eps;
  table.null_logit = s.null_logit, table.sdm_q = s.sdm_q, table.sdm_d = s.sdm_d, table.steer_margin = s.steer_margin,
  table.seed = s.seed;
  if (s.gumbel) table.flags |= GateFlags::kGumbel;
  if (!data) return;
  table.columns = uint16_t(data->columns);
  keep<ExpertId>(data->table, &GateTable::table);
  if (table.mode == GateMode::kReplay) {
    table.replayed = uint32_t(data->tokens.size());
    keep<float>(data->weights, &GateTable::numbers);
    keep<uint8_t>(data->kinds, &GateTable::kinds);
    keep<TokenId>(data->tokens, &GateTable::tokens);
    return;
  }
  keep<float>(data->thresholds, &GateTable::numbers);
  std::vector<ExpertId> steered = data->on;
  steered.insert(steered.end(), data->off.begin(), data->off.end());
  table.on = uint16_t(data->on.size()), table.off = uint16_t(data->off.size());
  keep<ExpertId>(steered, &GateTable::steered);
}

}  // namespace switchyard::cuda
