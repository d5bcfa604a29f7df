// What the chart drawers share: shapes with few words, axes, legends, ticks. Inside engine/report; any thread.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/report/chart.h"

namespace switchyard::charts {

inline constexpr double kSmall = 6.5, kWord = 7.5;  // points: numbers, words
inline constexpr double kLine = 9.5;                // from line to line

struct Box {
  double x = 0, y = 0, w = 0, h = 0;
  double right() const { return x + w; }
  double bottom() const { return y + h; }
};

std::string number_text(double value);  // four significant digits
// Round steps from at or below `low` to at or above `high`, about `count` of them.
std::vector<double> ticks(double low, double high, int count);

class Canvas {
 public:
  Canvas(const ChartSpec& chart, double width);

  const ChartSpec& chart;
  Drawing drawing;

  void rect(const Box& box, Ink ink, std::string says = {}, double opacity = 1);
  void line(double x0, double y0, double x1, double y1, Ink ink, double width = 0.6, std::vector<double> dashes = {});
  Shape& path(Shape::Kind kind, std::vector<PathStep> steps, Ink ink);
  void words(double x, double y, std::string_view text, Ink::Role role, Anchor anchor = Anchor::kStart, double size = kSmall, bool upwards = false);
  void hatch(const Box& box);
  // One of seven shapes, filled, about `at`: series are told apart without colour.
  void mark(int series, double x, double y, std::string says);

  // Title, and under it the legend; what is left starts at the result.
  double head(const std::vector<std::pair<Ink, std::string>>& legend = {}, bool lines = false);
  // Names at the left of rows, every n-th where they would touch; the widest of them.
  double label_width(const std::vector<std::string>& names, double most) const;
  void row_labels(const Box& plot, const std::vector<std::string>& names, double labels);
  // Names under columns whose middles are `at`, those that fit; then the axis' title. The height it takes.
  static constexpr double kColumnLabels = 2 * kLine + 4;
  void column_labels(const Box& plot, const std::vector<std::string>& names, const std::vector<double>& at, const std::string& title);
  // A scale from low to high at the right: bar, numbers, quantity.
  static constexpr double kScale = 40;
  void scale(const Box& plot, double low, double high);
  // Lines across at round numbers with the numbers at the left; gives the scale's ends.
  std::pair<double, double> value_axis(const Box& plot, double low, double high);
  void foot(double y);  // what is left out, then the drawing's height

  // Where a value lies on the colour scale.
  Ink cell(double value) const;
  double low = 0, high = 0;  // of the finite values
  double reach = 0;          // of a diverging map, to both sides of its middle

 private:
  void find_range();
};

void draw_grid(Canvas& canvas);    // heat map, matrix
void draw_strip(Canvas& canvas);
void draw_bars(Canvas& canvas);
void draw_lines(Canvas& canvas);
void draw_ridge(Canvas& canvas);
void draw_flow(Canvas& canvas);
void draw_points(Canvas& canvas);

}  // namespace switchyard::charts
