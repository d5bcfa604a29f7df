// The list of the gate inspector: one row per expert, its columns and what a click on it does.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <imgui.h>

#include "views/gate_inspector/columns.h"
#include "views/gate_inspector/view.h"

namespace switchyard {
namespace {

constexpr float kRow = 1.86f, kBar = 0.42f;  // row height, half the height of a bar

void logit_bar(float zero, float end, float y, ImU32 color) {
  fill({std::min(zero, end), y - em(kBar), std::max(std::max(zero, end), std::min(zero, end) + 1), y + em(kBar)}, color,
       2);
}

void number(float right, float y, ImU32 color, float value, int digits) {
  draw_text({right, y}, Face::kMono, color, fmt::format("{:.{}f}", value, digits), Align::kRight);
}

}  // namespace

void GateInspector::draw_header(const ViewContext& context, const Columns& c, float y) const {
  const auto head = [&](float x, float room, const char* words, Align align = Align::kLeft) {
    draw_text({x, y}, Face::kWords, ink(context.theme.muted), fitted(Face::kWords, words, room), align);
  };
  head(c.x0, em(3.65f), "expert");
  if (c.logit.bar > 0) head(c.logit.x, c.logit.bar + c.logit.number, "logit");
  const float edited_room = c.edited.bar + c.edited.number;
  if (c.edited.bar > 0)
    head(c.edited.x, edited_room, text_width(Face::kWords, "after edits") <= edited_room ? "after edits" : "edited");
  if (c.score.bar > 0) head(c.score.x, c.score.bar + c.score.number + em(0.6f), "probability");
  if (c.native_width > 0) head(c.native_right, c.native_width, "native", Align::kRight);
  head(c.x1, em(3.7f), "weight", Align::kRight);
}

void GateInspector::draw_edited_logit(const ViewContext& context, const Columns& c, const GateRow& gate,
                                      float y) const {
  const Theme& theme = context.theme;
  const auto& column = c.edited;
  const bool moved = gate.edited != gate.logit;
  if (gate.edits.muted) {
    const float stub = std::min(em(1.3f), column.bar);
    hatch({column.x, y - em(kBar), column.x + stub, y + em(kBar)}, ink(theme.edit), em(0.42f), 1.2f);
    const float room = column.bar + column.number - stub - em(0.4f);
    if (text_width(Face::kWords, "muted") <= room)
      draw_text({column.x + stub + em(0.4f), y}, Face::kWords, ink(theme.edit), "muted");
    return;
  }
  logit_bar(c.logit_x(column, 0), c.logit_x(column, gate.edited), y,
            ink(gate.selected ? theme.selection : theme.faint));
  if (moved) {  // where the raw logit ended
    const float raw = c.logit_x(column, gate.logit);
    fill({raw - 0.75f, y - em(kBar) - 2, raw + 0.75f, y + em(kBar) + 2}, ink(theme.edit));
  }
  if (gate.edits.forced)
    frame({column.x - 2, y - em(kBar) - 2, column.x + column.bar + 2, y + em(kBar) + 2}, ink(theme.edit), 1.2f, 3);
  if (column.number > 0)
    number(column.x + column.bar + column.number, y, ink(moved ? theme.edit : theme.muted), gate.edited, 2);
}

void GateInspector::draw_probability(const ViewContext& context, const Columns& c, const GateRow& gate, float y) const {
  const Theme& theme = context.theme;
  const auto width = [&](float score) { return std::max(em(0.15f), c.score.bar * score / c.most); };
  if (gate.score > 0)
    fill({c.score.x, y - em(kBar), c.score.x + width(gate.score), y + em(kBar)},
         ink(gate.selected ? theme.selection : theme.faint), 3);
  if (table_.edited &&
      (gate.native_selected != gate.selected || std::abs(gate.native_score - gate.score) > 0.02f * c.most))
    frame({c.score.x, y - em(kBar), c.score.x + width(gate.native_score), y + em(kBar)},
          ink(gate.native_selected ? theme.text : theme.muted), 1, 3);
  if (c.score.number > 0) number(c.score.x + c.score.bar + c.score.number, y, ink(theme.muted), gate.score, 3);
}

void GateInspector::draw_row(const ViewContext& context, int row, const Columns& c, const GateRow& gate, float y) {
  const Theme& theme = context.theme;
  const ItemRect line{c.x0 - em(0.4f), y - em(0.9f), c.x1 + em(0.4f), y + em(0.9f)};
  if (gate.selected) fill(line, ink(theme.selection, 0.13f), 3);
  const bool edited = gate.edits.any() || edits_of(recipe_next(context.data, row), gate.expert).any();
  draw_text({c.x0, y}, Face::kMono,
            ink(edited          ? theme.edit
                : gate.selected ? theme.text
                                : theme.muted),
            fmt::format("E{}", gate.expert));
  if (c.logit.bar > 0) {
    logit_bar(c.logit_x(c.logit, 0), c.logit_x(c.logit, gate.logit), y, ink(theme.faint));
    if (c.logit.number > 0) number(c.logit.x + c.logit.bar + c.logit.number, y, ink(theme.muted), gate.logit, 2);
  }
  if (c.edited.bar > 0) draw_edited_logit(context, c, gate, y);
  if (c.score.bar > 0) draw_probability(context, c, gate, y);
  if (c.native_width > 0 && gate.native_selected) number(c.native_right, y, ink(theme.muted), gate.native_weight, 3);
  if (gate.selected && std::isfinite(gate.weight)) number(c.x1, y, ink(theme.text), gate.weight, 3);
  answer_row(context, row, gate, line);
}

void GateInspector::answer_row(const ViewContext& context, int row, const GateRow& gate, const ItemRect& line) {
  Item item;
  item.id = fmt::format("expert {}", gate.expert);
  item.label =
      fmt::format("{}, expert {}{}", context.data.plan->row_name(row), gate.expert, gate.selected ? ", selected" : "");
  item.value = gate.selected ? gate.weight : 0;
  item.unit = "weight";
  item.rect = line;
  if (table_.has_logits)
    item.detail = fmt::format("logit {:.4f}, after edits {}\nprobability {:.5f}, native {:.5f}\nnative weight {}",
                              gate.logit, std::isfinite(gate.edited) ? fmt::format("{:.4f}", gate.edited) : "−∞",
                              gate.score, gate.native_score,
                              gate.native_selected ? fmt::format("{:.4f}", gate.native_weight) : "none, not selected");
  if (const std::string edits = edit_lines(context, row, gate.expert); !edits.empty()) item.detail += "\n" + edits;

  const bool chosen = context.selection.expert == gate.expert;
  ImGui::SetCursorScreenPos({line.x0, line.y0});
  ImGui::InvisibleButton(item.id.c_str(), {line.width(), line.height()},
                         ImGuiButtonFlags_MouseButtonLeft | ImGuiButtonFlags_MouseButtonRight);
  if (ImGui::IsItemHovered()) {
    if (!chosen) frame(line, ink(context.theme.line), 1, 3);
    context.items.set_hovered(item.id);
  }
  if (chosen) frame(line, ink(context.theme.selection), 1.5f, 3);
  if (ImGui::IsItemClicked(ImGuiMouseButton_Left) || ImGui::IsItemClicked(ImGuiMouseButton_Right))
    select_expert(context, row, gate.expert);
  if (ImGui::IsItemClicked(ImGuiMouseButton_Right)) menu_expert_ = gate.expert, ImGui::OpenPopup(kExpertMenu);
  context.items.add(std::move(item));
}

void GateInspector::draw_rows(const ViewContext& context, int row, const Columns& columns) {
  const float height = em(kRow);
  const ImVec2 origin = ImGui::GetCursorScreenPos();
  const float top = ImGui::GetWindowPos().y, bottom = top + ImGui::GetWindowHeight();
  if (columns.low < 0)  // bars to the left of it are negative
    for (const auto* column : {&columns.logit, &columns.edited})
      if (column->bar > 0)
        fill({columns.logit_x(*column, 0) - 1, top, columns.logit_x(*column, 0), bottom}, ink(context.theme.line));
  for (size_t i = 0; i < order_.size(); ++i) {
    const float y = origin.y + height * (float(i) + 0.5f);
    if (int(i) == scroll_to_) {
      if (y - height / 2 < top)
        ImGui::SetScrollY(height * float(i));
      else if (y + height / 2 > bottom)
        ImGui::SetScrollY(height * float(i + 1) - (bottom - top));
    }
    if (y + height < top || y - height > bottom) continue;
    draw_row(context, row, columns, table_.rows[size_t(order_[i])], y);
  }
  scroll_to_ = -1;
  ImGui::SetCursorScreenPos(origin);
  ImGui::Dummy({1, height * float(order_.size())});
  expert_menu(context, row, menu_expert_);
}

}  // namespace switchyard
