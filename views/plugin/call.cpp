#include "views/plugin/call.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>
#include <imgui.h>

#include "engine/base/text.h"
#include "views/ui/canvas.h"
#include "views/ui/draw.h"

namespace switchyard {
namespace {

constexpr size_t kMostItems = 20'000, kMostCells = 1'000'000;

ViewCall& call_of(const sy_draw* draw) {
  return *reinterpret_cast<const ViewCall::Draw*>(draw)->call;
}
ViewCall& call_of(const sy_rows* rows) {
  return *reinterpret_cast<const ViewCall::Rows*>(rows)->call;
}
std::string words(const char* text) {
  return text ? printable(text, 400) : std::string();
}
float sound(float x) {
  return std::isfinite(x) ? std::clamp(x, -1e5f, 1e5f) : 0.0f;
}

}  // namespace

ViewCall::ViewCall(PluginView& shown, const RunData& run, const Selection& selection, const TimeCursor& cursor)
    : view(shown), data(run) {
  in.call = this, draw.call = this, rows.call = this;
  sy_view_in& table = in.table;
  table.struct_size = sizeof table;
  table.line = 15;
  table.expert = selection.expert.value_or(-1);
  table.token = [](const sy_view_in* asked, uint64_t index, uint32_t row, sy_view_token* out) {
    return reinterpret_cast<const In*>(asked)->call->token(index, row, out);
  };
  if (!data.plan || data.plan->moe_layers.empty()) return;
  for (size_t row = 0; row < data.plan->moe_layers.size(); ++row) {
    layers.push_back(uint32_t(data.plan->moe_layers[row]));
    table.experts = std::max(table.experts, uint32_t(data.plan->routed(int(row)).router.experts));
  }
  table.rows = uint32_t(layers.size());
  table.layers = layers.data();
  table.k = uint32_t(data.plan->routed(0).router.experts_per_token);
  table.tokens = data.tokens();
  table.shown = data.shown_index(cursor);
  table.row = uint32_t(std::clamp(selection.moe_layer, 0, int(layers.size()) - 1));
}

int ViewCall::token(uint64_t index, uint32_t row, sy_view_token* out) {
  if (!out || index >= data.tokens() || row >= layers.size() || !data.frames[index]) return 1;
  const RoutingFrame& frame = *data.frames[index];
  const LayerHeader& layer = frame.layer(int(row));
  auto& wide = ids.emplace_back();
  for (const ExpertId id : frame.ids(int(row))) wide.push_back(id == kNoExpert ? -1 : int32_t(id));
  const auto weights = frame.weights(int(row)), logits = frame.logits(int(row));
  sy_view_token full{};
  full.struct_size = out->struct_size;
  full.token_id = frame.header().token_id;
  full.sequence = frame.header().sequence;
  full.position = uint32_t(frame.header().token_index);
  full.phase = index >= data.prompt_tokens;
  full.used = std::min(uint32_t(layer.k_used), uint32_t(wide.size()));
  full.slots = uint32_t(wide.size());
  full.text = index < data.pieces.size() ? data.pieces[index].c_str() : "";
  full.id = wide.data();
  full.weight = weights.empty() ? nullptr : weights.data();
  full.logits = logits.empty() ? nullptr : logits.data();
  full.entropy = layer.stats.entropy, full.margin = layer.stats.margin, full.topk_mass = layer.stats.topk_mass,
  full.lse = layer.stats.lse;
  full.flags = frame.header().flags & (FrameFlags::kNan | FrameFlags::kFallback);
  std::memcpy(out, &full, std::min<size_t>(out->struct_size, sizeof full));
  return 0;
}

ImVec2 ViewCall::at(float x, float y) const {
  return {area.x0 + sound(x), area.y0 + sound(y)};
}
ItemRect ViewCall::rect(float x0, float y0, float x1, float y1) const {
  const ImVec2 a = at(x0, y0), b = at(x1, y1);
  return {std::min(a.x, b.x), std::min(a.y, b.y), std::max(a.x, b.x), std::max(a.y, b.y)};
}

uint32_t ViewCall::color(int32_t name) const {
  const Theme& theme = context->theme;
  switch (name) {
    case SY_COLOR_MUTED:
      return ink(theme.muted);
    case SY_COLOR_ACCENT:
      return ink(theme.selection);
    case SY_COLOR_GRID:
      return ink(theme.line);
    case SY_COLOR_WARNING:
      return ink(theme.error);
    case SY_COLOR_BACKGROUND:
      return ink(theme.dock);
    default:
      break;
  }
  return name >= SY_COLOR_FIRST_CATEGORY ? ink(category_color(name - SY_COLOR_FIRST_CATEGORY)) : ink(theme.text);
}

void ViewCall::begin_drawing(const ViewContext& shown) {
  context = &shown;
  area = view_area();
  in.table.width = area.width(), in.table.height = area.height(), in.table.line = em(kLineHeight);
  sy_draw& d = draw.table;
  d.struct_size = sizeof d;
  d.text = [](const sy_draw* t, float x, float y, int32_t name, const char* text) {
    ViewCall& c = call_of(t);
    const ImVec2 p = c.at(x, y);
    draw_text({p.x, p.y + c.in.table.line / 2}, Face::kWords, c.color(name), words(text));
  };
  d.text_width = [](const sy_draw*, const char* text) { return text_width(Face::kWords, words(text)); };
  d.line = [](const sy_draw* t, float x0, float y0, float x1, float y1, int32_t name, float width) {
    ViewCall& c = call_of(t);
    ImGui::GetWindowDrawList()->AddLine(c.at(x0, y0), c.at(x1, y1), c.color(name),
                                        std::clamp(sound(width), 0.5f, 20.0f));
  };
  d.polyline = [](const sy_draw* t, const float* xy, uint32_t points, int32_t name, float width) {
    ViewCall& c = call_of(t);
    if (!xy || points > 200'000) return;
    std::vector<ImVec2> path;
    path.reserve(points);
    for (uint32_t i = 0; i < points; ++i) path.push_back(c.at(xy[2 * i], xy[2 * i + 1]));
    ImGui::GetWindowDrawList()->AddPolyline(path.data(), int(path.size()), c.color(name),
                                             std::clamp(sound(width), 0.5f, 20.0f));
  };
  d.rect = [](const sy_draw* t, float x0, float y0, float x1, float y1, int32_t name, int32_t filled) {
    ViewCall& c = call_of(t);
    if (filled)
      fill(c.rect(x0, y0, x1, y1), c.color(name));
    else
      frame(c.rect(x0, y0, x1, y1), c.color(name));
  };
  d.cells = [](const sy_draw* t, float x0, float y0, float x1, float y1, const float* values, uint32_t rows,
               uint32_t cols, float low, float high) {
    ViewCall& c = call_of(t);
    if (!values || rows == 0 || cols == 0 || uint64_t(rows) * cols > kMostCells) return;
    if (c.view.grids_.size() <= c.grids) c.view.grids_.resize(c.grids + 1);
    auto& [seen, grid] = c.view.grids_[c.grids++];
    const std::span<const float> all(values, size_t(rows) * cols);
    if (grid.rows() != int(rows) || grid.cols() != int(cols) ||
        !std::equal(all.begin(), all.end(), seen.begin(), seen.end())) {
      seen.assign(all.begin(), all.end());
      std::vector<Rgb> colors;
      colors.reserve(all.size());
      for (const float value : all)
        colors.push_back(map_color(ColorMap::kViridis,
                                   (double(value) - double(low)) / std::max(1e-30, double(high) - double(low)),
                                   c.context->theme));
      grid.set(int(rows), int(cols), colors);
    }
    grid.draw(c.rect(x0, y0, x1, y1), c.context->theme.dock);
  };
  d.bars = [](const sy_draw* t, float x0, float y0, float x1, float y1, const float* values, uint32_t count, float high,
              int32_t name) {
    ViewCall& c = call_of(t);
    if (!values || count == 0 || count > 100'000) return;
    const ItemRect all = c.rect(x0, y0, x1, y1);
    const float width = all.width() / float(count);
    for (uint32_t i = 0; i < count; ++i) {
      const float share = high > 0 && std::isfinite(values[i]) ? std::clamp(values[i] / high, 0.0f, 1.0f) : 0.0f;
      fill({all.x0 + width * float(i), all.y1 - all.height() * share,
            all.x0 + width * float(i) + std::max(1.0f, width * 0.85f), all.y1},
           c.color(name));
    }
  };
  d.axis = [](const sy_draw* t, float x0, float y0, float x1, float y1, int32_t vertical, float low, float high,
              const char* title) {
    ViewCall& c = call_of(t);
    const ItemRect all = c.rect(x0, y0, x1, y1);
    const uint32_t muted = ink(c.context->theme.muted);
    for (int i = 0; i <= 4; ++i) {
      const float share = float(i) / 4;
      const std::string label = fmt::format("{:.3g}", double(low) + (double(high) - double(low)) * double(share));
      if (vertical)
        draw_text({all.x0 - em(0.4f), all.y1 - all.height() * share}, Face::kMono, muted, label, Align::kRight, kSmall);
      else
        draw_text({all.x0 + all.width() * share, all.y1 + em(0.8f)}, Face::kMono, muted, label, Align::kCentre, kSmall);
    }
    if (vertical)
      draw_text({all.x0, all.y0 - em(0.8f)}, Face::kWords, muted, words(title), Align::kLeft, kSmall);
    else
      draw_text({(all.x0 + all.x1) / 2, all.y1 + em(2.0f)}, Face::kWords, muted, words(title), Align::kCentre, kSmall);
  };
  d.button = [](const sy_draw* t, float x, float y, const char* label) {
    ViewCall& c = call_of(t);
    ImGui::SetCursorScreenPos(c.at(x, y));
    return int(small_button(*c.context, words(label), words(label)));
  };
  d.slider = [](const sy_draw* t, float x, float y, float width, const char* label, float value, float low,
                float high) {
    ViewCall& c = call_of(t);
    const std::string name = words(label);
    if (!(low < high) || c.view.sliders_.size() > 200) return value;
    const SliderSpec spec{name, name, low, high, low};
    return slider_line(*c.context, c.rect(x, y, x + width, y + c.in.table.line * 1.2f), spec, value,
                       c.view.sliders_[name])
        .value_or(value);
  };
  d.item = [](const sy_draw* t, const char* id, const char* label, double value, const char* unit, float x0, float y0,
              float x1, float y1) {
    ViewCall& c = call_of(t);
    if (!id || c.context->items.items().size() >= kMostItems) return 0;
    const ItemRect where = c.rect(x0, y0, x1, y1);
    c.context->items.add(
        {words(id), words(label), value, words(unit), where, "drawn by the plugin " + c.view.plugin_->id()});
    const ImVec2 mouse = ImGui::GetMousePos();
    return int(ImGui::IsWindowHovered() && ImGui::IsMouseClicked(ImGuiMouseButton_Left) &&
               where.contains(mouse.x, mouse.y));
  };
  d.clip = [](const sy_draw* t, float x0, float y0, float x1, float y1) {
    ViewCall& c = call_of(t);
    if (c.clips >= 16) return;
    const ItemRect where = c.rect(x0, y0, x1, y1);
    ImGui::PushClipRect({where.x0, where.y0}, {where.x1, where.y1}, true);
    ++c.clips;
  };
  d.unclip = [](const sy_draw* t) {
    ViewCall& c = call_of(t);
    if (c.clips == 0) return;
    ImGui::PopClipRect();
    --c.clips;
  };
  d.scroll = [](const sy_draw* t, float lines, float visible) {
    ViewCall& c = call_of(t);
    float& at = c.view.scrolled_;
    if (ImGui::IsWindowHovered()) at -= 3 * ImGui::GetIO().MouseWheel;
    for (const KeyPress& press : key_presses()) {
      if (press.key == ImGuiKey_PageDown)
        at += visible;
      else if (press.key == ImGuiKey_PageUp)
        at -= visible;
      else if (press.key == ImGuiKey_DownArrow)
        at += 1;
      else if (press.key == ImGuiKey_UpArrow)
        at -= 1;
    }
    at = std::clamp(at, 0.0f, std::max(0.0f, sound(lines) - sound(visible)));
    return at;
  };
  d.select = [](const sy_draw* t, uint32_t row, int32_t expert) {
    ViewCall& c = call_of(t);
    if (row >= c.layers.size()) return;
    Selection selection;
    selection.moe_layer = int(row);
    if (expert >= 0 && expert < c.data.plan->routed(int(row)).router.experts) selection.expert = expert;
    c.selections.push_back(selection);
  };
  d.show_token = [](const sy_draw* t, uint64_t index) {
    ViewCall& c = call_of(t);
    if (index < c.data.tokens()) c.tokens.push_back(index);
  };
  d.edit = [](const sy_draw* t, const char* json) {
    ViewCall& c = call_of(t);
    if (json && c.edits.size() < 64) c.edits.emplace_back(json);
  };
}

void ViewCall::end_drawing() {
  for (; clips > 0; --clips) ImGui::PopClipRect();
  const ViewCommands& commands = context->commands;
  if (!selections.empty() && commands.select) commands.select(selections.back());
  if (!tokens.empty() && commands.set_cursor) commands.set_cursor(tokens.back());
  if (edits.empty() || !data.plan) return;
  std::string script;
  for (const std::string& one : edits) script += (script.empty() ? "" : ",") + one;
  auto parsed = parse_script("{\"schema\":1,\"edits\":[" + script + "]}", *data.plan);
  if (!parsed)
    return view.plugin_->fault(view.contribution_.id + " asks for an edit that cannot be: " + parsed.error().message());
  if (commands.edit_all) commands.edit_all(std::move(*parsed));
}

void ViewCall::begin_listing() {
  sy_rows& r = rows.table;
  r.struct_size = sizeof r;
  r.column = [](const sy_rows* t, const char* name, const char* unit) {
    ViewCall& c = call_of(t);
    if (c.listed.columns.size() < 64 && c.listed.cells.empty() && c.cells_in_row == 0)
      c.listed.columns.push_back({words(name), words(unit), 4});
  };
  const auto add = [](ViewCall& c, TableCell cell) {
    if (c.cells_in_row >= c.listed.columns.size() || c.listed.cells.size() >= kMostCells) return;
    c.listed.cells.push_back(std::move(cell));
    ++c.cells_in_row;
  };
  static const auto append = add;
  r.text = [](const sy_rows* t, const char* cell) { append(call_of(t), words(cell)); };
  r.number = [](const sy_rows* t, double cell) {
    const bool whole = cell == std::floor(cell) && std::abs(cell) < 9e15;
    append(call_of(t), !std::isfinite(cell) ? TableCell(std::monostate())
                       : whole              ? TableCell(int64_t(cell))
                                            : TableCell(cell));
  };
  r.end = [](const sy_rows* t) {
    ViewCall& c = call_of(t);
    if (c.cells_in_row == 0) return;
    while (c.cells_in_row < c.listed.columns.size()) append(c, std::monostate());
    c.cells_in_row = 0;
  };
}

}  // namespace switchyard
