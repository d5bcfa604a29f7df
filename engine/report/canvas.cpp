// Shapes, axes, legends. Any thread.
#include "engine/report/canvas.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace switchyard {

Drawing draw_chart(const ChartSpec& chart, FigureSize size) {
  charts::Canvas canvas(chart, size.width);
  switch (chart.kind) {
    case ChartKind::kHeatMap:
    case ChartKind::kMatrix: charts::draw_grid(canvas); break;
    case ChartKind::kBars: charts::draw_bars(canvas); break;
    case ChartKind::kLines: charts::draw_lines(canvas); break;
    case ChartKind::kRidge: charts::draw_ridge(canvas); break;
    case ChartKind::kStrip: charts::draw_strip(canvas); break;
    case ChartKind::kFlow: charts::draw_flow(canvas); break;
    case ChartKind::kPoints: charts::draw_points(canvas); break;
  }
  return std::move(canvas.drawing);
}

namespace charts {

std::string number_text(double value) { return fmt::format("{:.4g}", value == 0 ? 0.0 : value); }

std::vector<double> ticks(double low, double high, int count) {
  const double span = high > low ? high - low : std::max(std::abs(low), 1.0);
  const double raw = span / count, power = std::pow(10, std::floor(std::log10(raw)));
  const double step = power * (raw / power <= 1 ? 1 : raw / power <= 2 ? 2 : raw / power <= 5 ? 5 : 10);
  std::vector<double> out;
  const double first = std::floor(low / step + 1e-9);
  for (double at = first; at * step < high - step * 1e-9 || out.size() < 2; ++at) out.push_back(at * step);
  out.push_back(out.back() + step);
  if (out[out.size() - 2] >= high - step * 1e-9 && out.size() > 2) out.pop_back();
  return out;
}

Canvas::Canvas(const ChartSpec& chart, double width) : chart(chart) {
  drawing.width = width;
  drawing.title = shown_text(chart.title);
  find_range();
}

void Canvas::find_range() {
  bool first = true;
  for (const auto* all : {&chart.values, &chart.low, &chart.high})
    for (const auto& value : *all) {
      if (!value || !std::isfinite(*value)) continue;
      low = first ? *value : std::min(low, *value);
      high = first ? *value : std::max(high, *value);
      first = false;
    }
  if (chart.middle) reach = std::max({high - *chart.middle, *chart.middle - low, 1e-12});
}

void Canvas::rect(const Box& box, Ink ink, std::string says, double opacity) {
  Shape shape;
  shape.ink = ink, shape.opacity = opacity;
  shape.x = box.x, shape.y = box.y, shape.w = box.w, shape.h = box.h;
  shape.says = std::move(says);
  drawing.shapes.push_back(std::move(shape));
}

void Canvas::line(double x0, double y0, double x1, double y1, Ink ink, double width, std::vector<double> dashes) {
  Shape& shape = path(Shape::kStroke, {{'M', x0, y0}, {'L', x1, y1}}, ink);
  shape.width = width;
  shape.dashes = std::move(dashes);
}

Shape& Canvas::path(Shape::Kind kind, std::vector<PathStep> steps, Ink ink) {
  Shape shape;
  shape.kind = kind, shape.ink = ink;
  shape.steps = std::move(steps);
  drawing.shapes.push_back(std::move(shape));
  return drawing.shapes.back();
}

void Canvas::words(double x, double y, std::string_view text, Ink::Role role, Anchor anchor, double size, bool upwards) {
  Shape shape;
  shape.kind = Shape::kWords;
  shape.ink.role = role;
  shape.x = x, shape.y = y, shape.size = size, shape.anchor = anchor, shape.upwards = upwards;
  shape.words = std::string(text);
  drawing.shapes.push_back(std::move(shape));
}

void Canvas::hatch(const Box& box) {
  std::vector<PathStep> steps;
  constexpr double kGap = 3;
  for (double at = kGap - std::fmod(box.w + box.h, kGap) / 2; at < box.w + box.h; at += kGap) {
    const double x0 = std::min(at, box.w), y0 = at - x0, y1 = std::min(at, box.h), x1 = at - y1;
    steps.push_back({'M', box.x + x0, box.y + y0});
    steps.push_back({'L', box.x + x1, box.y + y1});
  }
  Ink ground, mark;
  ground.role = Ink::kGround, mark.role = Ink::kMark;
  path(Shape::kStroke, steps, ground).width = 1.4;
  path(Shape::kStroke, std::move(steps), mark).width = 0.7;
}

void Canvas::mark(int series, double x, double y, std::string says) {
  constexpr double r = 2.1;
  std::vector<PathStep> s;
  switch (series % kCategories) {
    case 0: {  // disc
      constexpr double k = r * 0.5523;
      s = {{'M', x - r, y}, {'C', x, y - r, x - r, y - k, x - k, y - r}, {'C', x + r, y, x + k, y - r, x + r, y - k}, {'C', x, y + r, x + r, y + k, x + k, y + r}, {'C', x - r, y, x - k, y + r, x - r, y + k}};
      break;
    }
    case 1: s = {{'M', x - r, y - r}, {'L', x + r, y - r}, {'L', x + r, y + r}, {'L', x - r, y + r}}; break;
    case 2: s = {{'M', x, y - r * 1.3}, {'L', x + r * 1.2, y + r}, {'L', x - r * 1.2, y + r}}; break;
    case 3: s = {{'M', x, y - r * 1.4}, {'L', x + r * 1.4, y}, {'L', x, y + r * 1.4}, {'L', x - r * 1.4, y}}; break;
    case 4: s = {{'M', x, y + r * 1.3}, {'L', x + r * 1.2, y - r}, {'L', x - r * 1.2, y - r}}; break;
    case 5: s = {{'M', x - r, y - r * 0.4}, {'L', x + r, y - r * 0.4}, {'L', x + r, y + r * 0.4}, {'L', x - r, y + r * 0.4}}; break;
    default: s = {{'M', x - r * 0.4, y - r}, {'L', x + r * 0.4, y - r}, {'L', x + r * 0.4, y + r}, {'L', x - r * 0.4, y + r}};
  }
  s.push_back({'Z'});
  Ink ink;
  ink.role = Ink::kSeries, ink.series = series;
  path(Shape::kFill, std::move(s), ink).says = std::move(says);
}

double Canvas::head(const std::vector<std::pair<Ink, std::string>>& legend, bool lines) {
  double y = 9;
  if (!chart.title.empty()) {
    words(2, y, fitted(shown_text(chart.title), 8, drawing.width - 4), Ink::kText, Anchor::kStart, 8);
    drawing.shapes.back().bold = true;
    y += kLine + 1;
  }
  if (!legend.empty()) {
    double x = 2;
    for (const auto& [ink, given] : legend) {
      const std::string name = fitted(shown_text(given), kSmall, drawing.width - 30);
      const double wide = 17 + text_width(name, kSmall) + 8;
      if (x > 2 && x + wide > drawing.width) x = 2, y += kLine;
      if (lines) {
        line(x, y - 2.3, x + 14, y - 2.3, ink, 1.1);
        mark(ink.series, x + 7, y - 2.3, {});
      } else {
        rect({x + 3, y - 5, 8, 6}, ink);
      }
      words(x + 17, y, name, Ink::kText);
      x += wide;
    }
    y += kLine - 2;
  }
  return y - 3;
}

double Canvas::label_width(const std::vector<std::string>& names, double most) const {
  double widest = 8;
  for (const std::string& name : names) widest = std::max(widest, std::min(text_width(shown_text(name), kSmall), most));
  return widest + 5;
}

void Canvas::row_labels(const Box& plot, const std::vector<std::string>& names, double labels) {
  if (names.empty()) return;
  const double h = plot.h / double(names.size());
  const auto step = std::max<size_t>(1, size_t(std::ceil(7.5 / h)));
  for (size_t r = 0; r < names.size(); r += step)
    words(plot.x - 3, plot.y + h * (double(r) + 0.5) + 2.3, fitted(shown_text(names[r]), kSmall, labels - 4), Ink::kMuted, Anchor::kEnd);
}

void Canvas::column_labels(const Box& plot, const std::vector<std::string>& names, const std::vector<double>& at, const std::string& title) {
  double free_from = 0;
  for (size_t c = 0; c < names.size(); ++c) {
    const std::string name = fitted(shown_text(names[c]), kSmall, std::max(24.0, plot.w / 3));
    const double half = text_width(name, kSmall) / 2;
    const double x = std::min(at[c], drawing.width - half - 1);
    if (x - half < free_from) continue;
    words(x, plot.bottom() + kLine - 1, name, Ink::kMuted, Anchor::kMiddle);
    free_from = x + half + 4;
  }
  if (!title.empty()) words(plot.x + plot.w / 2, plot.bottom() + 2 * kLine, fitted(shown_text(title), kWord, drawing.width - 8), Ink::kText, Anchor::kMiddle, kWord);
}

Ink Canvas::cell(double value) const {
  Ink ink;
  ink.role = Ink::kData;
  if (chart.categories) ink.rgb = high < kCategories ? category_color(int(value)) : map_color(ColorMap::kViridis, (value - low) / std::max(high - low, 1e-300), false);
  else if (chart.middle) ink.rgb = map_color(ColorMap::kDiverging, 0.5 + (value - *chart.middle) / (2 * reach), false);
  else ink.rgb = map_color(ColorMap::kCividis, high > low ? (value - low) / (high - low) : 0.5, false);
  return ink;
}

void Canvas::scale(const Box& plot, double from, double to) {
  const double x = plot.right() + 5, top = plot.y + kLine, height = std::clamp(plot.h - kLine * 1.5, 18.0, 110.0);
  constexpr int kSteps = 32;
  for (int i = 0; i < kSteps; ++i) rect({x, top + height * i / kSteps, 6, height / kSteps + 0.3}, cell(to - (to - from) * (i + 0.5) / kSteps));
  words(x + 8, top + 4, number_text(to), Ink::kMuted);
  words(x + 8, top + height, number_text(from), Ink::kMuted);
  const double marked = chart.middle && *chart.middle > from && *chart.middle < to ? *chart.middle : (from + to) / 2;
  const double y = top + height * (to - marked) / std::max(to - from, 1e-300) + 2;
  if (y - top > 11 && top + height - y > 7) words(x + 8, y, number_text(marked), Ink::kMuted);
}

std::pair<double, double> Canvas::value_axis(const Box& plot, double from, double to) {
  const auto at = ticks(from, to, std::max(2, int(plot.h / 26)));
  Ink ink;
  ink.role = Ink::kLine;
  for (const double value : at) {
    const double y = plot.bottom() - (value - at.front()) / (at.back() - at.front()) * plot.h;
    line(plot.x, y, plot.right(), y, ink);
    words(plot.x - 3, y + 2.3, number_text(value), Ink::kMuted, Anchor::kEnd);
  }
  return {at.front(), at.back()};
}

void Canvas::foot(double y) {
  if (chart.left_out > 0) {
    y += kLine;
    words(2, y - 2, fmt::format("{} more not shown; the data file has {} too.", chart.left_out, chart.left_out == 1 ? "it" : "them"), Ink::kMuted);
  }
  drawing.height = std::ceil(y + 2);
}

}  // namespace charts
}  // namespace switchyard
