#include "views/gate_inspector/view.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <imgui.h>

#include "views/gate_inspector/columns.h"
#include "views/ui/draw.h"

namespace switchyard {

GateInspector::GateInspector() {
  settings_ = {{"sort", "Sort", {"sort: score", "sort: id"}, 0},
               {"scope", "k and temperature", {"k, temperature: this layer", "k, temperature: all layers"}, 0}};
}

std::string GateInspector::subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const {
  if (!data.plan || data.plan->moe_layers.empty() || data.tokens() == 0) return {};
  const uint64_t token = data.shown_index(cursor);
  std::string piece = token < data.pieces.size() ? data.pieces[token] : std::string();
  if (const size_t first = piece.find_first_not_of(' '); first != std::string::npos) piece = piece.substr(first);
  const int row = clamped_row(data, selection);
  const LayerRecipe* recipe = recipe_shown(data, cursor, row);
  const int decision = decision_row(data, selection, data.shown(cursor));
  std::string out = fmt::format("token {} “{}” · {}", token, piece, decision_name(*data.plan, decision, recipe_of(data, token)));
  if (recipe && recipe->scheme)
    out += " · " + describe(recipe->scheme.choice);
  return out;
}

void GateInspector::refresh(const ViewContext& context, int row) {
  const std::string key = fmt::format("{} {} {} {}", context.data.serial, context.data.shown_index(context.cursor), row,
                                      settings_[0].value);
  if (key == key_) return;
  key_ = key;
  table_ = gate_table(context.data, context.cursor, row);
  if (settings_[0].value == 0) {
    order_ = by_score(table_);
  } else {
    order_.resize(table_.rows.size());
    std::iota(order_.begin(), order_.end(), 0);
  }
}

int GateInspector::edited_expert(const ViewContext& context) const {
  return selected_expert(context).value_or(order_.empty() ? 0 : table_.rows[size_t(order_[0])].expert);
}

float GateInspector::draw_summary(const ViewContext& context, float x0, float x1, float y) const {
  const Theme& theme = context.theme;
  std::string note = table_.edited ? "outline = native router" : "as the model has it, no edit in this layer";
  if (!table_.passed)
    note = "this token does not pass this layer: an encoder-decoder routes it on the other side";
  else if (!table_.note.empty())
    note = table_.note;
  else if (!table_.has_logits)
    note = "logits are not captured: selection and weights only";
  else if (table_.missing_bias)
    note = "the router's own bias is not at hand: scores are without it";
  draw_text({x0, y}, Face::kWords, ink(theme.muted), fitted(Face::kWords, note, x1 - x0));
  ValueFlow flow(context, x0, x1, y + em(1.75f));
  flow.add("entropy", table_.stats.entropy, fmt::format("{:.2f}", table_.stats.entropy), "nat",
           "−Σ p ln p over all experts, of the edited logits");
  flow.add("margin k|k+1", table_.stats.margin, fmt::format("{:.3f}", table_.stats.margin), "",
           "lowest selected − highest unselected edited logit");
  flow.add("mass", table_.stats.topk_mass, fmt::format("{:.3f}", table_.stats.topk_mass), "",
           "softmax probability of the selected set");
  flow.add("changed vs native", table_.changed, fmt::format("{} of {}", table_.changed, table_.k_used), "",
           "selected experts that the native router would not have selected", table_.changed ? ink(theme.edit) : 0);
  return flow.bottom();
}

void GateInspector::draw_buttons(const ViewContext& context, int row, int expert, float x0, float x1, float y) {
  const ExpertEdits edits = edits_of(recipe_next(context.data, row), expert);
  float x = x0;
  const auto button = [&](const char* id, const std::string& words, bool edited, bool enabled = true) {
    const float width = small_button_width(words);
    if (x > x0 && x + width > x1) x = x0, y += em(2.3f);
    ImGui::SetCursorScreenPos({x, y});
    x += width + em(0.55f);
    return small_button(context, id, words, edited, enabled);
  };
  if (button("mute", fmt::format("{} E{}", edits.muted ? "Unmute" : "Mute", expert), edits.muted))
    toggle_mute(context, row, expert);
  if (button("force", edits.forced ? "Unforce" : "Force", edits.forced)) toggle_force(context, row, expert);
  const bool can_undo = context.data.snapshot && context.data.snapshot->history_cursor > 0;
  if (button("undo", "Undo", false, can_undo) && context.commands.run_action) context.commands.run_action("edit.undo");
  if (button("reset", "Reset layer", false, recipe_next(context.data, row) != nullptr)) reset_layer(context, row);
}

void GateInspector::draw_controls(const ViewContext& context, int row, float x0, float x1, float y) {
  const int expert = edited_expert(context);
  const RouterSpec& spec = context.data.plan->routed(row).router;
  const LayerRecipe* recipe = recipe_next(context.data, row);
  const ExpertEdits edits = edits_of(recipe, expert);
  const LayerSet here = layer_of_row(*context.data.plan, row),
                 scope = settings_[1].value ? LayerSet{{}, here.attention} : here;
  const auto send = [&](Edit edit) {
    if (context.commands.edit) context.commands.edit({std::move(edit), std::nullopt});
  };

  const float head =
      draw_text({x0, y}, Face::kBold, ink(context.theme.text), "Edit " + context.data.plan->row_name(row)) + em(0.7f);
  draw_text({x0 + head, y}, Face::kWords, ink(context.theme.muted),
            fitted(Face::kWords, "applies from the next token", x1 - x0 - head));
  y += em(0.95f);
  const float height = em(1.72f);
  const auto line = [&] {
    const ItemRect r{x0, y, x1, y + height};
    y += height;
    return r;
  };

  const int native_k = spec.experts_per_token, k = recipe && recipe->k ? recipe->k : native_k;
  const SliderSpec k_spec{"top_k",         "top-k", 1,   float(std::min(spec.experts, std::max(16, 4 * native_k))),
                          float(native_k), "%.0f",  true};
  if (const auto v = slider_line(context, line(), k_spec, float(k), k_)) {
    const int wanted = std::clamp(int(*v), 1, spec.experts);
    send(TopK{scope, wanted == native_k ? 0 : wanted});
  }
  const SliderSpec t_spec{"temperature", "temperature", 0.1f, 4.0f, 1.0f, "%.2f", false, true};
  if (const auto v = slider_line(context, line(), t_spec, recipe ? recipe->temperature : 1.0f, temperature_))
    send(Temperature{scope, std::clamp(*v, 0.01f, 100.0f)});
  const SliderSpec bias_spec{"bias", fmt::format("bias E{}", expert), -5, 5, 0, "%+.2f"};
  if (const auto v = slider_line(context, line(), bias_spec, edits.bias, bias_))
    send(Bias{here, {ExpertId(expert)}, std::abs(*v) < 0.02f ? 0.0f : *v});
  const SliderSpec output_spec{"output", fmt::format("output E{}", expert), 0, 2, 1, "%.2f"};
  if (const auto v = slider_line(context, line(), output_spec, edits.output_scale, output_))
    send(ExpertScale{here, {ExpertId(expert)}, std::abs(*v - 1) < 0.01f ? 1.0f : *v});
  draw_buttons(context, row, expert, x0, x1, y + em(0.5f));
}

void GateInspector::answer_key(const ViewContext& context, const KeyPress& press, int row) {
  if (order_.empty() || edit_key(context, press, row, edited_expert(context))) return;
  const int down = int(press.key == ImGuiKey_DownArrow) - int(press.key == ImGuiKey_UpArrow);
  if (down == 0) return;
  const auto here = std::find_if(order_.begin(), order_.end(),
                                 [&](int i) { return context.selection.expert == table_.rows[size_t(i)].expert; });
  const int place = here == order_.end() ? 0 : std::clamp(int(here - order_.begin()) + down, 0, int(order_.size()) - 1);
  scroll_to_ = place;
  const int expert = table_.rows[size_t(order_[size_t(place)])].expert;
  select_expert(context, row, expert);
  context.items.set_hovered(fmt::format("expert {}", expert));
}

void GateInspector::draw(const ViewContext& context) {
  if (!has_frames(context)) return;
  const int row = clamped_row(context.data, context.selection);
  refresh(context, decision_row(context.data, context.selection, context.data.shown(context.cursor)));

  const ItemRect area = view_area();
  const float x0 = area.x0 + em(0.9f), x1 = std::max(x0 + em(8), area.x1 - em(1.1f));
  const float width = (x1 - x0) / em();
  const float header = em(1.9f), controls = em(11.8f + (width < 24 ? 2.3f : 0.0f));
  const float summary = em(width < 18 ? 9.5f : width < 30 ? 6.6f : 5.0f);
  // A short dock keeps five rows and scrolls as a whole.
  const float rows = std::max(em(9.3f), area.height() - header - controls - summary);
  const bool scrolls = header + rows + summary + controls > area.height() + 1;

  ImGui::SetCursorScreenPos({area.x0, area.y0});
  ImGui::BeginChild("all", {area.width(), area.height()}, 0,
                    scrolls ? 0 : ImGuiWindowFlags_NoScrollbar | ImGuiWindowFlags_NoScrollWithMouse);
  const float top = area.y0 - ImGui::GetScrollY();
  const Columns columns(x0, x1, table_);
  draw_header(context, columns, top + em(1.0f));

  ImGui::SetCursorScreenPos({area.x0, top + header});
  ImGui::BeginChild("rows", {area.width(), rows});
  draw_rows(context, row, columns);
  ImGui::EndChild();

  const float y = draw_summary(context, x0, x1, top + header + rows + em(1.1f));
  fill({x0, y, x1, y + 1}, ink(context.theme.line));
  draw_controls(context, row, x0, x1, y + em(1.2f));
  ImGui::SetCursorScreenPos({x0, top + header + rows + summary + controls - 1});
  ImGui::Dummy({1, 1});
  for (const KeyPress& press : key_presses()) answer_key(context, press, row);
  ImGui::EndChild();
}

}  // namespace switchyard
