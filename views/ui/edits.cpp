#include "views/ui/edits.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <imgui.h>

#include "views/ui/draw.h"

namespace switchyard {
namespace {

LayerSet layer_of(const ViewContext& context, int moe_layer) {
  return layer_of_row(*context.data.plan, moe_layer);
}

void send(const ViewContext& context, Edit edit) {
  if (context.commands.edit) context.commands.edit({std::move(edit), std::nullopt});
}

void send_all(const ViewContext& context, std::vector<EditCommand> edits) {
  if (edits.empty()) return;
  if (edits.size() > 1 && context.commands.edit_all) return context.commands.edit_all(std::move(edits));
  for (EditCommand& edit : edits)
    if (context.commands.edit) context.commands.edit(std::move(edit));
}

// The edits that make `experts` of a layer native again.
std::vector<EditCommand> resets(const ViewContext& context, int moe_layer, const std::vector<ExpertId>& experts) {
  const LayerRecipe* recipe = recipe_next(context.data, moe_layer);
  const LayerSet layers = layer_of(context, moe_layer);
  const auto edited = [&](const auto& condition) {
    std::vector<ExpertId> out;
    for (const ExpertId e : experts)
      if (condition(edits_of(recipe, e))) out.push_back(e);
    return out;
  };
  std::vector<EditCommand> out;
  const auto add = [&out](Edit edit) { out.push_back({std::move(edit), std::nullopt}); };
  if (auto e = edited([](const ExpertEdits& x) { return x.muted; }); !e.empty()) add(Unmute{layers, e});
  if (auto e = edited([](const ExpertEdits& x) { return x.forced; }); !e.empty()) add(Unforce{layers, e});
  if (auto e = edited([](const ExpertEdits& x) { return x.bias != 0; }); !e.empty()) add(Bias{layers, e, 0});
  if (auto e = edited([](const ExpertEdits& x) { return x.select_bias != 0; }); !e.empty())
    add(SelectBias{layers, e, 0});
  if (auto e = edited([](const ExpertEdits& x) { return x.output_scale != 1; }); !e.empty())
    add(ExpertScale{layers, e, 1});
  if (auto e = edited([](const ExpertEdits& x) { return x.row_scale != 1; }); !e.empty()) add(RouterRow{layers, e, 1});
  if (auto e = edited([](const ExpertEdits& x) { return x.row_replaced; }); !e.empty())
    add(RouterRow{layers, e, 1, RowSource{}});
  if (auto e = edited([](const ExpertEdits& x) { return !x.mix.empty(); }); !e.empty()) add(Replace{layers, e, {}});
  if (auto e = edited([](const ExpertEdits& x) { return x.neurons_off > 0; }); !e.empty())
    add(NeuronMask{layers, e, {}});
  if (auto e = edited([](const ExpertEdits& x) { return x.kind != ExpertKind::kOwn; }); !e.empty())
    add(SetExpertKind{layers, e});
  return out;
}

}  // namespace

const LayerRecipe* recipe_shown(const RunData& data, const TimeCursor& cursor, int moe_layer) {
  const Recipe* recipe = data.frames.empty() ? nullptr : recipe_of(data, data.shown_index(cursor));
  return recipe ? recipe->layer(moe_layer % int(data.plan->moe_layers.size())) : nullptr;
}

const Recipe* recipe_of(const RunData& data, uint64_t token) {
  return data.snapshot ? data.snapshot->recipe_at(token) : nullptr;
}

const LayerRecipe* recipe_next(const RunData& data, int moe_layer) {
  if (data.recipe_ahead) return data.recipe_ahead->layer(moe_layer);
  if (!data.snapshot || data.snapshot->epochs.empty() || !data.snapshot->epochs.back().recipe) return nullptr;
  return data.snapshot->epochs.back().recipe->layer(moe_layer);
}

ExpertEdits edits_of(const LayerRecipe* recipe, int expert) {
  ExpertEdits out;
  if (!recipe) return out;
  const auto value = [expert](const auto& values, auto fallback) {
    return size_t(expert) < values.size() ? decltype(fallback)(values[expert]) : fallback;
  };
  out.muted = value(recipe->muted, uint8_t(0)) != 0;
  out.forced = value(recipe->forced, uint8_t(0)) != 0;
  out.bias = value(recipe->logit_bias, 0.0f);
  out.select_bias = value(recipe->select_bias, 0.0f);
  out.output_scale = value(recipe->expert_scale, 1.0f);
  out.row_scale = value(recipe->row_scale, 1.0f);
  out.mix = value(recipe->mixes, ExpertMix{});
  out.neurons_off = int(value(recipe->unit_masks, std::vector<int>{}).size());
  out.row_replaced = value(recipe->router_rows, RowSource{}) != RowSource{};
  out.kind = value(recipe->others, OtherExpert{}).kind;
  return out;
}

std::string in_words(const ExpertEdits& edits) {
  std::string out;
  const auto add = [&out](std::string words) { out += (out.empty() ? "" : ", ") + words; };
  if (edits.muted) add("muted");
  if (edits.forced) add("forced");
  if (edits.bias != 0) add("bias " + signed_number(edits.bias, 2));
  if (edits.select_bias != 0) add("selection bias " + signed_number(edits.select_bias, 2));
  if (edits.row_scale != 1) add(fmt::format("router row × {:.2f}", edits.row_scale));
  if (edits.output_scale != 1) add(fmt::format("output × {:.2f}", edits.output_scale));
  if (edits.row_replaced) add("router row replaced");
  if (edits.mix.size() == 1 && edits.mix[0].weight == 1)
    add(fmt::format("runs expert {}", edits.mix[0].expert));
  else if (!edits.mix.empty())
    add(fmt::format("runs a mix of {} experts", edits.mix.size()));
  if (edits.kind != ExpertKind::kOwn) add(fmt::format("runs as {}", name(edits.kind)));
  if (edits.neurons_off > 0) add(fmt::format("{} neuron{} off", edits.neurons_off, edits.neurons_off == 1 ? "" : "s"));
  return out;
}

std::string edit_lines(const ViewContext& context, int moe_layer, int expert) {
  const ExpertEdits shown = edits_of(recipe_shown(context.data, context.cursor, moe_layer), expert);
  const ExpertEdits next = edits_of(recipe_next(context.data, moe_layer), expert);
  std::string out = in_words(shown);
  if (next != shown)
    out +=
        (out.empty() ? "" : "\n") + ("from the next token: " + (next.any() ? in_words(next) : "as the model has it"));
  return out;
}

int experts_of(const RunData& data, int moe_layer) {
  return data.plan->routed(moe_layer).router.experts;
}
std::vector<int> shown_rows(const RunData& data) {
  const int routers = int(data.plan->moe_layers.size());
  std::vector<int> rows(static_cast<size_t>(routers));
  std::iota(rows.begin(), rows.end(), 0);
  rows.insert(rows.end(), data.later_rows.begin(), data.later_rows.end());
  std::sort(rows.begin(), rows.end(), [routers](int a, int b) { return std::pair(a % routers, a) < std::pair(b % routers, b); });
  return rows;
}
int decision_row(const RunData& data, const Selection& selection, const RoutingFrame* frame) {
  const int router = clamped_row(data, selection), row = router + selection.pass * int(data.plan->moe_layers.size());
  return frame && frame->passed(row) ? row : router;
}
std::string row_label(const RunData& data, int row) {
  const int routers = int(data.plan->moe_layers.size()), router = row % routers;
  const std::string layer = std::to_string(model_layer(data, router)),
                    name = data.plan->row_name(router).ends_with("attention") ? layer + "a" : layer;
  return row < routers ? name : fmt::format("{}·{}", name, row / routers + 1);
}
int model_layer(const RunData& data, int moe_layer) {
  return data.plan->moe_layers[size_t(moe_layer)];
}

int clamped_row(const RunData& data, const Selection& selection) {
  return std::clamp(selection.moe_layer, 0, int(data.plan->moe_layers.size()) - 1);
}

std::optional<int> selected_expert(const ViewContext& context) {
  const auto expert = context.selection.expert;
  const bool there =
      expert && *expert >= 0 && *expert < experts_of(context.data, clamped_row(context.data, context.selection));
  return there ? expert : std::nullopt;
}

RowRecipes row_recipes(const ViewContext& context, int moe_layer) {
  return {recipe_shown(context.data, context.cursor, moe_layer), recipe_next(context.data, moe_layer)};
}

void mark_edits(const Theme& theme, const RowRecipes& recipes, int expert, const ItemRect& cell) {
  const ExpertEdits shown = edits_of(recipes.shown, expert), next = edits_of(recipes.next, expert);
  if (!shown.any() && !next.any()) return;
  const ImU32 color = ink(theme.edit, shown.any() ? 1.0f : 0.55f);
  const ExpertEdits& state = shown.any() ? shown : next;
  if (state.muted) fill(cell, ink(theme.dock, 0.72f));
  if (state.muted || state.forced) hatch(cell, color, em(0.42f), 1.2f);
  frame(inset(cell, 1), color, 1.5f);  // inside, so that the frame of the selection does not hide it
}

void select_expert(const ViewContext& context, int moe_layer, int expert) {
  Selection selection = context.selection;
  if (selection.moe_layer != moe_layer) selection.pass = 0;
  selection.moe_layer = moe_layer;
  selection.expert = expert;
  selection.expert_to.reset();
  if (context.commands.select && selection != context.selection) context.commands.select(selection);
}

void toggle_mute(const ViewContext& context, int moe_layer, int expert) {
  const LayerSet layers = layer_of(context, moe_layer);
  if (edits_of(recipe_next(context.data, moe_layer), expert).muted)
    send(context, Unmute{layers, {ExpertId(expert)}});
  else
    send(context, Mute{layers, {ExpertId(expert)}});
}

void toggle_force(const ViewContext& context, int moe_layer, int expert) {
  const LayerSet layers = layer_of(context, moe_layer);
  if (edits_of(recipe_next(context.data, moe_layer), expert).forced)
    send(context, Unforce{layers, {ExpertId(expert)}});
  else
    send(context, Force{layers, {ExpertId(expert)}});
}

void nudge_bias(const ViewContext& context, int moe_layer, int expert, float by) {
  float value = edits_of(recipe_next(context.data, moe_layer), expert).bias + by;
  if (std::abs(value) < 1e-4f) value = 0;  // back at native exactly
  send(context, Bias{layer_of(context, moe_layer), {ExpertId(expert)}, value});
}

void reset_expert(const ViewContext& context, int moe_layer, int expert) {
  send_all(context, resets(context, moe_layer, {ExpertId(expert)}));
}

void reset_layer(const ViewContext& context, int moe_layer) {
  std::vector<ExpertId> experts(size_t(experts_of(context.data, moe_layer)));
  std::iota(experts.begin(), experts.end(), ExpertId(0));
  auto edits = resets(context, moe_layer, experts);
  const LayerRecipe* recipe = recipe_next(context.data, moe_layer);
  const LayerSet layers = layer_of(context, moe_layer);
  if (recipe && recipe->k != 0) edits.push_back({TopK{layers, 0}, std::nullopt});
  if (recipe && recipe->temperature != 1.0f) edits.push_back({Temperature{layers, 1.0f}, std::nullopt});
  if (recipe && recipe->scheme) edits.push_back({SetScheme{layers, {}}, std::nullopt});
  send_all(context, std::move(edits));
}

bool edit_key(const ViewContext& context, const KeyPress& press, int moe_layer, int expert) {
  if (press.shift) return false;
  switch (press.key) {
    case ImGuiKey_M:
      if (!press.repeat) toggle_mute(context, moe_layer, expert);
      return true;
    case ImGuiKey_G:
      if (!press.repeat) toggle_force(context, moe_layer, expert);
      return true;
    case ImGuiKey_LeftBracket:
      nudge_bias(context, moe_layer, expert, -0.1f);
      return true;
    case ImGuiKey_RightBracket:
      nudge_bias(context, moe_layer, expert, 0.1f);
      return true;
    default:
      return false;
  }
}

void expert_menu(const ViewContext& context, int moe_layer, int expert) {
  if (!ImGui::BeginPopup(kExpertMenu)) return;
  const ExpertEdits edits = edits_of(recipe_next(context.data, moe_layer), expert);
  const auto entry = [&context](const char* id, const char* words, const char* key, bool enabled = true) {
    const bool chosen = ImGui::MenuItem(words, key, false, enabled);
    const ImVec2 a = ImGui::GetItemRectMin(), b = ImGui::GetItemRectMax();
    context.items.add({.id = std::string("menu/") + id,
                       .label = words,
                       .value = 0,
                       .unit = "",
                       .rect = {a.x, a.y, b.x, b.y},
                       .detail = {}});
    return chosen;
  };
  ImGui::TextDisabled("layer %d, expert %d", model_layer(context.data, moe_layer), expert);
  ImGui::Separator();
  if (entry("mute", edits.muted ? "Unmute" : "Mute", "M")) toggle_mute(context, moe_layer, expert);
  if (entry("force", edits.forced ? "Unforce" : "Force", "G")) toggle_force(context, moe_layer, expert);
  if (entry("bias_up", "Bias +0.5", nullptr)) nudge_bias(context, moe_layer, expert, 0.5f);
  if (entry("bias_down", "Bias −0.5", nullptr)) nudge_bias(context, moe_layer, expert, -0.5f);
  if (entry("reset", "Reset expert", nullptr, edits.any())) reset_expert(context, moe_layer, expert);
  ImGui::EndPopup();
}

}  // namespace switchyard
