// A heat map as a texture: one texel per cell, nearest filter, uploaded once per new picture, with thin
// gaps between cells where they are large enough. GUI thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "views/host/item_map.h"
#include "views/ui/theme.h"

namespace switchyard {

class HeatGrid {
 public:
  // colors: [rows, cols], row-major. Call when the numbers change, not once per repaint.
  void set(int rows, int cols, std::span<const Rgb> colors);
  // gap: the colour between cells, usually the ground.
  void draw(const ItemRect& rect, Rgb gap);

  int rows() const { return rows_; }
  int cols() const { return cols_; }
  const ItemRect& rect() const { return rect_; }
  ItemRect cell(int row, int col) const;                           // without the gap
  std::optional<std::pair<int, int>> hit(float x, float y) const;  // row, column

 private:
  float gap_width() const;
  std::vector<uint32_t> pixels_;
  int rows_ = 0, cols_ = 0;
  uint64_t version_ = 0;
  ItemRect rect_;
};

}  // namespace switchyard
