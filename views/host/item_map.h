// What a view drew in the last repaint: ids, labels, values and places. Feeds tooltips, hit tests, the
// accessible description and tests that need no GL. GUI thread only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct ItemRect { float x0 = 0, y0 = 0, x1 = 0, y1 = 0; };  // logical pixels of the widget

struct Item {
  std::string id;      // "layer 3/expert 5", stable and unique in the view
  std::string label;   // for people: "layer 3, expert 5"
  double value = 0;
  std::string unit;    // "x uniform", "nat"
  ItemRect rect;
};

class ItemMap {
 public:
  void begin() { items_.clear(); }
  void add(Item item) { items_.push_back(std::move(item)); }
  const std::vector<Item>& items() const { return items_; }
  const Item* find(std::string_view id) const;
  const Item* at(float x, float y) const;  // the last one drawn there
  // The item under the pointer or cell cursor, for the tooltip and the accessible description.
  void set_hovered(std::string id) { hovered_ = std::move(id); }
  const std::string& hovered() const { return hovered_; }

 private:
  std::vector<Item> items_;
  std::string hovered_;
};

}  // namespace switchyard
