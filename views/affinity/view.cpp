#include "views/affinity/view.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <imgui.h>

#include "views/plot/axes.h"
#include "views/ui/draw.h"
#include "views/ui/edits.h"

namespace switchyard {

AffinityView::AffinityView() {
  settings_ = {{"pairs", "Pairs", {"all pairs", "first choices"}, 0},
               {"quantity", "Shown", {"counts", "P(next | this)"}, 0}};
}

int AffinityView::from_row(const RunData& data, const Selection& selection) {
  return std::clamp(selection.moe_layer, 0, std::max(0, int(data.plan->moe_layers.size()) - 2));
}

std::span<const uint64_t> AffinityView::counts(const RunData& data, int row) const {
  return settings_[0].value == 0 ? data.affinity->topk(row) : data.affinity->top1(row);
}

std::string AffinityView::subtitle(const RunData& data, const Selection& selection, const TimeCursor&) const {
  if (!data.plan || data.plan->moe_layers.size() < 2) return {};
  const int row = from_row(data, selection);
  if (data.plan->encoder_layers > 0)
    return fmt::format("{} → {}", data.plan->row_name(row), data.plan->row_name(row + 1));
  return fmt::format("layer {} → {}", row_label(data, row), row_label(data, row + 1));
}

void AffinityView::refresh(const ViewContext& context, int row) {
  const std::string key = fmt::format("{} {} {} {} {}", context.data.serial, row, settings_[0].value,
                                      settings_[1].value, context.theme.name);
  if (key == key_) return;
  key_ = key;
  const int experts = context.data.affinity->experts();
  const auto pairs = counts(context.data, row);
  probabilities_ = conditional(pairs, experts);
  stats_ = affinity_stats(pairs, experts);
  strongest_ = strongest_pairs(pairs, experts, 12);
  total_ = std::accumulate(pairs.begin(), pairs.end(), uint64_t(0));
  scale_ = conditional_shown() ? *std::max_element(probabilities_.begin(), probabilities_.end())
                               : double(*std::max_element(pairs.begin(), pairs.end()));
  std::vector<Rgb> colors(pairs.size());
  for (size_t i = 0; i < colors.size(); ++i) {
    const double value = conditional_shown() ? probabilities_[i] : double(pairs[i]);
    colors[i] = map_color(ColorMap::kViridis, scale_ > 0 ? value / scale_ : 0, context.theme);
  }
  grid_.set(experts, experts, colors);
}

void AffinityView::select_pair(const ViewContext& context, int row, int from, int to) const {
  if (context.commands.select) context.commands.select({row, from, to});
}

void AffinityView::draw_matrix(const ViewContext& context, int row, const ItemRect& grid, bool labels) {
  const Theme& theme = context.theme;
  const int experts = grid_.rows();
  grid_.draw(grid, theme.dock);
  const bool here = context.selection.moe_layer == row;
  const auto from = here && context.selection.expert < experts ? context.selection.expert : std::nullopt;
  const auto to = here && context.selection.expert_to < experts ? context.selection.expert_to : std::nullopt;
  if (labels) {
    const auto id = [](int i) { return std::to_string(i); };
    row_labels(grid, {experts, id, [from](int i) { return from == i; }}, theme);
    column_labels(grid, {experts, id, [to](int i) { return to == i; }}, theme);
  }
  if (from) selection_frame({grid.x0, grid_.cell(*from, 0).y0, grid.x1, grid_.cell(*from, 0).y1}, theme, 1.5f);
  if (to) selection_frame({grid_.cell(0, *to).x0, grid.y0, grid_.cell(0, *to).x1, grid.y1}, theme, 1.5f);
  if (from && to) selection_frame(inset(grid_.cell(*from, *to), -1), theme, 2);

  context.items.add_grid({experts, experts, grid, [=, this, c = context](int i, int j) {
                            const size_t at = size_t(i) * size_t(experts) + size_t(j);
                            const uint64_t count = counts(c.data, row)[at];
                            Item item;
                            item.id = fmt::format("pair {}/{}", i, j);
                            item.label = fmt::format("{} expert {} → {} expert {}", c.data.plan->row_name(row), i,
                                                     c.data.plan->row_name(row + 1), j);
                            item.value = conditional_shown() ? probabilities_[at] : double(count);
                            item.unit = conditional_shown() ? "probability" : "tokens' pairs";
                            item.rect = grid_.cell(i, j);
                            item.detail = fmt::format("{} pairs of {}\nP(next | this) = count ÷ row sum = {:.4f}",
                                                      count, total_, probabilities_[at]);
                            return item;
                          }});
}

void AffinityView::draw_facts(const ViewContext& context, int row, const ItemRect& column) {
  const Theme& theme = context.theme;
  const std::string a = row_label(context.data, row), b = row_label(context.data, row + 1);
  float y = column.y0 + em(0.6f);
  const auto fact = [&](const char* id, std::string name, double value, std::string text, std::string detail) {
    if (y + em(1.4f) > column.y1) return;
    draw_text({column.x0, y}, Face::kWords, ink(theme.muted), fitted(Face::kWords, name, column.width()));
    draw_text({column.x0, y + em(1.35f)}, Face::kMono, ink(theme.text), fitted(Face::kMono, text, column.width()));
    Item item{std::string("stat/") + id, std::move(name), value, "", {column.x0, y - em(0.7f), column.x1, y + em(2.0f)},
              std::move(detail)};
    const ImVec2 mouse = ImGui::GetIO().MousePos;
    if (ImGui::IsWindowHovered() && item.rect.contains(mouse.x, mouse.y)) context.items.set_hovered(item.id);
    context.items.add(std::move(item));
    y += em(3.1f);
  };
  fact("MI", fmt::format("I(E{}; E{})", a, b), stats_.mi_bits, fmt::format("{:.2f} bit", stats_.mi_bits),
       "mutual information of the two choices, from the counts shown; small samples read too high");
  fact("U", "share of H(next)", stats_.uncertainty, fmt::format("{:.1f} %", 100 * stats_.uncertainty),
       "MI ÷ entropy of the next layer's choice");
  fact("max P", "E max P", stats_.expected_max_p, fmt::format("{:.3f}", stats_.expected_max_p),
       fmt::format("Σ p(i) max_j P(j | i): how often the likeliest successor is right; {:.3f} without knowing i",
                   stats_.marginal_max));
  if (y + em(2.6f) > column.y1 || strongest_.empty()) return;
  draw_text({column.x0, y}, Face::kWords, ink(theme.muted), fitted(Face::kWords, "strongest", column.width()));
  y += em(1.4f);
  for (size_t i = 0; i < strongest_.size() && y + em(0.7f) < column.y1; ++i, y += em(1.4f)) {
    const ExpertPair& pair = strongest_[i];
    const bool chosen = context.selection.moe_layer == row && context.selection.expert == pair.from &&
                        context.selection.expert_to == pair.to;
    const ItemRect line{column.x0 - em(0.25f), y - em(0.7f), column.x1, y + em(0.7f)};
    if (chosen) fill(line, ink(theme.selection, 0.18f), 3);
    const std::string count = std::to_string(pair.count);
    draw_text({column.x0, y}, Face::kMono, ink(theme.text), fmt::format("{} → {}", pair.from, pair.to));
    const float pair_width = text_width(Face::kMono, fmt::format("{} → {}", pair.from, pair.to));
    if (pair_width + text_width(Face::kMono, count) + em(1) < column.width())
      draw_text({column.x1 - em(0.3f), y}, Face::kMono, ink(theme.muted), count, Align::kRight);
    ImGui::SetCursorScreenPos({line.x0, line.y0});
    if (ImGui::InvisibleButton(fmt::format("strong{}", i).c_str(), {line.width(), line.height()}))
      select_pair(context, row, pair.from, pair.to);
    if (ImGui::IsItemHovered()) context.items.set_hovered(fmt::format("pair {}/{}", pair.from, pair.to));
    context.items.add({fmt::format("strongest {}", i),
                       fmt::format("expert {} → expert {}", pair.from, pair.to),
                       double(pair.count),
                       "pairs",
                       line,
                       {}});
  }
}

void AffinityView::answer_input(const ViewContext& context, int row) {
  const ItemRect& rect = grid_.rect();
  ImGui::SetCursorScreenPos({rect.x0, rect.y0});
  ImGui::InvisibleButton("matrix", {std::max(1.0f, rect.width()), std::max(1.0f, rect.height())});
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  if (const auto under = ImGui::IsItemHovered() ? grid_.hit(mouse.x, mouse.y) : std::nullopt) {
    frame(grid_.cell(under->first, under->second), ink(context.theme.text), 1);
    context.items.set_hovered(fmt::format("pair {}/{}", under->first, under->second));
    if (ImGui::IsItemClicked()) select_pair(context, row, under->first, under->second);
  }
  if (ImGui::IsAnyItemActive()) return;
  for (const KeyPress& press : key_presses()) answer_key(context, press, row);
}

void AffinityView::answer_key(const ViewContext& context, const KeyPress& press, int row) {
  const std::optional<int> expert = selected_expert(context);
  if (expert && edit_key(context, press, clamped_row(context.data, context.selection), *expert)) return;
  const int across = int(press.key == ImGuiKey_RightArrow) - int(press.key == ImGuiKey_LeftArrow);
  const int down = int(press.key == ImGuiKey_DownArrow) - int(press.key == ImGuiKey_UpArrow);
  if (across == 0 && down == 0) return;
  const int last = grid_.rows() - 1;
  const bool started = context.selection.moe_layer == row && context.selection.expert && context.selection.expert_to;
  const int from = started ? std::clamp(*context.selection.expert + down, 0, last)
                           : std::min(context.selection.expert.value_or(0), last);
  const int to = started ? std::clamp(*context.selection.expert_to + across, 0, last) : 0;
  select_pair(context, row, from, to);
  context.items.set_hovered(fmt::format("pair {}/{}", from, to));
}

void AffinityView::draw(const ViewContext& context) {
  if (!has_frames(context)) return;
  if (context.data.plan->moe_layers.size() < 2)
    return empty_state(context, "One MoE layer only", "Affinity compares the choices of two neighbouring MoE layers.");
  if (!context.data.affinity) return empty_state(context, "No pairs yet", "Counts appear with the next token.");
  const int row = from_row(context.data, context.selection);
  refresh(context, row);

  const ItemRect area = view_area();
  const bool slider = area.height() > em(11) && area.width() > em(12) && context.data.affinity->transitions() > 1;
  const bool labels = area.width() > em(11) && area.height() > em(9);
  const bool facts = area.width() > em(22);
  const float left = em(labels ? 2.8f : 0.5f), top = em(0.9f),
              bottom = em(labels ? 1.9f : 0.5f) + (slider ? em(2.0f) : 0);
  const float right = facts ? em(9.2f) : em(0.9f);
  const float side = std::max(em(2), std::min(area.width() - left - right, area.height() - top - bottom));
  const ItemRect grid{std::round(area.x0 + left), std::round(area.y0 + top), std::round(area.x0 + left + side),
                      std::round(area.y0 + top + side)};
  draw_matrix(context, row, grid, labels);
  if (facts) {
    const float x = grid.x1 + em(1.1f);
    draw_facts(context, row,
               {x, grid.y0, std::min(area.x1 - em(0.4f), x + em(10)), area.y1 - (slider ? em(2.2f) : em(0.4f))});
  }
  if (slider) {
    const float last = float(context.data.affinity->transitions() - 1);
    const std::string format =
        fmt::format("{} → {}", row_label(context.data, row), row_label(context.data, row + 1));
    const SliderSpec spec{"layer", "layer", 0, last, float(row), format.c_str(), true};
    const float legend = facts ? em(9.5f) : 0;
    const ItemRect line{area.x0 + em(0.9f), area.y1 - em(2.0f), std::min(area.x1 - em(0.9f) - legend, area.x0 + em(30)),
                        area.y1 - em(0.3f)};
    if (facts)
      legend_line({line.x1 + em(1.4f), (line.y0 + line.y1) / 2}, em(4), ColorMap::kViridis, context.theme, "0",
                  conditional_shown() ? fmt::format("{:.2f}", scale_) : fmt::format("{:.0f}", scale_));
    if (const auto v = slider_line(context, line, spec, float(row), layer_slider_); v && context.commands.select)
      context.commands.select({int(*v), context.selection.expert, std::nullopt});
  }
  answer_input(context, row);
}

}  // namespace switchyard
