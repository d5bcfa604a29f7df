// Labels of a grid's rows and columns, as many as fit. GUI thread, inside a frame.
#pragma once

#include <functional>
#include <string>

#include "views/host/item_map.h"
#include "views/ui/theme.h"

namespace switchyard {

// Every step-th label so that none touch: 1, 2, 4, 5, 8, 10, 16, ... ; space: pixels per cell, need: pixels per label.
int label_step(float space, float need);

struct AxisLabels {
  int count = 0;
  std::function<std::string(int)> text;  // of one row or column
  std::function<bool(int)> strong;       // drawn in the text colour, always shown; may be empty
};
// To the left of the grid, right-aligned.
void row_labels(const ItemRect& grid, const AxisLabels& labels, const Theme& theme);
// Below the grid, centred.
void column_labels(const ItemRect& grid, const AxisLabels& labels, const Theme& theme);

// The smallest of 1, 2, 2.5, 5 x 10^n that is not below `value`; 1 for nothing.
double nice_ceiling(double value);

}  // namespace switchyard
