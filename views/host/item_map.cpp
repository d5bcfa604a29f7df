#include "views/host/item_map.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

namespace switchyard {

void ItemMap::begin(std::function<bool()> still_there) {
  still_there_ = std::move(still_there);
  items_.clear();
  grids_.clear();
  hovered_.clear();
}

size_t ItemMap::size() const {
  size_t count = items_.size();
  if (!readable()) return count;
  for (const ItemGrid& grid : grids_) count += size_t(grid.rows) * grid.cols;
  return count;
}

void ItemMap::each(const std::function<void(const Item&)>& visit) const {
  for (size_t i = 0; readable() && i < grids_.size(); ++i)
    for (int row = 0; row < grids_[i].rows; ++row)
      for (int col = 0; col < grids_[i].cols; ++col) visit(grids_[i].cell(row, col));
  for (const Item& item : items_) visit(item);
}

std::optional<Item> ItemMap::find(std::string_view id) const {
  for (const Item& item : items_)
    if (item.id == id) return item;
  if (!readable()) return std::nullopt;
  for (const ItemGrid& grid : grids_)
    for (int row = 0; row < grid.rows; ++row)
      for (int col = 0; col < grid.cols; ++col)
        if (Item item = grid.cell(row, col); item.id == id) return item;
  return std::nullopt;
}

std::optional<Item> ItemMap::at(float x, float y) const {
  for (auto it = items_.rbegin(); it != items_.rend(); ++it)
    if (it->rect.contains(x, y)) return *it;
  if (!readable()) return std::nullopt;
  for (auto it = grids_.rbegin(); it != grids_.rend(); ++it) {
    if (!it->rect.contains(x, y) || it->rows <= 0 || it->cols <= 0) continue;
    const int row = int((y - it->rect.y0) / it->rect.height() * float(it->rows));
    const int col = int((x - it->rect.x0) / it->rect.width() * float(it->cols));
    return it->cell(std::min(row, it->rows - 1), std::min(col, it->cols - 1));
  }
  return std::nullopt;
}

std::string value_text(const Item& item) {
  if (std::isnan(item.value)) return "no value";
  const std::string number = item.value == std::round(item.value) && std::abs(item.value) < 1e15
                                 ? fmt::format("{:.0f}", item.value)
                                 : fmt::format("{:.4g}", item.value);
  return item.unit.empty() ? number : number + " " + item.unit;
}

}  // namespace switchyard
