// What a view drew in the last repaint: ids, labels, values and places. Feeds tooltips, hit tests, the
// accessible description and tests that need no GL. GUI thread only.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct ItemRect {  // logical pixels of the widget
  float x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  float width() const { return x1 - x0; }
  float height() const { return y1 - y0; }
  bool contains(float x, float y) const { return x >= x0 && x < x1 && y >= y0 && y < y1; }
};

struct Item {
  std::string id;      // "layer 3/expert 5", stable and unique in the view
  std::string label;   // for people: "layer 3, expert 5"
  double value = 0;
  std::string unit;    // "x uniform", "nat"
  ItemRect rect;
  std::string detail;  // further lines of the tooltip: formula, edits, native value
};

// A picture of many equal cells; its items are made when somebody asks, not once per repaint.
struct ItemGrid {
  int rows = 0, cols = 0;
  ItemRect rect;
  std::function<Item(int row, int col)> cell;  // made from what was drawn
};

class ItemMap {
 public:
  // still_there: whether what the grids were drawn from can still be read; a grid of a closed model has no cells.
  void begin(std::function<bool()> still_there = {});
  void add(Item item) { items_.push_back(std::move(item)); }
  void add_grid(ItemGrid grid) { grids_.push_back(std::move(grid)); }

  const std::vector<Item>& items() const { return items_; }  // without the cells of grids
  size_t size() const;                                       // with them
  void each(const std::function<void(const Item&)>& visit) const;
  std::optional<Item> find(std::string_view id) const;
  std::optional<Item> at(float x, float y) const;  // the last one drawn there; single items lie above grids

  // The item under the pointer or cell cursor, for the tooltip and the accessible description.
  void set_hovered(std::string id) { hovered_ = std::move(id); }
  const std::string& hovered() const { return hovered_; }

 private:
  std::vector<Item> items_;
  bool readable() const { return !still_there_ || still_there_(); }
  std::vector<ItemGrid> grids_;
  std::function<bool()> still_there_;
  std::string hovered_;
};

// "1.23 x uniform": the value as tooltips and screen readers give it.
std::string value_text(const Item& item);

}  // namespace switchyard
