// Heat maps, matrices and strips over text. Any thread.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "engine/report/canvas.h"

namespace switchyard::charts {

namespace {

constexpr size_t kMostSaid = 4096;  // cells that say their value one by one
Ink of(Ink::Role role) {
  Ink ink;
  ink.role = role;
  return ink;
}

std::string said(const ChartSpec& c, size_t row, size_t column) {
  const size_t at = row * c.columns.size() + column;
  std::string out = shown_text(c.row_title + " " + c.rows[row] + ", " + c.column_title + " " + c.columns[column] + ": ");
  out += c.values[at] ? fmt::format("{}", *c.values[at]) : "not defined";
  if (!c.marked.empty() && c.marked[at]) out += ", " + shown_text(c.mark_title);
  return out;
}

// Many cells: one path a colour, so that a map of 6,000 experts stays small.
void merged_cells(Canvas& canvas, const Box& plot, double w, double h) {
  const ChartSpec& c = canvas.chart;
  std::vector<std::pair<Rgb, std::vector<PathStep>>> colors;
  for (size_t at = 0; at < c.values.size(); ++at) {
    if (!c.values[at]) continue;
    const Rgb rgb = canvas.cell(*c.values[at]).rgb;
    auto found = std::find_if(colors.begin(), colors.end(), [&](const auto& one) { return one.first.r == rgb.r && one.first.g == rgb.g && one.first.b == rgb.b; });
    if (found == colors.end()) found = colors.insert(colors.end(), {rgb, {}});
    const double x = plot.x + w * double(at % c.columns.size()), y = plot.y + h * double(at / c.columns.size());
    found->second.insert(found->second.end(), {{'M', x, y}, {'L', x + w, y}, {'L', x + w, y + h}, {'L', x, y + h}, {'Z'}});
  }
  for (auto& [rgb, steps] : colors) {
    Ink ink;
    ink.role = Ink::kData, ink.rgb = rgb;
    canvas.path(Shape::kFill, std::move(steps), ink);
  }
}

void category_legend(Canvas& canvas, std::vector<std::pair<Ink, std::string>>& legend) {
  for (int i = 0; i <= int(canvas.high) && i < kCategories; ++i) legend.emplace_back(canvas.cell(i), canvas.chart.quantity + " " + std::to_string(i));
}

}  // namespace

void draw_grid(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  const auto rows = double(c.rows.size()), columns = double(c.columns.size());
  std::vector<std::pair<Ink, std::string>> legend;
  const bool few = c.categories && canvas.high < kCategories;
  if (few) category_legend(canvas, legend);
  const double top = canvas.head(legend);
  const double labels = canvas.label_width(c.rows, canvas.drawing.width / 4) + (c.row_title.empty() ? 0 : kLine);
  Box plot{labels, top, canvas.drawing.width - labels - (few ? 4 : Canvas::kScale), 0};
  if (c.kind == ChartKind::kMatrix) plot.w = plot.h = std::min(plot.w, canvas.drawing.width * 0.85);
  else plot.h = std::clamp(rows * 10, 44.0, canvas.drawing.width * 0.95);
  const double w = plot.w / columns, h = plot.h / rows;
  canvas.rect(plot, of(Ink::kLine));  // under cells that have no value
  if (c.values.size() > kMostSaid) {
    merged_cells(canvas, plot, w, h);
  } else {
    for (size_t at = 0; at < c.values.size(); ++at) {
      if (!c.values[at]) continue;
      canvas.rect({plot.x + w * double(at % c.columns.size()), plot.y + h * double(at / c.columns.size()), w, h}, canvas.cell(*c.values[at]), said(c, at / c.columns.size(), at % c.columns.size()));
    }
  }
  for (size_t at = 0; at < c.marked.size(); ++at)
    if (c.marked[at]) canvas.hatch({plot.x + w * double(at % c.columns.size()), plot.y + h * double(at / c.columns.size()), w, h});
  canvas.row_labels(plot, c.rows, labels - (c.row_title.empty() ? 0 : kLine));
  if (!c.row_title.empty()) canvas.words(7, plot.y + plot.h / 2, shown_text(c.row_title), Ink::kText, Anchor::kMiddle, kWord, true);
  std::vector<double> at;
  for (size_t k = 0; k < c.columns.size(); ++k) at.push_back(plot.x + w * (double(k) + 0.5));
  canvas.column_labels(plot, c.columns, at, c.column_title);
  if (!few && !c.values.empty()) canvas.scale(plot, canvas.low, canvas.high);
  double bottom = plot.bottom() + Canvas::kColumnLabels;
  if (!c.mark_title.empty() && !c.marked.empty()) {
    canvas.hatch({2, bottom - 1, 10, 7});
    canvas.words(16, bottom + 5, shown_text(c.mark_title), Ink::kMuted);
    bottom += kLine;
  }
  canvas.foot(bottom);
}

void draw_strip(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  const double top = canvas.head() + 2, right = canvas.drawing.width - Canvas::kScale, h = 11;
  double x = 2, y = top;
  for (size_t t = 0; t < c.columns.size(); ++t) {
    const std::string text = shown_text(c.columns[t]);
    std::string flat;
    bool ends = false;
    for (const char ch : text) {
      if (ch == '\n') ends = true, flat += "↵";
      else if (ch == '\t') flat += "→";
      else flat += ch;
    }
    const double w = std::max(4.0, text_width(flat, kSmall) + 1);
    if (x > 2 && x + w > right) x = 2, y += h + 1.5;
    const auto& value = c.values[t];
    if (value) {
      const Ink ink = canvas.cell(*value);
      canvas.rect({x, y, w, h}, ink, fmt::format("token {} {}: {}", t, flat, *value));
      const Rgb black{26, 29, 35}, white{255, 255, 255};
      canvas.words(x + 0.5, y + 8, flat, Ink::kText);
      canvas.drawing.shapes.back().ink = {Ink::kData, 0, contrast_ratio(ink.rgb, black) > contrast_ratio(ink.rgb, white) ? black : white};
    } else {
      canvas.rect({x, y, w, h}, of(Ink::kLine), fmt::format("token {} {}: not defined", t, flat));
      canvas.words(x + 0.5, y + 8, flat, Ink::kText);
    }
    x += w + 0.6;
    if (ends) x = 2, y += h + 1.5;
  }
  const Box plot{2, top, right - 2, std::max(y + h - top, 40.0)};
  canvas.scale({plot.x, plot.y - 6, plot.w, plot.h}, canvas.low, canvas.high);
  canvas.foot(plot.bottom() + 2);
}

}  // namespace switchyard::charts
