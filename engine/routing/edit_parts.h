// What the files of edits share: which rows an edit means, and small views of its kinds. Pure; any thread.
#pragma once

#include <algorithm>
#include <string>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include "engine/model/linears.h"
#include "engine/routing/edit.h"

namespace switchyard::edit_parts {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

// The three kinds that set one number per expert: where the number lives and what means "none".
struct ValueField {
  std::vector<float> LayerRecipe::*values;
  float neutral;
};
inline ValueField field_of(const Bias&) {
  return {&LayerRecipe::logit_bias, 0.0f};
}
inline ValueField field_of(const SelectBias&) {
  return {&LayerRecipe::select_bias, 0.0f};
}
inline ValueField field_of(const ExpertScale&) {
  return {&LayerRecipe::expert_scale, 1.0f};
}
template <class E>
concept SetsValues = requires(const E& edit) {
  field_of(edit);
};
template <class E>
concept NamesExperts = requires(const E& edit) {
  edit.experts;
};
template <class E>
concept NamesMembers = requires(const E& edit) {
  edit.members;
};

inline const LayerSet& layers_of(const Edit& edit) {
  static const LayerSet kWholeModel;
  return std::visit(Overloaded{[](const LayerPath&) -> const LayerSet& { return kWholeModel; },
                               [](const auto& e) -> const LayerSet& { return e.layers; }},
                    edit);
}

// nullptr: a router of attention.
inline const MoeSpec* moe_of(const ModelPlan& plan, int row) {
  const RoutingRow& at = plan.rows[row];
  return std::get_if<MoeSpec>(&plan.layers[at.layer].sublayers[at.sublayer].op);
}

// The experts that have weights; identities come behind them.
inline int stored_experts(const ModelPlan& plan, int row) {
  const MoeSpec* moe = moe_of(plan, row);
  return plan.routed(row).router.experts - (moe ? moe->identity_experts : 0);
}

inline bool holds(const LayerSet& set, int layer) {
  return set.all() || std::find(set.layers.begin(), set.layers.end(), layer) != set.layers.end();
}

// The routing rows of these routers, ascending.
inline std::vector<int> rows_of(const LayerSet& set, const ModelPlan& plan) {
  std::vector<int> rows;
  for (int row = 0; row < static_cast<int>(plan.moe_layers.size()); ++row) {
    if ((moe_of(plan, row) == nullptr) != set.attention) continue;
    if (holds(set, plan.moe_layers[row])) rows.push_back(row);
  }
  return rows;
}

// As above; a mask only where the experts have hidden units; adapters and paths change no row.
inline std::vector<int> rows_of(const Edit& edit, const ModelPlan& plan) {
  if (std::holds_alternative<SetAdapters>(edit) || std::holds_alternative<LayerPath>(edit)) return {};
  std::vector<int> rows = rows_of(layers_of(edit), plan);
  if (std::holds_alternative<NeuronMask>(edit) || std::holds_alternative<SetExpertKind>(edit))
    std::erase_if(rows, [&](int row) { return moe_of(plan, row) == nullptr; });
  return rows;
}

inline bool names(const SetAdapters& edit, const Linear& linear) {
  return holds(edit.layers, linear.layer) && !linear.module.empty() &&
         (edit.modules.empty() || std::any_of(edit.modules.begin(), edit.modules.end(),
                                              [&](const std::string& m) { return names_module(m, linear.module); }));
}

// "2-5, 7"
template <class T>
std::string ranges(const std::vector<T>& values) {
  std::string text;
  for (size_t i = 0; i < values.size();) {
    size_t end = i;
    while (end + 1 < values.size() && values[end + 1] == values[end] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += end - i >= 2 ? fmt::format("{}-{}", values[i], values[end]) : fmt::format("{}", values[i]);
    i = end - i >= 2 ? end + 1 : i + 1;
  }
  return text;
}

// What the edit makes of one layer's recipe. experts: of the layer.
void apply_to_layer(const Edit& edit, int model_layer, int experts, LayerRecipe& layer);

}  // namespace switchyard::edit_parts
