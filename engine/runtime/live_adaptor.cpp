// See live_adaptor.h.
#include "engine/runtime/live_adaptor.h"

#include <algorithm>

#include <fmt/format.h>

namespace switchyard {
namespace {

// The place that an edit of the adaptor sets, and the edit without its payload.
std::pair<std::string, Edit> place_of(const Edit& edit) {
  const auto key = [](const char* what, const LayerSet& set, ExpertId expert = 0) { return fmt::format("{}/{}/{}/{}", what, set.layers[0], set.attention, expert); };
  if (const auto* bias = std::get_if<Bias>(&edit)) return {key("bias", bias->layers, bias->experts[0]), edit};
  if (const auto* row = std::get_if<RouterRow>(&edit))
    return {key("row", row->layers, row->experts[0]), RouterRow{row->layers, row->experts, 1, RowSource{}}};
  const auto& scheme = std::get<SetScheme>(edit);
  return {key("scheme", scheme.layers), SetScheme{scheme.layers, {}}};
}

// The edit that gives its place the value that it has in `base`.
Edit as_in(const Recipe& base, const ModelPlan& plan, Edit edit) {
  const auto layer_of = [&](const LayerSet& set) {
    int row = 0;
    while (layer_of_row(plan, row) != set) ++row;
    return base.layer(row);
  };
  if (auto* bias = std::get_if<Bias>(&edit)) {
    const LayerRecipe* layer = layer_of(bias->layers);
    bias->value = layer && !layer->logit_bias.empty() ? layer->logit_bias[bias->experts[0]] : 0;
  } else if (auto* row = std::get_if<RouterRow>(&edit)) {
    const LayerRecipe* layer = layer_of(row->layers);
    row->row = layer && !layer->router_rows.empty() ? layer->router_rows[row->experts[0]] : RowSource{};
  } else {
    auto& scheme = std::get<SetScheme>(edit);
    const LayerRecipe* layer = layer_of(scheme.layers);
    scheme.scheme = layer ? layer->scheme : Scheme{};
  }
  return edit;
}

}  // namespace

Result<void> validate(const AdaptationPlan& plan, const ModelPlan& model) {
  SY_CHECK(validate(plan.options, model));
  if (plan.every < 1) return fail(ErrorCode::kUsage, fmt::format("a step every {} tokens is not possible.", plan.every));
  if (plan.max_steps < 1) return fail(ErrorCode::kUsage, fmt::format("{} steps are none.", plan.max_steps));
  return {};
}

void LiveAdaptor::set_phase(Phase phase, std::string reason) {
  state_.phase = phase;
  state_.reason = std::move(reason);
  shared_.reset();
}

bool LiveAdaptor::scheduled(uint64_t position, uint64_t prompt) const {
  if (state_.phase != Phase::kActive || position < start_) return false;
  const uint64_t first = std::max(start_, prompt);
  return position == start_ || (position > first && (position - first) % uint64_t(state_.plan.every) == 0);
}

void LiveAdaptor::begin_step() {
  state_.stepping = true;
  state_.iterations.clear();
  shared_.reset();
}

void LiveAdaptor::iterated(const AdaptStep& step) {
  state_.iterations.push_back(step);
  shared_.reset();
}

void LiveAdaptor::give_up_step() {
  state_.stepping = false;
  state_.iterations.clear();
  shared_.reset();
}

void LiveAdaptor::end_step(AdaptationEntry entry, const std::vector<EditCommand>& edits) {
  give_up_step();
  state_.log.push_back(std::move(entry));
  for (const EditCommand& command : edits) touched_.insert(place_of(command.edit));
}

std::vector<EditCommand> LiveAdaptor::way_back(const ModelPlan& plan) const {
  std::vector<EditCommand> edits;
  for (const auto& [place, edit] : touched_)
    edits.push_back({as_in(*base_, plan, edit), std::nullopt});
  return edits;
}

std::shared_ptr<const AdaptationState> LiveAdaptor::state(bool spent) {
  if (!shared_ || shared_->spent != spent) {
    state_.spent = spent;
    shared_ = std::make_shared<const AdaptationState>(state_);
  }
  return shared_;
}

}  // namespace switchyard
