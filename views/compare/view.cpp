#include "views/compare/view.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <imgui.h>

#include "engine/runtime/forced_pass.h"
#include "views/plot/axes.h"
#include "views/ui/controls.h"
#include "views/ui/draw.h"

namespace switchyard {
namespace {

enum Strip { kKl, kJs, kDistance };

float strip_value(const ShadowToken& token, int quantity) {
  return quantity == kKl ? token.kl : quantity == kJs ? token.js : 1 - token.jaccard;
}

std::string number(double value, int digits) {
  return std::isinf(value) ? "∞" : fmt::format("{:.{}f}", value, digits);
}

}  // namespace

CompareView::CompareView() {
  settings_ = {{"strip", "Strip", {"strip: KL", "strip: JS", "strip: 1 − Jaccard"}, kKl}};
}

const ShadowState* CompareView::selected(const RunData& data) const {
  if (!data.snapshot || !data.snapshot->shadows || data.snapshot->shadows->empty()) return nullptr;
  return &(*data.snapshot->shadows)[std::min(recipe_, data.snapshot->shadows->size() - 1)];
}

std::string CompareView::subtitle(const RunData& data, const Selection& selection, const TimeCursor&) const {
  const ShadowState* shadow = data.plan && !data.plan->moe_layers.empty() ? selected(data) : nullptr;
  if (!shadow) return "the run beside another recipe";
  return fmt::format("the run beside {} · {}", shadow->name, data.plan->row_name(clamped_row(data, selection)));
}

// Both decisions on the shown token, by the code that the backends and the session use.
void CompareView::decide(const RunData& data, const TimeCursor& cursor, const ShadowState& shadow, int row) {
  pairs_.clear();
  shown_ = {};
  missing_ = ShadowRouter::unavailable(*data.plan);
  const RoutingFrame& frame = *data.shown(cursor);
  if (missing_.empty() && !frame.passed(row)) missing_ = "this token does not pass this layer";
  if (missing_.empty()) missing_ = shadow.unavailable;
  if (missing_.empty() && frame.header().capture < CaptureLevel::kLogits)
    missing_ = "the logits of this token were not captured";
  if (!missing_.empty()) return;
  if (!router_ || router_plan_ != data.plan || router_tensors_ != data.router_tensors.size()) {
    router_ = std::make_unique<ShadowRouter>(*data.plan, data.router_tensors);
    router_plan_ = data.plan;
    router_tensors_ = data.router_tensors.size();
  }
  const auto spans = recipe_spans(shadow.script, *data.plan);
  size_t span = 0;
  while (span + 1 < spans.size() && spans[span + 1].first_token <= frame.header().token_index) ++span;
  GateDecision base, other;
  router_->decide(row, recipe_shown(data, cursor, row), frame, base);
  base.select(frame, row);
  router_->decide(row, spans[span].recipe->layer(row), frame, other);
  shown_ = difference(base, other, expert_cost(*data.plan, row));
  for (size_t e = 0; e < base.runs.size(); ++e)
    if (base.runs[e] || other.runs[e])
      pairs_.push_back({int(e), base.runs[e] > 0, other.runs[e] > 0, base.weights[e], other.weights[e]});
  std::stable_sort(pairs_.begin(), pairs_.end(), [](const Pair& a, const Pair& b) {
    return std::pair(a.base_weight, a.other_weight) > std::pair(b.base_weight, b.other_weight);
  });
}

void CompareView::refresh(const ViewContext& context, const ShadowState& shadow, int row) {
  const std::string key = fmt::format("{} {} {} {} {}", context.data.serial, context.data.shown_index(context.cursor),
                                      row, recipe_, context.theme.name);
  if (key == key_) return;
  key_ = key;
  rows_ = shadow.totals->rows();
  experts_ = context.data.plan->max_experts();
  moved_.assign(size_t(rows_) * size_t(experts_), std::nan(""));
  double largest = 0;
  for (int r = 0; r < rows_; ++r) {
    const auto moved = shadow.totals->moved(r);
    const double tokens = std::max<double>(1, double(shadow.totals->tokens(r)));
    for (size_t e = 0; e < moved.size(); ++e) {
      const double value = double(moved[e]) / tokens;
      moved_[size_t(r) * size_t(experts_) + e] = value;
      largest = std::max(largest, std::abs(value));
    }
  }
  scale_ = std::min(1.0, nice_ceiling(largest));
  std::vector<Rgb> colors(moved_.size());
  for (size_t i = 0; i < colors.size(); ++i)
    colors[i] = std::isnan(moved_[i]) ? mix(context.theme.dock, context.theme.raised, 0.6f)
                                      : map_color(ColorMap::kDiverging, 0.5 + moved_[i] / (2 * scale_), context.theme);
  grid_.set(rows_, experts_, colors);
  decide(context.data, context.cursor, shadow, row);
}

// The recipes as buttons, and what adds and removes one; wraps. Returns where the next line begins.
float CompareView::draw_recipes(const ViewContext& context, const ItemRect& line) {
  const auto& shadows = *context.data.snapshot->shadows;
  float x = line.x0, y = line.y0;
  const auto button = [&](const std::string& id, std::string words, bool marked, bool enabled = true) {
    words = fitted(Face::kWords, words, std::max(em(3), line.width() - em(1.6f)));
    const float width = small_button_width(words);
    if (x > line.x0 && x + width > line.x1) x = line.x0, y += em(2.3f);
    ImGui::SetCursorScreenPos({x, y});
    const bool pressed = small_button(context, id, words, marked, enabled);
    if (marked) frame({x, y, x + width, y + em(1.95f)}, ink(context.theme.edit), 1.2f, 3);
    x += width + em(0.5f);
    return pressed;
  };
  std::optional<size_t> chosen;
  for (size_t i = 0; i < shadows.size(); ++i)
    if (button(fmt::format("recipe {}", i), shadows[i].name, i == std::min(recipe_, shadows.size() - 1))) chosen = i;
  const bool room = shadows.size() < kMostShadows;
  const auto run = [&](const char* action) {
    if (context.commands.run_action) context.commands.run_action(action);
  };
  if (button("add_edits", "+ present edits", false, room)) run("compare.add_edits");
  if (button("add_scheme", "+ scheme…", false, room)) run("compare.add_scheme");
  if (button("add_file", "+ file…", false, room)) run("compare.add_file");
  if (button("remove", "Remove", false) && context.commands.remove_shadow)
    context.commands.remove_shadow(std::min(recipe_, shadows.size() - 1));
  if (chosen) recipe_ = *chosen, key_.clear();
  return y + em(2.3f);
}

float CompareView::draw_statistics(const ViewContext& context, const ShadowState& shadow, int row, float x0, float x1,
                                   float y) const {
  const GateDifference mean = shadow.totals->mean(row);
  ValueFlow flow(context, x0, x1, y);
  const ImU32 edited = ink(context.theme.edit);
  flow.add("Jaccard", mean.jaccard, number(mean.jaccard, 3), "",
           "experts both run ÷ experts either runs; mean over the tokens", mean.jaccard < 1 ? edited : 0);
  flow.add("weight L1", mean.weight_l1, number(mean.weight_l1, 3), "",
           "Σ |w run − w recipe| over the experts of either; mean");
  flow.add("KL", mean.kl, number(mean.kl, 3), "nat",
           "Σ p ln(p ÷ q), softmax of the edited logits, run against recipe; ∞: it mutes what the run may choose");
  flow.add("JS", mean.js, number(mean.js, 3), "nat", "Jensen–Shannon divergence of the same; at most ln 2");
  flow.add("extra experts", mean.extra_experts, signed_number(mean.extra_experts, 2), "per token",
           "experts that run: recipe − run");
  flow.add("extra FLOP", mean.extra_flops, signed_number(mean.extra_flops / 1e6, 2) + " M", "per token",
           "2 × elements of the experts' matrices: recipe − run");
  flow.add("tokens", double(shadow.totals->tokens(row)), fmt::format("{}", shadow.totals->tokens(row)), "",
           "compared in this layer since the recipe was added, on this branch");
  return flow.bottom();
}

// Heat map of what moves and, in line with its rows, the Jaccard of each layer.
void CompareView::draw_layers(const ViewContext& context, const ShadowState& shadow, const ItemRect& area) {
  const Theme& theme = context.theme;
  const bool labels = area.width() > em(14) && area.height() > em(7);
  const float bars = area.width() > em(20) ? std::min(em(9), area.width() * 0.28f) : 0;
  ItemRect grid{std::round(area.x0 + em(labels ? 2.6f : 0)), std::round(area.y0 + em(labels ? 1.3f : 0)),
                std::round(area.x1 - bars - em(bars > 0 ? 1.2f : 0)), std::round(area.y1 - em(labels ? 1.9f : 0))};
  grid.x1 = std::max(grid.x1, grid.x0 + 1), grid.y1 = std::max(grid.y1, grid.y0 + 1);
  grid_.draw(grid, theme.dock);
  const int row = clamped_row(context.data, context.selection);
  const auto expert = selected_expert(context);
  if (labels) {
    row_labels(grid, {rows_, [&](int r) { return row_label(context.data, r); }, [row](int r) { return r == row; }},
               theme);
    column_labels(grid, {experts_, [](int c) { return std::to_string(c); }, [expert](int c) { return expert == c; }},
                  theme);
    const float legend = legend_line({grid.x0, area.y0 + em(0.35f)}, em(4), ColorMap::kDiverging, theme,
                                     signed_number(-scale_, 2), signed_number(scale_, 2));
    const float words = grid.x1 - grid.x0 - legend - em(1);
    if (words > em(6))
      draw_text({grid.x0 + legend + em(1), area.y0 + em(0.35f)}, Face::kWords, ink(theme.muted),
                fitted(Face::kWords, "runs per token, recipe − run", words), Align::kLeft, kSmall);
  }
  const ItemRect first = grid_.cell(row, 0), last = grid_.cell(row, experts_ - 1);
  selection_frame({first.x0, first.y0, last.x1, last.y1}, theme, 1.5f);
  if (expert) selection_frame(grid_.cell(row, *expert), theme, 2.5f);
  const auto totals = shadow.totals;
  context.items.add_grid({rows_, experts_, grid, [this, c = context, totals](int r, int e) {
                            Item item;
                            item.id = fmt::format("layer {}/expert {}", row_label(c.data, r), e);
                            item.label = fmt::format("{}, expert {}", c.data.plan->row_name(r), e);
                            item.value = moved_[size_t(r) * size_t(experts_) + size_t(e)];
                            item.unit = "runs per token, recipe − run";
                            item.rect = grid_.cell(r, e);
                            if (e < experts_of(c.data, r))
                              item.detail = fmt::format("{:+} runs over {} tokens", totals->moved(r)[size_t(e)],
                                                        totals->tokens(r));
                            return item;
                          }});
  if (bars <= 0) return;
  const ItemRect column{grid.x1 + em(1.2f), grid.y0, grid.x1 + em(1.2f) + bars, grid.y1};
  if (labels)
    draw_text({column.x0, area.y0 + em(0.35f)}, Face::kWords, ink(theme.muted), fitted(Face::kWords, "Jaccard", bars),
              Align::kLeft, kSmall);
  const float height = column.height() / float(std::max(1, rows_));
  for (int r = 0; r < rows_; ++r) {
    const GateDifference mean = totals->mean(r);
    const ItemRect line{column.x0, column.y0 + height * float(r), column.x1, column.y0 + height * float(r + 1)};
    const bool numbers = height > em(1.1f) && bars > em(7);
    const float room = line.width() - (numbers ? em(3.2f) : 0);
    const float inner = std::min(height * 0.18f, em(0.3f));
    const ItemRect bar{line.x0, line.y0 + inner, line.x0 + room * float(mean.jaccard), line.y1 - inner};
    fill({line.x0, bar.y0, line.x0 + room, bar.y1}, ink(theme.raised), 2);
    fill(bar, ink(mean.jaccard < 1 ? theme.edit : theme.faint), 2);
    if (r == row) frame({line.x0, bar.y0, line.x0 + room, bar.y1}, ink(theme.selection), 1.5f, 2);
    if (numbers)
      draw_text({line.x1, (line.y0 + line.y1) / 2}, Face::kMono, ink(r == row ? theme.text : theme.muted),
                fmt::format("{:.3f}", mean.jaccard), Align::kRight, kSmall);
    context.items.add(
        {fmt::format("jaccard {}", row_label(context.data, r)),
         fmt::format("Jaccard, {}", context.data.plan->row_name(r)), mean.jaccard, "", line,
         fmt::format("weight L1 {}\nKL {} nat, JS {} nat\nextra experts {} per token", number(mean.weight_l1, 4),
                     number(mean.kl, 4), number(mean.js, 4), signed_number(mean.extra_experts, 3))});
  }
}

// Two columns that grow from the middle: what ran, and what the recipe would have run.
void CompareView::draw_pairs(const ViewContext& context, const ShadowState& shadow, int row,
                             const ItemRect& area) const {
  const Theme& theme = context.theme;
  const float middle = (area.x0 + area.x1) / 2, gap = em(1.6f), digits = em(3.0f);
  const float room = std::max(0.0f, (area.x1 - area.x0) / 2 - gap - digits);
  const std::string head = fmt::format("token {}", context.data.shown_index(context.cursor));
  draw_text({middle, area.y0 + em(0.6f)}, Face::kMono, ink(theme.muted),
            fitted(Face::kMono, head, 2 * gap + em(2.4f), kSmall), Align::kCentre, kSmall);
  draw_text({middle - gap - em(1.4f), area.y0 + em(0.6f)}, Face::kBold, ink(theme.text),
            fitted(Face::kBold, "run", room), Align::kRight);
  draw_text({middle + gap + em(1.4f), area.y0 + em(0.6f)}, Face::kBold, ink(theme.text),
            fitted(Face::kBold, shadow.name, room));
  float y = area.y0 + em(2.1f);
  if (!missing_.empty()) {
    draw_text({area.x0, y}, Face::kWords, ink(theme.muted), fitted(Face::kWords, missing_, area.width()));
    return;
  }
  float most = 0.001f;
  for (const Pair& pair : pairs_) most = std::max({most, pair.base_weight, pair.other_weight});
  const float step = em(1.45f);
  const auto rows = size_t(std::max(0.0f, (area.y1 - y + step * 0.5f) / step));
  for (size_t i = 0; i < pairs_.size() && i < rows; ++i, y += step) {
    const Pair& pair = pairs_[i];
    const bool alike = pair.base && pair.other;
    const ItemRect line{area.x0, y - step / 2, area.x1, y + step / 2};
    if (context.selection.expert == pair.expert) frame(line, ink(theme.selection), 1.2f, 3);
    draw_text({middle, y}, Face::kMono, ink(alike ? theme.text : theme.edit), fmt::format("E{}", pair.expert),
              Align::kCentre);
    const auto side = [&](bool runs, float weight, float direction) {
      const float from = middle + direction * gap, to = from + direction * room * std::max(0.0f, weight) / most;
      const float end = middle + direction * (gap + room + digits);
      if (!runs) {
        draw_text({from, y}, Face::kWords, ink(theme.faint), "–", direction < 0 ? Align::kRight : Align::kLeft);
        return;
      }
      fill({std::min(from, to), y - em(0.42f), std::max(from, to), y + em(0.42f)},
           ink(alike ? theme.selection : theme.edit), 2);
      if (room > em(2))
        draw_text({end, y}, Face::kMono, ink(theme.muted), fmt::format("{:.3f}", weight),
                  direction < 0 ? Align::kLeft : Align::kRight, kSmall);
    };
    side(pair.base, pair.base_weight, -1);
    side(pair.other, pair.other_weight, 1);
    Item item{fmt::format("pair {}", pair.expert),
              fmt::format("{}, expert {}", context.data.plan->row_name(row), pair.expert),
              double(pair.other_weight) - double(pair.base_weight),
              "weight, recipe − run",
              line,
              fmt::format("run {}, {} {}", pair.base ? fmt::format("{:.4f}", pair.base_weight) : "does not run it",
                          shadow.name, pair.other ? fmt::format("{:.4f}", pair.other_weight) : "does not run it")};
    ImGui::SetCursorScreenPos({line.x0, line.y0});
    if (ImGui::InvisibleButton(item.id.c_str(), {std::max(1.0f, line.width()), line.height()}))
      select_expert(context, row, pair.expert);
    if (ImGui::IsItemHovered()) context.items.set_hovered(item.id);
    context.items.add(std::move(item));
  }
}

void CompareView::draw_strip(const ViewContext& context, const ShadowState& shadow, const ItemRect& area) {
  const Theme& theme = context.theme;
  const ItemRect plot{area.x0 + em(2.6f), area.y0 + em(0.4f), area.x1, area.y1 - em(1.2f)};
  if (plot.width() < em(2) || plot.height() < em(1)) return;
  const auto fits = uint64_t(plot.width() / 2);
  const uint64_t shown = context.data.shown_index(context.cursor), end = shadow.next_token;
  uint64_t from = end > fits ? std::min(end - fits, shown > fits / 2 ? shown - fits / 2 : 0) : 0;
  const std::vector<ShadowToken> tokens = shadow.tokens->range(from, std::min(end, from + fits));
  if (tokens.empty()) return;
  const int quantity = settings_[0].value;
  double largest = 0;
  for (const ShadowToken& token : tokens)
    if (const double value = strip_value(token, quantity); std::isfinite(value)) largest = std::max(largest, value);
  const double scale = nice_ceiling(largest);
  const float width = std::min(plot.width() / float(tokens.size()), em(1.2f));
  const auto slot = [plot, width](uint64_t i) {
    return ItemRect{plot.x0 + width * float(i), plot.y0, plot.x0 + width * float(i + 1), plot.y1};
  };
  const float space = width > 5 ? width * 0.12f : 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double value = strip_value(tokens[i], quantity);
    const ItemRect at = slot(i);
    if (std::isinf(value))
      hatch({at.x0 + space, at.y0, at.x1 - space, at.y1}, ink(theme.edit), em(0.4f), 1);
    else if (value > 0)
      fill({at.x0 + space, at.y1 - at.height() * float(value / scale), at.x1 - space, at.y1}, ink(theme.edit));
  }
  fill({plot.x0, plot.y1, plot.x1, plot.y1 + 1}, ink(theme.line));
  if (shown >= from && shown < from + tokens.size())
    frame({slot(shown - from).x0 - 1, plot.y0 - 1, slot(shown - from).x1 + 1, plot.y1 + 1}, ink(theme.selection), 1.5f);
  draw_text({plot.x0 - em(0.5f), plot.y0 + em(0.3f)}, Face::kMono, ink(theme.muted), fmt::format("{:.3g}", scale),
            Align::kRight, kSmall);
  draw_text({plot.x0 - em(0.5f), plot.y1 - em(0.3f)}, Face::kMono, ink(theme.muted), "0", Align::kRight, kSmall);
  static constexpr const char* kNames[] = {"KL per token, mean over layers, nat", "JS per token, mean over layers, nat",
                                           "1 − Jaccard per token, mean over layers"};
  draw_text({plot.x0, area.y1 - em(0.45f)}, Face::kWords, ink(theme.muted),
            fitted(Face::kWords, fmt::format("{} · tokens {}–{}", kNames[quantity], from, from + tokens.size() - 1),
                   plot.width(), kSmall),
            Align::kLeft, kSmall);
  const auto shared = std::make_shared<const std::vector<ShadowToken>>(tokens);
  context.items.add_grid({1,
                          int(tokens.size()),
                          {plot.x0, plot.y0, slot(tokens.size()).x0, plot.y1},
                          [=, pieces = &context.data.pieces](int, int i) {
                            const uint64_t t = from + uint64_t(i);
                            const ShadowToken& token = (*shared)[size_t(i)];
                            return Item{
                                fmt::format("token {}", t),
                                fmt::format("token {} “{}”", t, t < pieces->size() ? (*pieces)[t] : ""),
                                strip_value(token, quantity),
                                quantity == kDistance ? "" : "nat",
                                slot(uint64_t(i)),
                                fmt::format("Jaccard {}, weight L1 {}\nKL {} nat, JS {} nat", number(token.jaccard, 3),
                                            number(token.weight_l1, 3), number(token.kl, 4), number(token.js, 4))};
                          }});
  ImGui::SetCursorScreenPos({plot.x0, plot.y0});
  ImGui::InvisibleButton("strip", {std::max(1.0f, plot.width()), std::max(1.0f, plot.height())});
  if (!ImGui::IsItemHovered()) return;
  const auto under = uint64_t(std::max(0.0f, (ImGui::GetIO().MousePos.x - plot.x0) / width));
  if (under >= tokens.size()) return;
  context.items.set_hovered(fmt::format("token {}", from + under));
  if (ImGui::IsItemClicked() && context.commands.set_cursor) context.commands.set_cursor(from + under);
}

void CompareView::answer_grid(const ViewContext& context) {
  const ItemRect& rect = grid_.rect();
  ImGui::SetCursorScreenPos({rect.x0, rect.y0});
  ImGui::InvisibleButton("cells", {std::max(1.0f, rect.width()), std::max(1.0f, rect.height())});
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  const auto under = ImGui::IsItemHovered() ? grid_.hit(mouse.x, mouse.y) : std::nullopt;
  if (under && under->second < experts_of(context.data, under->first)) {
    frame(grid_.cell(under->first, under->second), ink(context.theme.text), 1);
    context.items.set_hovered(fmt::format("layer {}/expert {}", row_label(context.data, under->first), under->second));
    if (ImGui::IsItemClicked()) select_expert(context, under->first, under->second);
  }
  for (const KeyPress& press : key_presses()) answer_key(context, press);
}

void CompareView::answer_key(const ViewContext& context, const KeyPress& press) {
  const int row = clamped_row(context.data, context.selection);
  const int across = int(press.key == ImGuiKey_RightArrow) - int(press.key == ImGuiKey_LeftArrow);
  const int down = int(press.key == ImGuiKey_DownArrow) - int(press.key == ImGuiKey_UpArrow);
  if (across == 0 && down == 0) return;
  const int new_row = std::clamp(row + down, 0, rows_ - 1);
  const auto expert = selected_expert(context);
  const int new_expert = std::clamp(expert ? *expert + across : 0, 0, experts_of(context.data, new_row) - 1);
  select_expert(context, new_row, new_expert);
  context.items.set_hovered(fmt::format("layer {}/expert {}", row_label(context.data, new_row), new_expert));
}

void CompareView::draw(const ViewContext& context) {
  if (!has_frames(context)) return;
  const ShadowState* shadow = selected(context.data);
  if (!shadow)
    return empty_state(context, "Nothing to compare with yet",
                       "Add an edit script: it is routed on the router logits of this run, no expert runs for it. "
                       "The edits in force now can be added too.",
                       "Add from a file…", "compare.add_file");
  const int row = clamped_row(context.data, context.selection);
  refresh(context, *shadow, row);

  const ItemRect area = view_area();
  const float x0 = area.x0 + em(0.9f), x1 = std::max(x0 + em(4), area.x1 - em(0.9f));
  float y = draw_recipes(context, {x0, area.y0 + em(0.5f), x1, area.y0 + em(2.5f)});
  if (!shadow->unavailable.empty()) {
    draw_text({x0, y + em(0.6f)}, Face::kWords, ink(context.theme.edit),
              fitted(Face::kWords, "Not compared: " + shadow->unavailable, x1 - x0));
    y += em(1.6f);
  }
  if (area.y1 - y > em(9)) y = draw_statistics(context, *shadow, row, x0, x1, y + em(0.7f));
  const float left = std::max(em(4), area.y1 - y);
  const float strip = left > em(16) ? em(5.2f) : 0,
              pairs = left > em(12)
                          ? std::min(left * 0.42f, em(2.6f) + em(1.45f) * float(std::max<size_t>(4, pairs_.size())))
                          : 0;
  draw_layers(context, *shadow, {x0, y + em(0.5f), x1, area.y1 - strip - pairs - em(0.4f)});
  answer_grid(context);
  if (pairs > 0)
    draw_pairs(context, *shadow, row, {x0, area.y1 - strip - pairs + em(0.4f), x1, area.y1 - strip - em(0.3f)});
  if (strip > 0) draw_strip(context, *shadow, {x0, area.y1 - strip, x1, area.y1 - em(0.4f)});
}

}  // namespace switchyard
