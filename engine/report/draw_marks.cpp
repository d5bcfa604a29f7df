// Flows between layers, and effects against their corrected p. Any thread.
#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "engine/analysis/contrast.h"
#include "engine/report/canvas.h"

namespace switchyard::charts {

namespace {

constexpr int kMostLabels = 8;

Ink of(Ink::Role role, int series = 0) {
  Ink ink;
  ink.role = role, ink.series = series;
  return ink;
}

}  // namespace

void draw_flow(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  int experts = 1;
  double thickest = 1e-300;
  for (const ChartLink& link : c.links) {
    experts = std::max({experts, link.from + 1, link.to + 1});
    thickest = std::max(thickest, std::abs(link.value));
  }
  std::vector<std::string> names;
  for (int e = 0; e < experts; ++e) names.push_back(std::to_string(e));
  const double top = canvas.head();
  const double labels = canvas.label_width(names, 60) + kLine;
  const Box plot{labels, top, canvas.drawing.width - labels - 8, std::clamp(experts * 6.0, 90.0, canvas.drawing.width)};
  canvas.row_labels(plot, names, labels - kLine);
  canvas.words(7, plot.y + plot.h / 2, shown_text(c.row_title), Ink::kText, Anchor::kMiddle, kWord, true);
  std::vector<double> at;
  const auto columns = double(std::max<size_t>(c.columns.size(), 2) - 1);
  for (size_t k = 0; k < c.columns.size(); ++k) at.push_back(plot.x + plot.w * double(k) / columns);
  for (const double x : at) canvas.line(x, plot.y, x, plot.bottom(), of(Ink::kLine));
  std::vector<ChartLink> links = c.links;
  std::stable_sort(links.begin(), links.end(), [](const ChartLink& a, const ChartLink& b) { return a.value < b.value; });
  const double room = std::max(plot.h / experts, 4.0);
  const auto y = [&](int expert) { return plot.y + (expert + 0.5) / experts * plot.h; };
  for (const ChartLink& link : links) {
    const double x0 = at[size_t(link.column)], x1 = at[size_t(link.column) + 1], third = (x1 - x0) / 3;
    const double share = std::abs(link.value) / thickest, half = std::max(0.5, room * share) / 2, a = y(link.from), b = y(link.to);
    Shape& ribbon = canvas.path(Shape::kFill,
                                {{'M', x0, a - half}, {'C', x1, b - half, x0 + third, a - half, x1 - third, b - half}, {'L', x1, b + half},
                                 {'C', x0, a + half, x1 - third, b + half, x0 + third, a + half}, {'Z'}},
                                of(Ink::kSeries, link.from % kCategories));
    ribbon.opacity = 0.3 + 0.6 * share;
    ribbon.says = fmt::format("layer {}, expert {} → layer {}, expert {}: {}", shown_text(c.columns[size_t(link.column)]), link.from, shown_text(c.columns[size_t(link.column) + 1]), link.to, link.value);
  }
  canvas.column_labels(plot, c.columns, at, c.column_title);
  canvas.foot(plot.bottom() + Canvas::kColumnLabels);
}

void draw_points(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  double reach = 1e-12, highest = -std::log10(kSignificanceLevel) * 1.2;
  for (const ChartPoint& point : c.points) {
    reach = std::max(reach, std::abs(point.effect));
    if (point.q > 0) highest = std::max(highest, -std::log10(point.q));
  }
  const double end = ticks(0, reach, 3).back();
  const std::string a = c.side_a.empty() ? "A" : c.side_a, b = c.side_b.empty() ? "B" : c.side_b;
  const double top = canvas.head({{of(Ink::kSeries, 0), "more in " + a}, {of(Ink::kSeries, 1), "more in " + b}}, true) + kLine;
  double labels = 0;
  for (const int count : {3, 7})
    for (const double value : ticks(0, highest, count)) labels = std::max(labels, text_width(number_text(value), kSmall) + 6);
  const Box plot{labels, top, canvas.drawing.width - labels - 6, std::clamp(canvas.drawing.width * 0.6, 100.0, 200.0)};
  canvas.words(2, top - kLine + 3, "−log10 q", Ink::kMuted);
  const auto [low, high] = canvas.value_axis(plot, 0, highest);
  const auto x = [&](double effect) { return plot.x + (effect / end + 1) / 2 * plot.w; };
  const auto y = [&, low = low, high = high](double q) { return q > 0 ? plot.bottom() - (-std::log10(q) - low) / (high - low) * plot.h : plot.y - 3; };  // q = 0 at the top
  canvas.line(x(0), plot.y, x(0), plot.bottom(), of(Ink::kMuted));
  std::vector<std::string> names;
  std::vector<double> at;
  for (const double tick : {-end, -end / 2, 0.0, end / 2, end}) names.push_back(number_text(tick)), at.push_back(x(tick));
  canvas.column_labels(plot, names, at, c.quantity);
  canvas.line(plot.x, y(kSignificanceLevel), plot.right(), y(kSignificanceLevel), of(Ink::kMark), 0.8, {3, 2});
  canvas.words(plot.x + 2, y(kSignificanceLevel) - 2, fmt::format("q = {}", kSignificanceLevel), Ink::kMark);
  std::vector<ChartPoint> points = c.points;
  std::stable_sort(points.begin(), points.end(), [](const ChartPoint& one, const ChartPoint& other) { return one.q > other.q; });
  for (const ChartPoint& point : points) {
    const std::string says = fmt::format("{}: {} {}, q {}", shown_text(point.name), shown_text(c.quantity), point.effect, point.q);
    if (point.q < kSignificanceLevel) canvas.mark(point.effect < 0 ? 1 : 0, x(point.effect), y(point.q), says);
    else canvas.rect({x(point.effect) - 0.9, y(point.q) - 0.9, 1.8, 1.8}, of(Ink::kMuted), says, 0.7);
  }
  // The strongest, where their names touch nothing.
  std::vector<Box> taken;
  for (const ChartPoint& point : points)
    if (point.q < kSignificanceLevel) taken.push_back({x(point.effect) - 2.5, y(point.q) - 2.5, 5, 5});
  int written = 0;
  for (auto point = points.rbegin(); point != points.rend() && point->q < kSignificanceLevel && written < kMostLabels; ++point) {
    const std::string name = shown_text(point->name);
    const double w = text_width(name, kSmall);
    for (const double left : {x(point->effect) + 4, x(point->effect) - 4 - w}) {
      const Box box{left, y(point->q) - 3.5, w, 7};
      const auto touches = [&](const Box& other) { return box.x < other.right() && other.x < box.right() && box.y < other.bottom() && other.y < box.bottom(); };
      if (left < plot.x || box.right() > plot.right() || std::any_of(taken.begin(), taken.end(), touches)) continue;
      canvas.words(left, y(point->q) + 2.3, name, Ink::kText);
      taken.push_back(box);
      ++written;
      break;
    }
  }
  canvas.foot(plot.bottom() + Canvas::kColumnLabels);
}

}  // namespace switchyard::charts
