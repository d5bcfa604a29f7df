// Ready-made edits. Any thread.
#include "app/session/edits_in_force.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

// Experts where `differs` holds, as one edit of `make`.
template <class Vector, class Differs, class Make>
void collect(const Vector& values, Differs differs, Make make, std::vector<EditCommand>& out) {
  std::vector<ExpertId> experts;
  for (size_t i = 0; i < values.size(); ++i)
    if (differs(values[i])) experts.push_back(static_cast<ExpertId>(i));
  if (!experts.empty()) out.push_back({make(std::move(experts)), std::nullopt});
}

}  // namespace

const Recipe* recipe_in_force(const SessionSnapshot& snapshot) {
  return snapshot.epochs.empty() ? nullptr : snapshot.epochs.back().recipe.get();
}

bool is_muted(const LayerRecipe* layer, int expert) {
  return layer && !layer->muted.empty() && layer->muted[size_t(expert)];
}

bool is_forced(const LayerRecipe* layer, int expert) {
  return layer && !layer->forced.empty() && layer->forced[size_t(expert)];
}

float bias_of(const LayerRecipe* layer, int expert) {
  return layer && !layer->logit_bias.empty() ? layer->logit_bias[size_t(expert)] : 0.0f;
}

EditCommand toggle_mute(const LayerRecipe* recipe, const LayerSet& layer, int expert) {
  const std::vector<ExpertId> one{static_cast<ExpertId>(expert)};
  if (is_muted(recipe, expert)) return {Unmute{layer, one}, std::nullopt};
  return {Mute{layer, one}, std::nullopt};
}

EditCommand toggle_force(const LayerRecipe* recipe, const LayerSet& layer, int expert) {
  const std::vector<ExpertId> one{static_cast<ExpertId>(expert)};
  if (is_forced(recipe, expert)) return {Unforce{layer, one}, std::nullopt};
  return {Force{layer, one}, std::nullopt};
}

EditCommand nudge_bias(const LayerRecipe* recipe, const LayerSet& layer, int expert, float by) {
  const float value = std::round((bias_of(recipe, expert) + by) * 100.0f) / 100.0f;
  return {Bias{layer, {static_cast<ExpertId>(expert)}, value}, std::nullopt};
}

std::vector<EditCommand> reset_layer(const LayerRecipe* recipe, const LayerSet& layer) {
  std::vector<EditCommand> out;
  if (!recipe) return out;
  const auto set = [](auto v) { return v != 0; };
  const auto scaled = [](float v) { return v != 1.0f; };
  using Experts = std::vector<ExpertId>;
  collect(
      recipe->muted, set,
      [&](Experts e) {
        return Unmute{layer, std::move(e)};
      },
      out);
  collect(
      recipe->forced, set,
      [&](Experts e) {
        return Unforce{layer, std::move(e)};
      },
      out);
  collect(
      recipe->logit_bias, set,
      [&](Experts e) {
        return Bias{layer, std::move(e), 0.0f};
      },
      out);
  collect(
      recipe->select_bias, set,
      [&](Experts e) {
        return SelectBias{layer, std::move(e), 0.0f};
      },
      out);
  collect(
      recipe->expert_scale, scaled,
      [&](Experts e) {
        return ExpertScale{layer, std::move(e), 1.0f};
      },
      out);
  collect(
      recipe->row_scale, scaled,
      [&](Experts e) {
        return RouterRow{layer, std::move(e), 1.0f};
      },
      out);
  collect(
      recipe->router_rows, [](const RowSource& row) { return row != RowSource{}; },
      [&](Experts e) {
        return RouterRow{layer, std::move(e), 1.0f, RowSource{}};
      },
      out);
  collect(
      recipe->mixes, [](const ExpertMix& mix) { return !mix.empty(); },
      [&](Experts e) {
        return Replace{layer, std::move(e), {}};
      },
      out);
  collect(
      recipe->unit_masks, [](const std::vector<int>& units) { return !units.empty(); },
      [&](Experts e) {
        return NeuronMask{layer, std::move(e), {}};
      },
      out);
  collect(
      recipe->others, [](const OtherExpert& other) { return bool(other); },
      [&](Experts e) {
        return SetExpertKind{layer, std::move(e)};
      },
      out);
  if (recipe->k != 0) out.push_back({TopK{layer, 0}, std::nullopt});
  if (recipe->temperature != 1.0f) out.push_back({Temperature{layer, 1.0f}, std::nullopt});
  if (recipe->scheme) out.push_back({SetScheme{layer, {}}, std::nullopt});
  return out;
}

bool same_edits(const Recipe& a, const Recipe& b) {
  for (int row = 0; row < int(std::max(a.layers.size(), b.layers.size())); ++row) {
    const LayerRecipe *one = a.layer(row), *other = b.layer(row);
    if (one && other ? *one != *other : one != other) return false;
  }
  return a.adapters == b.adapters && a.path == b.path;
}

std::vector<EditCommand> script_of(const SessionSnapshot& snapshot) {
  std::vector<EditCommand> out;
  for (size_t i = 0; i < snapshot.history_cursor && i < snapshot.history.size(); ++i) {
    const HistoryEntry& entry = snapshot.history[i];
    for (EditCommand command : entry.edits) {
      const uint64_t begins = std::max(command.at_token.value_or(0), entry.first_token);
      const bool from_start = (entry.applied && entry.sequence != snapshot.sequence) || begins == 0;
      command.at_token = from_start ? std::nullopt : std::optional<uint64_t>(begins);
      out.push_back(std::move(command));
    }
  }
  return out;
}

}  // namespace switchyard
