// Bars, lines with bands, ridges. Any thread.
#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "engine/report/canvas.h"

namespace switchyard::charts {
namespace {

Ink of(Ink::Role role, int series = 0) {
  Ink ink;
  ink.role = role, ink.series = series;
  return ink;
}

std::string said(const ChartSpec& c, size_t row, size_t column) {
  const size_t at = row * c.columns.size() + column;
  std::string out = shown_text(c.rows[row].empty() ? c.quantity : c.rows[row]) + ", " + shown_text(c.column_title + " " + c.columns[column]) + ": ";
  if (!c.values[at]) return out + "not defined";
  out += fmt::format("{}", *c.values[at]);
  if (!c.low.empty() && c.low[at] && c.high[at]) out += fmt::format(" ({} to {})", *c.low[at], *c.high[at]);
  return out;
}

std::vector<std::pair<Ink, std::string>> legend_of(const ChartSpec& c) {
  std::vector<std::pair<Ink, std::string>> out;
  if (c.rows.size() > 1)
    for (size_t r = 0; r < c.rows.size(); ++r) out.emplace_back(of(Ink::kSeries, int(r)), c.rows[r]);
  return out;
}

struct Frame {
  Box plot;
  double low = 0, high = 1;
  double y(double value) const { return plot.bottom() - (value - low) / (high - low) * plot.h; }
};

// Title, legend, value axis, column labels and base line; at: middles of the columns as shares of the width.
Frame frame(Canvas& canvas, double low, double high, bool lines, const std::vector<double>& at) {
  const ChartSpec& c = canvas.chart;
  if (c.baseline) low = std::min(low, *c.baseline), high = std::max(high, *c.baseline);
  const double top = canvas.head(legend_of(c), lines) + kLine;
  Frame f;
  double labels = 0;
  for (const double value : ticks(low, high, 3)) labels = std::max(labels, text_width(number_text(value), kSmall));
  labels = std::max(labels, text_width(number_text(high * 1.01), kSmall)) + 6;
  f.plot = {labels, top, canvas.drawing.width - labels - 4, std::clamp(canvas.drawing.width * 0.42, 80.0, 150.0)};
  // Of several series the legend names the quantities. What the dashed line means stands above the plot, where no mark is.
  const std::string base = c.baseline && !c.baseline_title.empty() ? fitted(shown_text(c.baseline_title) + " " + number_text(*c.baseline), kSmall, canvas.drawing.width / 2) : std::string();
  const double room = base.empty() ? 0 : text_width(base, kSmall) + 20;
  if (c.rows.size() < 2) canvas.words(2, top - kLine + 3, fitted(shown_text(c.quantity), kSmall, canvas.drawing.width - 8 - room), Ink::kMuted);
  if (!base.empty()) {
    canvas.words(canvas.drawing.width - 3, top - kLine + 3, base, Ink::kMark, Anchor::kEnd);
    canvas.line(canvas.drawing.width - room, top - kLine + 1, canvas.drawing.width - room + 14, top - kLine + 1, of(Ink::kMark), 0.9, {3, 2});
  }
  std::tie(f.low, f.high) = canvas.value_axis(f.plot, low, high);
  std::vector<double> middles;
  for (const double share : at) middles.push_back(f.plot.x + share * f.plot.w);
  canvas.column_labels(f.plot, c.columns, middles, c.column_title);
  return f;
}

void baseline(Canvas& canvas, const Frame& f) {
  const ChartSpec& c = canvas.chart;
  if (!c.baseline) return;
  canvas.line(f.plot.x, f.y(*c.baseline), f.plot.right(), f.y(*c.baseline), of(Ink::kMark), 0.9, {3, 2});
}

// Where all names are rising numbers a column stands at its number, else one after the other.
std::vector<double> places(const std::vector<std::string>& names) {
  const size_t count = names.size();
  std::vector<double> at(count);
  bool rising = count > 1;
  for (size_t c = 0; c < count && rising; ++c) {
    const auto [end, problem] = std::from_chars(names[c].data(), names[c].data() + names[c].size(), at[c]);
    rising = problem == std::errc() && end == names[c].data() + names[c].size() && std::isfinite(at[c]) && (c == 0 || at[c] > at[c - 1]);
  }
  const double step = rising ? (at[count - 1] - at[0]) / double(count - 1) : 1;
  const double first = rising ? at[0] : 0, span = rising ? at[count - 1] - at[0] + step : double(count);
  for (size_t c = 0; c < count; ++c) at[c] = rising ? (at[c] - first + step / 2) / span : (double(c) + 0.5) / span;
  return at;
}

std::vector<double> even(size_t count) {
  std::vector<double> at;
  for (size_t c = 0; c < count; ++c) at.push_back((double(c) + 0.5) / double(count));
  return at;
}

}  // namespace

void draw_bars(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  const auto at = even(c.columns.size());
  const Frame f = frame(canvas, std::min(0.0, canvas.low), std::max(0.0, canvas.high), false, at);
  const double group = f.plot.w / double(std::max<size_t>(c.columns.size(), 1)), w = group * 0.8 / double(std::max<size_t>(c.rows.size(), 1));
  for (size_t r = 0; r < c.rows.size(); ++r) {
    for (size_t k = 0; k < c.columns.size(); ++k) {
      const size_t cell = r * c.columns.size() + k;
      if (!c.values[cell]) continue;
      const double x = f.plot.x + at[k] * f.plot.w - group * 0.4 + w * double(r), zero = f.y(0), y = f.y(*c.values[cell]);
      canvas.rect({x, std::min(zero, y), w, std::abs(zero - y)}, of(Ink::kSeries, c.rows.size() == 1 ? 4 : int(r)), said(c, r, k));
      if (!c.low.empty() && c.low[cell] && c.high[cell]) canvas.line(x + w / 2, f.y(*c.low[cell]), x + w / 2, f.y(*c.high[cell]), of(Ink::kText), 0.7);
    }
  }
  baseline(canvas, f);
  canvas.foot(f.plot.bottom() + Canvas::kColumnLabels);
}

void draw_lines(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  static const std::vector<double> kDashes[] = {{}, {4, 2}, {1.5, 1.5}, {6, 2, 1.5, 2}};
  const auto at = places(c.columns);
  const Frame f = frame(canvas, canvas.low, canvas.high, true, at);
  const auto x = [&](size_t k) { return f.plot.x + at[k] * f.plot.w; };
  const size_t count = c.columns.size();
  const auto every = std::max<size_t>(1, size_t(std::ceil(7.0 * double(count) / f.plot.w)));
  for (size_t r = 0; r < c.rows.size(); ++r) {
    const int series = c.rows.size() == 1 ? 4 : int(r);
    if (!c.low.empty()) {
      std::vector<PathStep> band;
      for (size_t k = 0; k < count; ++k)
        if (c.low[r * count + k] && c.high[r * count + k]) band.push_back({band.empty() ? 'M' : 'L', x(k), f.y(*c.high[r * count + k])});
      for (size_t k = count; k-- > 0;)
        if (c.low[r * count + k] && c.high[r * count + k]) band.push_back({'L', x(k), f.y(*c.low[r * count + k])});
      if (!band.empty()) {
        band.push_back({'Z'});
        canvas.path(Shape::kFill, std::move(band), of(Ink::kSeries, series)).opacity = 0.2;
      }
    }
    std::vector<PathStep> steps;
    bool pen_down = false;
    for (size_t k = 0; k < count; ++k) {
      const auto& value = c.values[r * count + k];
      if (value) steps.push_back({pen_down ? 'L' : 'M', x(k), f.y(*value)});
      pen_down = value.has_value();
    }
    Shape& line = canvas.path(Shape::kStroke, std::move(steps), of(Ink::kSeries, series));
    line.width = 1.1;
    line.dashes = kDashes[r % 4];
    for (size_t k = 0; k < count; ++k)
      if (c.values[r * count + k] && (k % every == 0 || count <= 64)) canvas.mark(series, x(k), f.y(*c.values[r * count + k]), said(c, r, k));
  }
  baseline(canvas, f);
  canvas.foot(f.plot.bottom() + Canvas::kColumnLabels);
}

void draw_ridge(Canvas& canvas) {
  const ChartSpec& c = canvas.chart;
  const double top = canvas.head();
  const double labels = canvas.label_width(c.rows, canvas.drawing.width / 4) + (c.row_title.empty() ? 0 : kLine);
  const auto rows = double(std::max<size_t>(c.rows.size(), 1));
  const double step = std::clamp(canvas.drawing.width * 0.8 / rows, 7.0, 18.0), tall = step * 2.2;
  const Box plot{labels, top + tall - step, canvas.drawing.width - labels - 6, step * rows};
  const size_t count = c.columns.size();
  for (size_t r = 0; r < c.rows.size(); ++r) {
    const double base = plot.y + step * double(r + 1), w = plot.w / double(std::max<size_t>(count, 1));
    double peak = 0;  // of the row: shapes are compared, not heights
    for (size_t k = 0; k < count; ++k) peak = std::max(peak, c.values[r * count + k].value_or(0));
    std::vector<PathStep> outline{{'M', plot.x, base}};
    for (size_t k = 0; k < count; ++k) {
      const double y = base - (peak > 0 ? c.values[r * count + k].value_or(0) / peak : 0) * tall;
      outline.push_back({'L', plot.x + w * double(k), y});
      outline.push_back({'L', plot.x + w * double(k + 1), y});
    }
    outline.push_back({'L', plot.right(), base});
    auto closed = outline;
    closed.push_back({'Z'});
    canvas.path(Shape::kFill, closed, of(Ink::kGround)).opacity = 0.85;
    Shape& fill = canvas.path(Shape::kFill, std::move(closed), of(Ink::kSeries, 4));
    fill.opacity = 0.35;
    fill.says = shown_text(c.row_title + " " + c.rows[r]) + fmt::format(": highest bin {}", number_text(peak));
    canvas.path(Shape::kStroke, std::move(outline), of(Ink::kSeries, 4)).width = 0.7;
  }
  const size_t every = std::max<size_t>(1, size_t(std::ceil(7.5 / step)));
  for (size_t r = 0; r < c.rows.size(); r += every) canvas.words(plot.x - 3, plot.y + step * double(r + 1), fitted(shown_text(c.rows[r]), kSmall, labels - 4), Ink::kMuted, Anchor::kEnd);
  if (!c.row_title.empty()) canvas.words(7, plot.y + plot.h / 2, shown_text(c.row_title), Ink::kText, Anchor::kMiddle, kWord, true);
  std::vector<double> at;
  for (const double share : even(count)) at.push_back(plot.x + share * plot.w);
  canvas.column_labels(plot, c.columns, at, c.column_title);
  canvas.foot(plot.bottom() + Canvas::kColumnLabels);
}

}  // namespace switchyard::charts
