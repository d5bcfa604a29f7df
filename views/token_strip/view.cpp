#include "views/token_strip/view.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <imgui.h>

#include "views/plot/axes.h"
#include "views/ui/draw.h"
#include "views/ui/edits.h"

namespace switchyard {

TokenStrip::TokenStrip() {
  settings_ = {{"tint", "Tint", {"entropy", "margin", "first expert"}, kEntropy}};
}

std::string TokenStrip::subtitle(const RunData& data, const Selection&, const TimeCursor& cursor) const {
  static constexpr const char* kNames[] = {"entropy by layer", "margin by layer", "first expert by layer"};
  if (data.tokens() == 0) return kNames[tint()];
  const uint64_t shown = data.shown_index(cursor);
  return fmt::format("{} · {} {} of {}", kNames[tint()], cursor ? "pinned" : "live", shown, data.tokens());
}

double TokenStrip::value(const RunData& data, uint64_t token, int row) const {
  const RoutingFrame* frame = data.frames[token].get();
  if (!frame || !frame->passed(row))
    return std::numeric_limits<double>::quiet_NaN();
  switch (tint()) {
    case kEntropy:
      return frame->layer(row).stats.entropy;
    case kMargin:
      return frame->layer(row).stats.margin;
    case kExpert:
      return frame->ids(row).empty() || frame->ids(row)[0] == kNoExpert ? std::numeric_limits<double>::quiet_NaN()
                                                                        : frame->ids(row)[0];
  }
  return 0;
}

float TokenStrip::x_of(double token, const ItemRect& strip) const {
  return strip.x0 + strip.width() * float((token - window_.first()) / window_.span());
}

void TokenStrip::refresh(const ViewContext& context, float width) {
  const RunData& data = context.data;
  // The texture covers whole tokens; drawing clips its ends to the window.
  first_drawn_ = uint64_t(std::floor(window_.first()));
  end_drawn_ = std::min(data.tokens(), uint64_t(std::ceil(window_.last() - 1e-9)));
  per_column_ = std::max<uint64_t>(1, uint64_t(std::floor(window_.span() / std::max(1.0f, width))));
  const std::string key = fmt::format("{} {} {} {} {} {}", data.serial, first_drawn_, end_drawn_, per_column_,
                                      settings_[0].value, context.theme.name);
  if (key == key_) return;
  key_ = key;

  rows_ = shown_rows(data);
  const int rows = int(rows_.size());
  const int columns = int((end_drawn_ - first_drawn_ + per_column_ - 1) / per_column_);
  std::vector<double> values(size_t(rows) * size_t(columns), std::numeric_limits<double>::quiet_NaN());
  double largest = 0;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      const uint64_t begin = first_drawn_ + uint64_t(column) * per_column_,
                     end = std::min(end_drawn_, begin + per_column_);
      double sum = 0;
      int count = 0;
      for (uint64_t token = begin; token < (tint() == kExpert ? begin + 1 : end); ++token)
        if (const double v = value(data, token, rows_[size_t(row)]); std::isfinite(v)) sum += v, ++count;
      if (count == 0) continue;
      const double mean = sum / count;
      values[size_t(row) * columns + column] = mean;
      largest = std::max(largest, mean);
    }
  scale_ = tint() == kEntropy ? std::log(double(std::max(2, data.plan->max_experts()))) : nice_ceiling(largest);
  std::vector<Rgb> colors(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i]))
      colors[i] = mix(context.theme.dock, context.theme.raised, 0.6f);
    else if (tint() == kExpert)
      colors[i] = expert_color(int(i) / columns, int(values[i]));
    else
      colors[i] = map_color(ColorMap::kCividis, values[i] / scale_, context.theme);
  }
  grid_.set(rows, columns, colors);
}

void TokenStrip::draw_cells(const ViewContext& context, const ItemRect& strip) {
  const double texture_end = double(first_drawn_) + double(grid_.cols()) * double(per_column_);
  const ItemRect whole{x_of(double(first_drawn_), strip), strip.y0, x_of(texture_end, strip), strip.y1};
  ImGui::PushClipRect({strip.x0, strip.y0}, {strip.x1, strip.y1}, true);
  grid_.draw(whole, context.theme.dock);
  ImGui::PopClipRect();
  const int selected = decision_row(context.data, context.selection, context.data.shown(context.cursor));
  row_labels(strip,
             {grid_.rows(), [&](int row) { return row_label(context.data, rows_[size_t(row)]); },
              [&](int row) { return rows_[size_t(row)] == selected; }},
             context.theme);

  const uint64_t shown = context.data.shown_index(context.cursor);
  const float x0 = x_of(double(shown), strip), x1 = x_of(double(shown) + 1, strip);
  if (x1 < strip.x0 || x0 > strip.x1) return;
  const float middle = (x0 + x1) / 2, half = std::max(2.0f, (x1 - x0) / 2);
  frame({std::max(strip.x0 - 2, middle - half - 1), strip.y0 - 2, std::min(strip.x1 + 2, middle + half + 1),
         strip.y1 + 2},
        ink(context.theme.selection), 2, 3);
}

void TokenStrip::draw_prompt_end(const ViewContext& context, const ItemRect& strip) const {
  const uint64_t end = context.data.prompt_tokens;
  if (end == 0 || double(end) < window_.first() || double(end) > window_.last()) return;
  const float x = x_of(double(end), strip);
  dashed_line({x, strip.y0 - em(0.3f)}, {x, strip.y1 + em(0.5f)}, ink(context.theme.text), 2, 2);
  const float width = text_width(Face::kWords, "prompt", kSmall);
  if (x - width - em(0.4f) > strip.x0)
    draw_text({x - em(0.35f), strip.y1 + em(0.75f)}, Face::kWords, ink(context.theme.muted), "prompt", Align::kRight,
              kSmall);
  context.items.add(
      {"prompt end", "end of the prompt", double(end), "tokens", {x - 3, strip.y0, x + 3, strip.y1 + em(1.2f)}, {}});
}

void TokenStrip::draw_edits(const ViewContext& context, const ItemRect& strip) const {
  if (!context.data.snapshot) return;
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  const ImU32 color = ink(context.theme.edit);
  float free_from = strip.x0;
  for (size_t i = 1; i < context.data.snapshot->epochs.size(); ++i) {
    const Epoch& epoch = context.data.snapshot->epochs[i];
    const double at = double(epoch.first_token);
    if (at < window_.first() || at > window_.last()) continue;
    const float x = std::round(x_of(at, strip));
    fill({x - 1, strip.y0 - em(0.25f), x + 1, strip.y1 + em(0.35f)}, color);
    const std::string name = fmt::format("e{}", epoch.epoch);
    const float width = text_width(Face::kMono, name, kSmall);
    // To the right of its line; at the live end to the left, away from the legend.
    const float left = x + em(0.2f) + width <= strip.x1 ? x + em(0.2f) : x - em(0.2f) - width;
    float end = x + 3;
    if (left >= free_from) {
      draw_text({left, strip.y1 + em(0.75f)}, Face::kMono, color, name, Align::kLeft, kSmall);
      end = std::max(end, left + width);
      free_from = left + width + em(0.4f);
    }
    Item item{"edit " + name,
              epoch.sentence,
              at,
              "first token under it",
              {x - 3, strip.y0 - em(0.25f), end, strip.y1 + em(1.2f)},
              {}};
    if (ImGui::IsWindowHovered() && item.rect.contains(mouse.x, mouse.y) && mouse.y > strip.y1)
      context.items.set_hovered(item.id);
    context.items.add(std::move(item));
  }
}

void TokenStrip::draw_side(const ViewContext& context, const ItemRect& side) const {
  const Theme& theme = context.theme;
  const bool live = !context.cursor;
  const std::string words = live ? "live" : fmt::format("pinned {}", context.data.shown_index(context.cursor));
  const Rgb color = live ? theme.ok : theme.selection;
  const float width = text_width(Face::kWords, words) + em(2.1f), half = em(0.8f);
  const ItemRect chip{side.x0, side.y0, side.x0 + width, side.y0 + 2 * half};
  fill(chip, ink(color, 0.12f), half);
  frame(chip, ink(color, 0.8f), 1, half);
  ImGui::GetWindowDrawList()->AddCircleFilled({chip.x0 + em(0.8f), chip.y0 + half}, em(0.25f), ink(color), 12);
  draw_text({chip.x0 + em(1.35f), chip.y0 + half}, Face::kWords, ink(live ? theme.ok : theme.text), words);
  ImGui::SetCursorScreenPos({chip.x0, chip.y0});
  if (ImGui::InvisibleButton("chip", {width, 2 * half}) && context.commands.set_cursor)
    context.commands.set_cursor(live ? TimeCursor(context.data.shown_index(context.cursor)) : TimeCursor());
  if (ImGui::IsItemHovered()) context.items.set_hovered("live");
  context.items.add({"live", live ? "follows the newest token" : "pinned; the run goes on", 0, "", chip,
                     live ? "click: stay at this token" : "click or End: go live"});
  if (side.height() < em(4.2f)) return;

  static constexpr const char* kNames[] = {"entropy, nat", "margin", "colour = expert"};
  const float y = side.y1 - em(0.5f);
  draw_text({side.x0, y - em(1.3f)}, Face::kWords, ink(theme.muted),
            fitted(Face::kWords, kNames[tint()], side.width(), kSmall), Align::kLeft, kSmall);
  if (tint() != kExpert)
    legend_line({side.x0, y}, em(2.6f), ColorMap::kCividis, theme, "0", fmt::format("{:.3g}", scale_));
}

void TokenStrip::register_items(const ViewContext& context, const ItemRect& strip) const {
  if (end_drawn_ <= first_drawn_) return;
  static constexpr const char* kUnits[] = {"nat", "logit margin", "first expert"};
  const float x0 = x_of(double(first_drawn_), strip), x1 = x_of(double(end_drawn_), strip);
  const int rows = grid_.rows(), columns = int(end_drawn_ - first_drawn_);
  context.items.add_grid({rows, columns, {x0, strip.y0, x1, strip.y1}, [=, this, c = context](int at, int column) {
                            const RunData& data = c.data;
                            const int row = rows_[size_t(at)];
                            const uint64_t token = first_drawn_ + uint64_t(column);
                            Item item;
                            item.id = fmt::format("token {}/layer {}", token, row_label(data, row));
                            item.label = fmt::format("token {} “{}”, {}", token,
                                                     token < data.pieces.size() ? data.pieces[token] : std::string(),
                                                     decision_name(*data.plan, row, recipe_of(data, token)));
                            item.value = value(data, token, row);
                            item.unit = kUnits[tint()];
                            const float height = strip.height() / float(rows);
                            item.rect = {x_of(double(token), strip), strip.y0 + height * float(at),
                                         x_of(double(token) + 1, strip), strip.y0 + height * float(at + 1)};
                            const RoutingFrame* frame = data.frames[token].get();
                            if (frame && frame->passed(row)) {
                              const DecisionStats& stats = frame->layer(row).stats;
                              item.detail = fmt::format("entropy {:.3f} nat, margin {:.3f}, mass {:.3f}\n{}", stats.entropy, stats.margin, stats.topk_mass,
                                                        chooses_experts(*data.plan, row, recipe_of(data, token)) ? "experts" : "chosen");
                              for (const ExpertId id : frame->used_ids(row)) item.detail += fmt::format(" {}", id);
                              if (const int changed = frame->layer(row).changed)
                                item.detail += fmt::format("\n{} changed by edits", changed);
                            } else if (frame) {
                              item.detail = "not routed here";
                            } else {
                              item.detail = "no longer in memory; a recorded trace keeps it";
                            }
                            return item;
                          }});
}

void TokenStrip::select_row(const ViewContext& context, int row) const {
  const int routers = int(context.data.plan->moe_layers.size());
  Selection selection = context.selection;
  selection.moe_layer = row % routers;
  selection.pass = row / routers;
  if (selection == context.selection || !context.commands.select) return;
  selection.expert_to.reset();
  context.commands.select(selection);
}

void TokenStrip::go_to(const ViewContext& context, const TimeCursor& cursor) {
  if (cursor) window_.reveal(*cursor);
  if (context.commands.set_cursor && cursor != context.cursor) context.commands.set_cursor(cursor);
}

void TokenStrip::answer_mouse(const ViewContext& context, const ItemRect& strip) {
  ImGui::SetCursorScreenPos({strip.x0, strip.y0});
  ImGui::InvisibleButton("strip", {std::max(1.0f, strip.width()), std::max(1.0f, strip.height())},
                         ImGuiButtonFlags_MouseButtonLeft | ImGuiButtonFlags_MouseButtonMiddle);
  const ImGuiIO& io = ImGui::GetIO();
  const double token_at = window_.first() + double((io.MousePos.x - strip.x0) / strip.width()) * window_.span();
  const auto token = [&] { return uint64_t(std::clamp(token_at, 0.0, double(context.data.tokens() - 1))); };
  const int row = rows_[size_t(
      std::clamp(int((io.MousePos.y - strip.y0) / strip.height() * float(grid_.rows())), 0, grid_.rows() - 1))];
  if (ImGui::IsItemHovered()) {
    context.items.set_hovered(fmt::format("token {}/layer {}", token(), row_label(context.data, row)));
    if (io.MouseWheel != 0 && !io.KeyShift) window_.zoom(std::pow(0.8, double(io.MouseWheel)), token_at);
    if (io.MouseWheelH != 0 || (io.MouseWheel != 0 && io.KeyShift))
      window_.pan(-double(io.MouseWheelH + (io.KeyShift ? io.MouseWheel : 0)) * window_.span() / 10);
  }
  if (!ImGui::IsItemActive()) return;
  if (ImGui::IsMouseDragging(ImGuiMouseButton_Middle, 0)) {
    window_.pan(-double(io.MouseDelta.x / strip.width()) * window_.span());
  } else if (ImGui::IsMouseDown(ImGuiMouseButton_Left)) {
    go_to(context, token());
    if (ImGui::IsItemActivated()) select_row(context, row);
  }
}

void TokenStrip::answer_key(const ViewContext& context, const KeyPress& press) {
  const uint64_t shown = context.data.shown_index(context.cursor), newest = context.data.tokens() - 1;
  const int row = clamped_row(context.data, context.selection);
  if (const auto expert = selected_expert(context); expert && edit_key(context, press, row, *expert)) return;
  switch (press.key) {
    case ImGuiKey_Comma:
    case ImGuiKey_LeftArrow:
      return go_to(context, shown > 0 ? shown - 1 : 0);
    case ImGuiKey_Period:
    case ImGuiKey_RightArrow:
      return go_to(context, std::min(shown + 1, newest));
    case ImGuiKey_Home:
      return go_to(context, uint64_t(0));
    case ImGuiKey_End:
      window_.reveal(newest);
      return go_to(context, std::nullopt);
    case ImGuiKey_W:
      return window_.zoom(0.7, double(shown));
    case ImGuiKey_S:
      return window_.zoom(1 / 0.7, double(shown));
    case ImGuiKey_A:
      return window_.pan(-window_.span() / 8);
    case ImGuiKey_D:
      return window_.pan(window_.span() / 8);
    case ImGuiKey_F:
      return window_.reveal(shown);
    case ImGuiKey_DownArrow:
    case ImGuiKey_UpArrow: {
      const int selected = decision_row(context.data, context.selection, context.data.shown(context.cursor));
      const int at = int(std::find(rows_.begin(), rows_.end(), selected) - rows_.begin());
      return select_row(context, rows_[size_t(std::clamp(at + (press.key == ImGuiKey_DownArrow ? 1 : -1), 0, grid_.rows() - 1))]);
    }
    default:
      return;
  }
}

void TokenStrip::answer_keys(const ViewContext& context) {
  for (const KeyPress& press : key_presses()) answer_key(context, press);
  const uint64_t shown = context.data.shown_index(context.cursor);
  const int row = decision_row(context.data, context.selection, context.data.shown(context.cursor));
  if (context.items.hovered().empty() && context.cursor != last_cursor_)
    context.items.set_hovered(fmt::format("token {}/layer {}", shown, row_label(context.data, row)));
  last_cursor_ = context.cursor;
}

void TokenStrip::draw(const ViewContext& context) {
  // The strip shows what is still in memory even where the shown token is not.
  if (!context.data.plan || context.data.plan->moe_layers.empty() || context.data.tokens() == 0) {
    has_frames(context);
    return;
  }
  const ItemRect area = view_area();
  const bool side = area.width() > em(24);
  const ItemRect strip{area.x0 + em(2.6f), area.y0 + em(0.5f), area.x1 - (side ? em(9.0f) : em(0.7f)),
                       std::max(area.y0 + em(1.5f), area.y1 - em(1.5f))};
  window_.update(context.data.tokens(), double(strip.width()) / 3.0, !context.cursor);
  if (context.cursor && context.cursor != last_cursor_) window_.reveal(context.data.shown_index(context.cursor));
  refresh(context, strip.width());
  draw_cells(context, strip);
  register_items(context, strip);
  draw_prompt_end(context, strip);
  draw_edits(context, strip);
  if (side) draw_side(context, {strip.x1 + em(1.0f), area.y0 + em(0.5f), area.x1 - em(0.5f), area.y1 - em(0.5f)});
  answer_mouse(context, strip);
  answer_keys(context);
}

}  // namespace switchyard
