#include "views/ui/draw.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include <fmt/format.h>

#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {
namespace {

ImFont* font_of(Face face) {
  const Canvas& c = canvas();
  return face == Face::kMono ? c.mono : face == Face::kBold ? c.bold : c.words;
}

ImDrawList* list() {
  return ImGui::GetWindowDrawList();
}

}  // namespace

ImU32 ink(Rgb c, float alpha) {
  return IM_COL32(c.r, c.g, c.b, int(alpha * 255.0f + 0.5f));
}

Rgb mix(Rgb a, Rgb b, float part) {
  const auto one = [part](uint8_t x, uint8_t y) {
    return uint8_t(std::lround(float(x) + (float(y) - float(x)) * part));
  };
  return {one(a.r, b.r), one(a.g, b.g), one(a.b, b.b)};
}

float em(float sizes) {
  return sizes * ImGui::GetFontSize() / kLineHeight;
}

float text_width(Face face, std::string_view text, float size) {
  return font_of(face)->CalcTextSizeA(em(size * kLineHeight), FLT_MAX, 0, text.data(), text.data() + text.size()).x;
}

float draw_text(ImVec2 at, Face face, ImU32 color, std::string_view text, Align align, float size) {
  const float width = text_width(face, text, size);
  const float x = align == Align::kLeft ? at.x : align == Align::kRight ? at.x - width : at.x - width / 2;
  const float height = em(size * kLineHeight);
  list()->AddText(font_of(face), height, {std::round(x), std::round(at.y - height / 2)}, color, text.data(),
                  text.data() + text.size());
  return width;
}

std::string fitted(Face face, std::string_view text, float width, float size) {
  if (text_width(face, text, size) <= width) return std::string(text);
  std::string cut(text);
  while (!cut.empty()) {
    do cut.pop_back();
    while (!cut.empty() && (uint8_t(cut.back()) & 0xC0) == 0x80);
    if (!cut.empty() && uint8_t(cut.back()) >= 0xC0) cut.pop_back();
    if (text_width(face, cut + "…", size) <= width) return cut.empty() ? std::string() : cut + "…";
  }
  return {};
}

void fill(const ItemRect& r, ImU32 color, float rounding) {
  if (r.x1 > r.x0 && r.y1 > r.y0) list()->AddRectFilled({r.x0, r.y0}, {r.x1, r.y1}, color, rounding);
}

void frame(const ItemRect& r, ImU32 color, float thickness, float rounding) {
  list()->AddRect({r.x0, r.y0}, {r.x1, r.y1}, color, rounding, thickness);
}

void selection_frame(const ItemRect& r, const Theme& theme, float thickness) {
  frame(inset(r, -1 - thickness), ink(theme.dock), 2, 3);
  frame(inset(r, -thickness / 2), ink(theme.selection), thickness, 2);
}

void hatch(const ItemRect& r, ImU32 color, float spacing, float thickness) {
  if (r.x1 <= r.x0 || r.y1 <= r.y0) return;
  // Lines x + y = c; the phase is tied to the screen so that neighbouring cells join.
  const float first = std::ceil((r.x0 + r.y0) / spacing) * spacing;
  for (float c = first; c < r.x1 + r.y1; c += spacing) {
    const float left = std::max(r.x0, c - r.y1), right = std::min(r.x1, c - r.y0);
    if (right > left) list()->AddLine({left, c - left}, {right, c - right}, color, thickness);
  }
}

void dashed_line(ImVec2 from, ImVec2 to, ImU32 color, float dash, float gap) {
  const float dx = to.x - from.x, dy = to.y - from.y, length = std::hypot(dx, dy);
  if (length <= 0) return;
  for (float at = 0; at < length; at += dash + gap) {
    const float a = at / length, b = std::min(1.0f, (at + dash) / length);
    list()->AddLine({from.x + dx * a, from.y + dy * a}, {from.x + dx * b, from.y + dy * b}, color, 1.0f);
  }
}

void ringed_dot(ImVec2 centre, float radius) {
  list()->AddCircleFilled(centre, radius + 1.0f, IM_COL32(20, 22, 28, 255), 16);
  list()->AddCircleFilled(centre, radius - 0.25f, IM_COL32(255, 255, 255, 255), 16);
}

ItemRect inset(const ItemRect& r, float by) {
  return {r.x0 + by, r.y0 + by, r.x1 - by, r.y1 - by};
}

void legend_column(const ItemRect& bar, ColorMap map, const Theme& theme, const std::vector<LegendTick>& ticks) {
  constexpr int kSteps = 24;
  for (int i = 0; i < kSteps; ++i) {
    const float low = float(i) / kSteps, high = float(i + 1) / kSteps;
    const ImU32 a = ink(map_color(map, low, theme)), b = ink(map_color(map, high, theme));
    list()->AddRectFilledMultiColor({bar.x0, bar.y1 - high * bar.height()}, {bar.x1, bar.y1 - low * bar.height()}, b, b,
                                    a, a);
  }
  for (const LegendTick& tick : ticks) {
    const float y = bar.y1 - float(tick.at) * bar.height();
    list()->AddLine({bar.x1, y}, {bar.x1 + em(0.25f), y}, ink(tick.strong ? theme.text : theme.faint), 1);
    if (tick.strong) list()->AddLine({bar.x0, y}, {bar.x1, y}, ink(theme.dock), 1);
    draw_text({bar.x1 + em(0.45f), y}, Face::kMono, ink(tick.strong ? theme.text : theme.muted), tick.words,
              Align::kLeft, kSmall);
  }
}

float legend_line(ImVec2 at, float bar_width, ColorMap map, const Theme& theme, std::string_view low,
                  std::string_view high) {
  const float gap = em(0.5f);
  float x = at.x + draw_text(at, Face::kMono, ink(theme.muted), low, Align::kLeft, kSmall) + gap;
  constexpr int kSteps = 16;
  for (int i = 0; i < kSteps; ++i) {
    const ImU32 a = ink(map_color(map, double(i) / kSteps, theme)),
                b = ink(map_color(map, double(i + 1) / kSteps, theme));
    list()->AddRectFilledMultiColor({x + bar_width * float(i) / kSteps, at.y - em(0.25f)},
                                    {x + bar_width * float(i + 1) / kSteps, at.y + em(0.25f)}, a, b, b, a);
  }
  x += bar_width + gap;
  x += draw_text({x, at.y}, Face::kMono, ink(theme.muted), high, Align::kLeft, kSmall);
  return x - at.x;
}

float named_value(ImVec2 at, const Theme& theme, std::string_view name, std::string_view value, ImU32 value_color) {
  const float words = name.empty() ? 0 : draw_text(at, Face::kWords, ink(theme.muted), name) + em(0.35f);
  return words + draw_text({at.x + words, at.y}, Face::kMono, value_color ? value_color : ink(theme.text), value);
}

ValueFlow::ValueFlow(const ViewContext& context, float x0, float x1, float first_line)
    : context_(context), x0_(x0), x1_(x1), x_(x0), y_(first_line) {}

void ValueFlow::add(std::string_view name, double value, std::string_view text, std::string_view unit,
                    std::string_view detail, ImU32 color) {
  const float width = text_width(Face::kWords, name) + em(0.35f) + text_width(Face::kMono, text) +
                      (unit.empty() ? 0 : em(0.35f) + text_width(Face::kWords, unit));
  if (x_ > x0_ && x_ + width > x1_) x_ = x0_, y_ += em(1.65f);
  float end = x_ + named_value({x_, y_}, context_.theme, name, text, color);
  if (!unit.empty()) end += em(0.35f) + draw_text({end + em(0.35f), y_}, Face::kWords, ink(context_.theme.muted), unit);
  Item item;
  item.id = "stat/" + std::string(name);
  item.label = std::string(name);
  item.value = value;
  item.unit = std::string(unit);
  item.rect = {x_, y_ - em(0.8f), end, y_ + em(0.8f)};
  item.detail = std::string(detail);
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  if (ImGui::IsWindowHovered() && item.rect.contains(mouse.x, mouse.y)) context_.items.set_hovered(item.id);
  context_.items.add(std::move(item));
  x_ = end + em(1.4f);
}

void empty_state(const ViewContext& context, std::string_view title, std::string_view next_step,
                 std::string_view button, std::string_view action) {
  const ItemRect area = view_area();
  const float width = area.width() - em(2);
  const float middle = (area.x0 + area.x1) / 2;
  std::vector<std::string> lines(1);
  for (size_t from = 0; from < next_step.size();) {  // wrapped by words
    size_t to = next_step.find(' ', from);
    if (to == std::string_view::npos) to = next_step.size();
    const std::string word(next_step.substr(from, to - from));
    const std::string longer = lines.back().empty() ? word : lines.back() + " " + word;
    if (!lines.back().empty() && text_width(Face::kWords, longer) > std::min(width, em(34)))
      lines.push_back(word);
    else
      lines.back() = longer;
    from = to + 1;
  }
  const float height = em(1.9f) + em(1.5f) * float(lines.size()) + (button.empty() ? 0 : em(2.6f));
  float y = std::max(area.y0 + em(0.8f), (area.y0 + area.y1 - height) / 2) + em(0.7f);
  draw_text({middle, y}, Face::kBold, ink(context.theme.text), fitted(Face::kBold, title, width), Align::kCentre);
  y += em(1.7f);
  for (const std::string& line : lines) {
    draw_text({middle, y}, Face::kWords, ink(context.theme.muted), fitted(Face::kWords, line, width), Align::kCentre);
    y += em(1.5f);
  }
  context.items.add({.id = "empty",
                     .label = std::string(title),
                     .value = 0,
                     .unit = "",
                     .rect = area,
                     .detail = std::string(next_step)});
  if (button.empty()) return;
  const std::string words(button);
  const float button_width = text_width(Face::kWords, words) + em(1.6f);
  ImGui::SetCursorScreenPos({middle - button_width / 2, y});
  ImGui::PushStyleVar(ImGuiStyleVar_FrameBorderSize, 1.0f);
  const bool pressed = ImGui::Button(words.c_str(), {button_width, 0});
  ImGui::PopStyleVar();
  if (pressed && context.commands.run_action) context.commands.run_action(action);
  const ImVec2 a = ImGui::GetItemRectMin(), b = ImGui::GetItemRectMax();
  context.items.add(
      {.id = "empty/action", .label = words, .value = 0, .unit = "", .rect = {a.x, a.y, b.x, b.y}, .detail = {}});
}

bool has_frames(const ViewContext& context) {
  if (!context.data.plan) {
    empty_state(context, "No model is open",
                "Open a checkpoint, drop its folder here, or start with the model that comes with the program.",
                "Open the demo", "file.open_demo");
    return false;
  }
  if (context.data.plan->moe_layers.empty()) {
    empty_state(context, "This model has no experts", "Open a Mixture-of-Experts checkpoint to see its routing.");
    return false;
  }
  if (context.data.tokens() == 0) {
    empty_state(context, "No token has been routed yet", "Write a prompt in Generation and press Run.", "Run",
                "run.start");
    return false;
  }
  if (!context.data.shown(context.cursor)) {
    empty_state(context, "This token is no longer in memory",
                "The oldest frames were let go to stay within the memory limit. A recorded trace keeps them.",
                "Go live", "view.go_live");
    return false;
  }
  if (context.data.shown(context.cursor)->header().capture == CaptureLevel::kOff) {
    empty_state(context, "Routing is not captured",
                "Set capture to ids, weights or logits; the next token is shown then.");
    return false;
  }
  return true;
}

ItemRect view_area() {
  const ImVec2 at = ImGui::GetWindowPos(), size = ImGui::GetWindowSize();
  return {at.x, at.y, at.x + size.x, at.y + size.y};
}

std::string signed_number(double value, int digits) {
  const std::string text = fmt::format("{:.{}f}", std::abs(value), digits);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return (zero || value > 0 ? "+" : "−") + text;
}

}  // namespace switchyard
