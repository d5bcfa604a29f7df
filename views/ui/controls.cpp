#include "views/ui/controls.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <imgui.h>

#include "views/ui/canvas.h"
#include "views/ui/draw.h"

namespace switchyard {

std::optional<float> slider_line(const ViewContext& context, const ItemRect& line, const SliderSpec& spec, float value,
                                 SliderState& state) {
  const Theme& theme = context.theme;
  const float y = (line.y0 + line.y1) / 2;
  const float label_width = std::min(em(7.2f), line.width() * 0.34f),
              number_width = std::min(em(4.2f), line.width() * 0.25f);
  const float shown = context.seconds < state.until ? state.value : value;

  draw_text({line.x0, y}, Face::kWords, ink(theme.muted), fitted(Face::kWords, spec.label, label_width - em(0.5f)));
  const ItemRect track{line.x0 + label_width, y - em(0.12f), line.x1 - number_width, y + em(0.12f)};
  fill(track, ink(mix(theme.raised, theme.line, 0.6f)), em(0.12f));

  float dragged = shown;
  ImGui::SetCursorScreenPos({track.x0 - em(0.5f), y - em(0.66f)});
  ImGui::SetNextItemWidth(std::max(em(2), track.width() + em(1)));
  for (const ImGuiCol color : {ImGuiCol_FrameBg, ImGuiCol_FrameBgHovered, ImGuiCol_FrameBgActive})
    ImGui::PushStyleColor(color, IM_COL32(0, 0, 0, 0));
  ImGui::PushStyleVar(ImGuiStyleVar_FramePadding, ImVec2(0, em(0.06f)));
  ImGui::PushStyleVar(ImGuiStyleVar_GrabMinSize, em(1.0f));
  ImGui::PushStyleVar(ImGuiStyleVar_GrabRounding, em(0.6f));
  // No text on the track; the format only serves the field that Ctrl+click opens.
  const bool changed =
      ImGui::SliderFloat(("##" + spec.id).c_str(), &dragged, spec.min, spec.max, "",
                         (spec.logarithmic ? ImGuiSliderFlags_Logarithmic : 0) | ImGuiSliderFlags_NoRoundToFormat);
  ImGui::PopStyleVar(3);
  ImGui::PopStyleColor(3);
  std::optional<float> out;
  if (changed) out = dragged;
  if (ImGui::IsItemHovered() && ImGui::IsMouseDoubleClicked(ImGuiMouseButton_Left)) out = spec.neutral;
  if (out && spec.whole) out = std::round(*out);
  if (out && *out == shown) out.reset();
  const bool active = ImGui::IsItemActive();
  if (out) state.value = *out;
  if (out || (active && context.seconds < state.until)) state.until = context.seconds + 0.4;

  const float now = out ? *out : shown;
  char text[32];
  std::snprintf(text, sizeof text, spec.format, double(now));
  draw_text({line.x1, y}, Face::kMono, ink(now == spec.neutral ? theme.text : theme.edit), text, Align::kRight);
  Item item;
  item.id = "slider/" + spec.id;
  item.label = spec.label;
  item.value = now;
  item.rect = {track.x0, y - em(0.6f), track.x1, y + em(0.6f)};
  item.detail = "double click: the model's own value; Ctrl+click: type a value";
  if (ImGui::IsItemHovered() && !active) context.items.set_hovered(item.id);
  context.items.add(std::move(item));
  return out;
}

float small_button_width(const std::string& words) {
  return text_width(Face::kWords, words) + em(1.5f);
}

bool small_button(const ViewContext& context, const std::string& id, const std::string& words, bool edited,
                  bool enabled) {
  if (edited) ImGui::PushStyleColor(ImGuiCol_Text, ink(context.theme.edit));
  ImGui::PushStyleVar(ImGuiStyleVar_FrameBorderSize, 1.0f);
  ImGui::BeginDisabled(!enabled);
  const bool pressed = ImGui::Button((words + "##" + id).c_str(), {small_button_width(words), em(1.95f)});
  ImGui::EndDisabled();
  ImGui::PopStyleVar();
  if (edited) ImGui::PopStyleColor();
  const ImVec2 a = ImGui::GetItemRectMin(), b = ImGui::GetItemRectMax();
  context.items.add(
      {.id = "button/" + id, .label = words, .value = 0, .unit = "", .rect = {a.x, a.y, b.x, b.y}, .detail = {}});
  return pressed;
}

}  // namespace switchyard
