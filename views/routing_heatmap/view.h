// Layer x expert, live: running load, the weights of the shown token, or what the last edit changed.
// Analyses A1; one texel per cell. GUI thread only.
#pragma once

#include "views/plot/heat_grid.h"
#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {

class RoutingHeatmap : public View {
 public:
  enum Quantity { kLoadAll, kLoadWindow, kWeights, kEditChange };

  RoutingHeatmap();
  std::string_view id() const override { return "routing_heatmap"; }
  std::string_view title() const override { return "Routing"; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                     const TimeCursor& cursor) override;

 private:
  struct Layout;
  Quantity quantity() const { return Quantity(settings_[0].value); }
  void refresh(const ViewContext& context);
  void draw_axes(const ViewContext& context, const ItemRect& grid) const;
  void draw_legend(const ViewContext& context, const ItemRect& bar) const;
  void draw_marks(const ViewContext& context) const;
  void register_items(const ViewContext& context) const;
  void answer_input(const ViewContext& context);
  void answer_key(const ViewContext& context, const KeyPress& press);
  int column_of(int expert) const;

  std::vector<ViewSetting> settings_;
  HeatGrid grid_;
  std::vector<double> values_;  // [rows, E] in expert order; NaN: no such expert or no value
  std::vector<int> order_;      // column -> expert
  int rows_ = 0, experts_ = 0;
  double scale_ = 1;  // value at the end of the colour map
  std::string key_;   // what the texture was made from
  int menu_layer_ = 0, menu_expert_ = 0;
};

}  // namespace switchyard
