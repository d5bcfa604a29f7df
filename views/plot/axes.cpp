#include "views/plot/axes.h"

#include <algorithm>
#include <cmath>

#include "views/ui/draw.h"

namespace switchyard {

int label_step(float space, float need) {
  for (int scale = 1; scale < 1'000'000; scale *= 16)
    for (const int step : {1, 2, 4, 8})
      if (space * float(step * scale) >= need) return step * scale;
  return 1 << 20;
}

void row_labels(const ItemRect& grid, const AxisLabels& labels, const Theme& theme) {
  const float cell = grid.height() / float(std::max(1, labels.count));
  const int step = label_step(cell, em(1.25f));
  int strong_row = -1;
  for (int row = 0; row < labels.count; ++row)
    if (labels.strong && labels.strong(row)) strong_row = row;
  for (int row = 0; row < labels.count; ++row) {
    const bool strong = row == strong_row;
    const bool crowded = strong_row >= 0 && !strong && std::abs(row - strong_row) * cell < em(1.25f);
    if (!strong && (row % step != 0 || crowded)) continue;
    draw_text({grid.x0 - em(0.6f), grid.y0 + cell * (float(row) + 0.5f)}, Face::kMono,
              ink(strong ? theme.text : theme.muted), labels.text(row), Align::kRight, kSmall);
  }
}

void column_labels(const ItemRect& grid, const AxisLabels& labels, const Theme& theme) {
  const float cell = grid.width() / float(std::max(1, labels.count));
  float widest = 0;
  int strong_column = -1;
  for (int col = 0; col < labels.count; ++col) {
    widest = std::max(widest, text_width(Face::kMono, labels.text(col), kSmall));
    if (labels.strong && labels.strong(col)) strong_column = col;
  }
  const float need = widest + em(0.7f);
  const int step = label_step(cell, need);
  for (int col = 0; col < labels.count; ++col) {
    const bool strong = col == strong_column;
    const bool crowded = strong_column >= 0 && !strong && std::abs(col - strong_column) * cell < need;
    if (!strong && (col % step != 0 || crowded)) continue;
    draw_text({grid.x0 + cell * (float(col) + 0.5f), grid.y1 + em(0.95f)}, Face::kMono,
              ink(strong ? theme.text : theme.muted), labels.text(col), Align::kCentre, kSmall);
  }
}

double nice_ceiling(double value) {
  if (!(value > 0) || !std::isfinite(value)) return 1;
  const double power = std::pow(10.0, std::floor(std::log10(value)));
  for (const double step : {1.0, 2.0, 2.5, 5.0, 10.0})
    if (value <= step * power * (1 + 1e-9)) return step * power;
  return 10 * power;
}

}  // namespace switchyard
