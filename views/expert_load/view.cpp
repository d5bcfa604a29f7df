#include "views/expert_load/view.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <imgui.h>

#include "views/plot/axes.h"
#include "views/ui/draw.h"
#include "views/ui/edits.h"

namespace switchyard {

ExpertLoad::ExpertLoad() {
  settings_ = {{"tokens", "Tokens", {"all tokens", "last 64 tokens"}, 0},
               {"sort", "Sort", {"sort: id", "sort: load"}, 0}};
}

std::string ExpertLoad::subtitle(const RunData& data, const Selection& selection, const TimeCursor&) const {
  if (!data.plan || data.plan->moe_layers.empty()) return {};
  return data.plan->row_name(clamped_row(data, selection));
}

float ExpertLoad::draw_statistics(const ViewContext& context, const LoadStats& stats, int experts, float x0, float x1,
                                  float y) const {
  ValueFlow flow(context, x0, x1, y);
  flow.add("MaxVio", stats.max_vio, fmt::format("{:.2f}", stats.max_vio), "", "max ÷ mean − 1; 0 is balanced");
  flow.add("CV", stats.cv, fmt::format("{:.2f}", stats.cv), "", "population standard deviation ÷ mean");
  flow.add("Gini", stats.gini, fmt::format("{:.2f}", stats.gini), "", "0: all equal; 1 − 1/E: one expert takes all");
  flow.add("effective experts", stats.effective_experts, fmt::format("{:.1f} of {}", stats.effective_experts, experts),
           "", "e to the entropy of the load");
  flow.add("entropy", stats.entropy, fmt::format("{:.2f}", stats.entropy), "nat", "−Σ q ln q of the load shares q");
  flow.add("dead", stats.dead, std::to_string(stats.dead), "", "experts never chosen",
           stats.dead ? ink(context.theme.edit) : 0);
  return flow.bottom();
}

void ExpertLoad::draw_bar(const ViewContext& context, const RowRecipes& recipes, const ItemRect& slot, float top,
                          int expert, bool chosen) const {
  const float gap = slot.width() > 5 ? std::min(em(0.16f), slot.width() * 0.1f) : 0;
  const ItemRect bar{slot.x0 + gap, top, slot.x1 - gap, slot.y1};
  fill(bar, ink(chosen ? context.theme.selection : context.theme.faint), slot.width() > 8 ? 2.0f : 0.0f);
  const ExpertEdits shown = edits_of(recipes.shown, expert), next = edits_of(recipes.next, expert);
  if (shown.any() || next.any())
    mark_edits(context.theme, recipes, expert, {bar.x0, std::min(top, slot.y1 - em(0.7f)), bar.x1, slot.y1});
  if (context.selection.expert == expert)
    frame({slot.x0, std::min(top, slot.y1 - em(0.7f)) - 2, slot.x1, slot.y1 + 1}, ink(context.theme.text), 1.5f, 3);
}

void ExpertLoad::draw_bars(const ViewContext& context, int row, std::span<const uint64_t> counts,
                           const LoadStats& stats, const ItemRect& plot) {
  const Theme& theme = context.theme;
  const int experts = int(counts.size());
  const double mean = double(stats.total) / experts, highest = double(*std::max_element(counts.begin(), counts.end()));
  const double scale = std::max({highest, mean * 1.2, 1.0});
  order_.resize(size_t(experts));
  std::iota(order_.begin(), order_.end(), 0);
  if (settings_[1].value == 1)
    std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) { return counts[a] > counts[b]; });

  std::vector<uint8_t> chosen(counts.size());
  for (const ExpertId id : context.data.shown(context.cursor)->used_ids(row))
    if (id < chosen.size()) chosen[id] = 1;
  const auto height_of = [&](double count) { return plot.height() * float(count / scale); };
  const auto slot_of = [plot, experts](int column) {
    const float width = plot.width() / float(experts);
    return ItemRect{plot.x0 + width * float(column), plot.y0, plot.x0 + width * float(column + 1), plot.y1};
  };
  const RowRecipes recipes = row_recipes(context, row);
  for (int column = 0; column < experts; ++column) {
    const int expert = order_[size_t(column)];
    draw_bar(context, recipes, slot_of(column), plot.y1 - height_of(double(counts[expert])), expert, chosen[expert]);
  }
  fill({plot.x0, plot.y1, plot.x1, plot.y1 + 1}, ink(theme.line));
  const float uniform = plot.y1 - height_of(mean);
  dashed_line({plot.x0, uniform}, {plot.x1, uniform}, ink(theme.text, 0.75f));
  const std::string words = fmt::format("uniform {:.1f}", mean);
  const float words_width = text_width(Face::kWords, words, kSmall) + em(0.6f);
  if (stats.total > 0 && plot.width() > em(14)) {
    const ItemRect label{plot.x1 - words_width, uniform - em(1.15f), plot.x1, uniform - em(0.1f)};
    fill(label, ink(theme.dock, 0.85f), 3);
    draw_text({label.x1 - em(0.3f), (label.y0 + label.y1) / 2}, Face::kWords, ink(theme.muted), words, Align::kRight,
              kSmall);
  }
  draw_text({plot.x0 - em(0.5f), plot.y0 + em(0.3f)}, Face::kMono, ink(theme.muted), fmt::format("{:.0f}", scale),
            Align::kRight, kSmall);
  draw_text({plot.x0 - em(0.5f), plot.y1 - em(0.3f)}, Face::kMono, ink(theme.muted), "0", Align::kRight, kSmall);
  const auto selected = selected_expert(context);
  column_labels(plot,
                {experts, [this](int c) { return std::to_string(order_[size_t(c)]); },
                 [this, selected](int c) { return selected == order_[size_t(c)]; }},
                theme);

  context.items.add_grid({1, experts, plot, [=, this, c = context](int, int column) {
                            const int expert = order_[size_t(column)];
                            const uint64_t count = load(c.data)->counts(row)[expert];
                            Item item;
                            item.id = fmt::format("expert {}", expert);
                            item.label = fmt::format("{}, expert {}", c.data.plan->row_name(row), expert);
                            item.value = double(count);
                            item.unit = "decisions";
                            item.rect = slot_of(column);
                            item.detail = stats.total == 0 ? std::string()
                                                           : fmt::format("{:.2f} × uniform, {:.2f} % of the layer",
                                                                         double(count) / mean,
                                                                         100.0 * double(count) / double(stats.total));
                            const auto ids = c.data.shown(c.cursor)->used_ids(row);
                            if (std::find(ids.begin(), ids.end(), ExpertId(expert)) != ids.end())
                              item.detail += "\nchosen for the shown token";
                            if (const std::string edits = edit_lines(c, row, expert); !edits.empty())
                              item.detail += "\n" + edits;
                            return item;
                          }});
}

void ExpertLoad::answer_input(const ViewContext& context, int row, const ItemRect& plot) {
  const int experts = int(order_.size());
  ImGui::SetCursorScreenPos({plot.x0, plot.y0});
  ImGui::InvisibleButton("bars", {std::max(1.0f, plot.width()), std::max(1.0f, plot.height() + em(1.6f))},
                         ImGuiButtonFlags_MouseButtonLeft | ImGuiButtonFlags_MouseButtonRight);
  if (ImGui::IsItemHovered()) {
    const int column =
        std::clamp(int((ImGui::GetIO().MousePos.x - plot.x0) / plot.width() * float(experts)), 0, experts - 1);
    const int expert = order_[size_t(column)];
    context.items.set_hovered(fmt::format("expert {}", expert));
    const bool right = ImGui::IsItemClicked(ImGuiMouseButton_Right);
    if (right || ImGui::IsItemClicked(ImGuiMouseButton_Left)) select_expert(context, row, expert);
    if (right) menu_expert_ = expert, ImGui::OpenPopup(kExpertMenu);
  }
  expert_menu(context, row, menu_expert_);
  for (const KeyPress& press : key_presses()) answer_key(context, press, row);
}

void ExpertLoad::answer_key(const ViewContext& context, const KeyPress& press, int row) {
  const std::optional<int> selected = selected_expert(context);
  if (selected && edit_key(context, press, row, *selected)) return;
  const int across = int(press.key == ImGuiKey_RightArrow) - int(press.key == ImGuiKey_LeftArrow);
  if (across == 0) return;
  const int experts = int(order_.size());
  const auto here = selected ? std::find(order_.begin(), order_.end(), *selected) : order_.end();
  const int column = here == order_.end() ? 0 : std::clamp(int(here - order_.begin()) + across, 0, experts - 1);
  select_expert(context, row, order_[size_t(column)]);
  context.items.set_hovered(fmt::format("expert {}", order_[size_t(column)]));
}

void ExpertLoad::draw(const ViewContext& context) {
  if (!has_frames(context)) return;
  if (!load(context.data)) return empty_state(context, "No load yet", "Counts appear with the next token.");
  const int row = clamped_row(context.data, context.selection), experts = experts_of(context.data, row);
  const auto counts = load(context.data)->counts(row).first(size_t(experts));
  const LoadStats stats = load_stats(counts);

  const ItemRect area = view_area();
  float y = area.y0 + em(0.4f);
  if (area.height() > em(9))
    y = draw_statistics(context, stats, experts, area.x0 + em(0.9f), area.x1 - em(0.5f), area.y0 + em(1.2f));
  const bool axis = area.width() > em(12);
  const ItemRect plot{area.x0 + em(axis ? 2.6f : 0.6f), std::min(y + em(0.9f), area.y1 - em(3)), area.x1 - em(0.9f),
                      area.y1 - em(2.1f)};
  draw_bars(context, row, counts, stats, plot);
  answer_input(context, row, plot);
}

}  // namespace switchyard
