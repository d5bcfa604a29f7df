#include "views/routing_heatmap/view.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <imgui.h>

#include "views/plot/axes.h"
#include "views/routing_heatmap/values.h"
#include "views/ui/draw.h"
#include "views/ui/edits.h"

namespace switchyard {
namespace {

constexpr double kLoadScale = 3.0;  // the map ends at three times uniform; the tooltip has the exact value

}  // namespace

RoutingHeatmap::RoutingHeatmap() {
  settings_ = {{"quantity",
                "Shown",
                {"load / uniform, all tokens", "load / uniform, last 64 tokens", "weights of the token",
                 "change by the last edit"},
                kLoadAll},
               {"sort", "Sort", {"sort: id", "sort: load of the layer"}, 0}};
}

std::string RoutingHeatmap::subtitle(const RunData& data, const Selection&, const TimeCursor& cursor) const {
  if (!data.plan || data.tokens() == 0) return "layer × expert";
  if (quantity() == kWeights) return fmt::format("layer × expert · token {}", data.shown_index(cursor));
  if (quantity() == kEditChange) {
    const EditChange change = edit_change(data);
    if (change.sentence.empty()) return "layer × expert · no edit yet";
    return fmt::format("layer × expert · {}: {} tokens after, {} before", change.sentence, change.after_tokens,
                       change.before_tokens);
  }
  return "layer × expert";
}

int RoutingHeatmap::column_of(int expert) const {
  return int(std::find(order_.begin(), order_.end(), expert) - order_.begin());
}

void RoutingHeatmap::refresh(const ViewContext& context) {
  const RunData& data = context.data;
  const int row = clamped_row(data, context.selection);
  const std::string key = fmt::format("{} {} {} {} {} {}", data.serial, settings_[0].value, settings_[1].value,
                                      quantity() == kWeights ? data.shown_index(context.cursor) : 0,
                                      settings_[1].value ? row : 0, context.theme.name);
  if (key == key_) return;
  key_ = key;
  rows_ = int(data.plan->moe_layers.size());
  experts_ = data.plan->max_experts();

  switch (quantity()) {
    case kLoadAll:
      values_ = data.load_all ? relative_load(data, *data.load_all) : std::vector<double>();
      break;
    case kLoadWindow:
      values_ = data.load_window ? relative_load(data, *data.load_window) : std::vector<double>();
      break;
    case kWeights:
      values_ = shown_weights(data, context.cursor);
      break;
    case kEditChange:
      values_ = edit_change(data).values;
      break;
  }
  if (values_.empty()) values_.assign(size_t(rows_) * experts_, std::nan(""));

  double largest = 0;
  for (const double v : values_)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  scale_ = quantity() == kWeights      ? std::min(1.0, nice_ceiling(largest))
           : quantity() == kEditChange ? nice_ceiling(largest)
                                       : kLoadScale;

  order_.resize(size_t(experts_));
  std::iota(order_.begin(), order_.end(), 0);
  if (settings_[1].value == 1 && data.load_all) {
    const auto counts = data.load_all->counts(row);
    std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) { return counts[a] > counts[b]; });
  }

  std::vector<Rgb> colors(values_.size());
  const ColorMap map = quantity() == kEditChange ? ColorMap::kDiverging : ColorMap::kCividis;
  for (int r = 0; r < rows_; ++r)
    for (int c = 0; c < experts_; ++c) {
      const double v = values_[size_t(r) * experts_ + order_[c]];
      const double t = map == ColorMap::kDiverging ? 0.5 + v / (2 * scale_) : v / scale_;
      colors[size_t(r) * experts_ + c] =
          std::isnan(v) ? mix(context.theme.dock, context.theme.raised, 0.6f) : map_color(map, t, context.theme);
    }
  grid_.set(rows_, experts_, colors);
}

void RoutingHeatmap::draw_axes(const ViewContext& context, const ItemRect& grid) const {
  const int row = clamped_row(context.data, context.selection);
  row_labels(
      grid,
      {rows_, [&](int r) { return row_label(context.data, r); }, [row](int r) { return r == row; }},
      context.theme);
  const auto expert = selected_expert(context);
  column_labels(grid,
                {experts_, [this](int c) { return std::to_string(order_[c]); },
                 [this, expert](int c) { return expert && order_[c] == *expert; }},
                context.theme);
}

void RoutingHeatmap::draw_legend(const ViewContext& context, const ItemRect& bar) const {
  const auto tick = [](double at, std::string words, bool strong = false) {
    return LegendTick{at, std::move(words), strong};
  };
  std::vector<LegendTick> ticks;
  ColorMap map = ColorMap::kCividis;
  if (quantity() == kEditChange) {
    map = ColorMap::kDiverging;
    ticks = {tick(0, signed_number(-scale_, 1) + "×"), tick(0.5, "0", true), tick(1, signed_number(scale_, 1) + "×")};
  } else if (quantity() == kWeights) {
    ticks = {tick(0, "0"), tick(0.5, fmt::format("{:.2g}", scale_ / 2)), tick(1, fmt::format("{:.2g}", scale_))};
  } else {
    ticks = {tick(0, "0×"), tick(1 / kLoadScale, "1×", true), tick(2 / kLoadScale, "2×"), tick(1, "≥3×")};
  }
  legend_column(bar, map, context.theme, ticks);
}

void RoutingHeatmap::draw_marks(const ViewContext& context) const {
  const RoutingFrame& frame_shown = *context.data.shown(context.cursor);
  const int selected_row = clamped_row(context.data, context.selection);
  std::vector<int> column(order_.size());
  for (int c = 0; c < experts_; ++c) column[size_t(order_[c])] = c;

  for (int row = 0; row < rows_; ++row) {
    const RowRecipes recipes = row_recipes(context, row);
    if (!recipes.native())
      for (int e = 0; e < experts_of(context.data, row); ++e)
        mark_edits(context.theme, recipes, e, grid_.cell(row, column[size_t(e)]));
    for (const ExpertId id : frame_shown.used_ids(row)) {
      if (id >= experts_) continue;
      const ItemRect cell = grid_.cell(row, column[id]);
      const float radius = std::min({em(0.24f), cell.width() * 0.3f, cell.height() * 0.3f});
      if (radius >= 1) ringed_dot({(cell.x0 + cell.x1) / 2, (cell.y0 + cell.y1) / 2}, radius);
    }
  }
  const ItemRect first = grid_.cell(selected_row, 0), last = grid_.cell(selected_row, experts_ - 1);
  selection_frame({first.x0, first.y0, last.x1, last.y1}, context.theme, 1.5f);
  if (const auto expert = selected_expert(context))
    selection_frame(grid_.cell(selected_row, column[size_t(*expert)]), context.theme, 2.5f);
}

void RoutingHeatmap::register_items(const ViewContext& context) const {
  static constexpr const char* kUnits[] = {"× uniform", "× uniform", "weight", "× uniform, change"};
  static constexpr const char* kFormulas[] = {"count of the expert ÷ mean count of its layer, all tokens",
                                              "count of the expert ÷ mean count of its layer, last tokens",
                                              "weight as applied, routed scale included; 0: not chosen",
                                              "relative load after the last edit − before it"};
  context.items.add_grid({rows_, experts_, grid_.rect(), [this, c = context](int row, int col) {
                            const RunData& data = c.data;
                            const int expert = order_[col];
                            Item item;
                            item.id = fmt::format("layer {}/expert {}", row_label(data, row), expert);
                            item.label = fmt::format("{}, expert {}", data.plan->row_name(row), expert);
                            item.value = values_[size_t(row) * experts_ + expert];
                            item.unit = kUnits[quantity()];
                            item.rect = grid_.cell(row, col);
                            item.detail = kFormulas[quantity()];
                            if (data.load_all && quantity() != kWeights)
                              item.detail += fmt::format("\n{} of {} decisions", data.load_all->counts(row)[expert],
                                                         load_stats(data.load_all->counts(row)).total);
                            if (const std::string edits = edit_lines(c, row, expert); !edits.empty())
                              item.detail += "\n" + edits;
                            return item;
                          }});
}

void RoutingHeatmap::answer_input(const ViewContext& context) {
  const ItemRect& rect = grid_.rect();
  ImGui::SetCursorScreenPos({rect.x0, rect.y0});
  ImGui::InvisibleButton("cells", {std::max(1.0f, rect.width()), std::max(1.0f, rect.height())},
                         ImGuiButtonFlags_MouseButtonLeft | ImGuiButtonFlags_MouseButtonRight);
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  const auto under = ImGui::IsItemHovered() ? grid_.hit(mouse.x, mouse.y) : std::nullopt;
  if (under && order_[under->second] < experts_of(context.data, under->first)) {
    const int row = under->first, expert = order_[under->second];
    frame(grid_.cell(row, under->second), ink(context.theme.text), 1);
    context.items.set_hovered(fmt::format("layer {}/expert {}", row_label(context.data, row), expert));
    if (ImGui::IsItemClicked(ImGuiMouseButton_Left)) select_expert(context, row, expert);
    if (ImGui::IsItemClicked(ImGuiMouseButton_Right)) {
      select_expert(context, row, expert);
      menu_layer_ = row, menu_expert_ = expert;
      ImGui::OpenPopup(kExpertMenu);
    }
  }
  expert_menu(context, menu_layer_, menu_expert_);
  for (const KeyPress& press : key_presses()) answer_key(context, press);
}

// The cell cursor is the selection; the first arrow starts at the first column.
void RoutingHeatmap::answer_key(const ViewContext& context, const KeyPress& press) {
  const int row = clamped_row(context.data, context.selection);
  const std::optional<int> expert = selected_expert(context);
  if (expert && edit_key(context, press, row, *expert)) return;
  const int across = int(press.key == ImGuiKey_RightArrow) - int(press.key == ImGuiKey_LeftArrow);
  const int down = int(press.key == ImGuiKey_DownArrow) - int(press.key == ImGuiKey_UpArrow);
  if (across == 0 && down == 0) return;
  const int new_row = std::clamp(row + down, 0, rows_ - 1);
  const int last = experts_ - 1;
  const int column = expert ? std::clamp(column_of(std::min(*expert, last)) + across, 0, last) : 0;
  const int new_expert = std::min(order_[column], experts_of(context.data, new_row) - 1);
  select_expert(context, new_row, new_expert);
  context.items.set_hovered(fmt::format("layer {}/expert {}", row_label(context.data, new_row), new_expert));
}

void RoutingHeatmap::draw(const ViewContext& context) {
  if (!has_frames(context)) return;
  refresh(context);
  if (quantity() == kEditChange &&
      std::none_of(values_.begin(), values_.end(), [](double v) { return std::isfinite(v); }))
    return empty_state(context, "No edit to compare",
                       "Mute, force or bias an expert while tokens are generated; the change of the load is shown "
                       "here, after minus before.");
  if (quantity() == kWeights && context.data.shown(context.cursor)->header().capture < CaptureLevel::kWeights)
    return empty_state(context, "Weights are not captured",
                       "Set capture to weights or logits; the next token has them.");

  const ItemRect area = view_area();
  const bool legend = area.width() > em(26) && area.height() > em(8);
  const bool labels = area.width() > em(14) && area.height() > em(7);
  ItemRect grid{area.x0 + em(labels ? 3.2f : 0.5f), area.y0 + em(labels ? 1.1f : 0.5f),
                area.x1 - em(legend ? 5.6f : 0.9f), area.y1 - em(labels ? 2.3f : 0.5f)};
  grid = {std::round(grid.x0), std::round(grid.y0), std::round(grid.x1), std::round(grid.y1)};
  // Few layers in a tall dock: cells no taller than 2.6 times their width.
  const float tallest = std::max(em(2.4f), grid.width() / float(experts_) * 2.6f) * float(rows_);
  grid.y1 = std::min(grid.y1, std::round(grid.y0 + tallest));

  grid_.draw(grid, context.theme.dock);
  if (labels) draw_axes(context, grid);
  if (legend) draw_legend(context, {grid.x1 + em(1.6f), grid.y0, grid.x1 + em(2.4f), grid.y1});
  draw_marks(context);
  register_items(context);
  answer_input(context);
}

}  // namespace switchyard
