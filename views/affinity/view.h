// Expert x expert between two neighbouring MoE layers: how often the choice of one token in a layer goes
// with its choice in the next. Analysis A10. GUI thread only.
#pragma once

#include "views/plot/heat_grid.h"
#include "views/ui/controls.h"
#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {

class AffinityView : public View {
 public:
  AffinityView();
  std::string_view id() const override { return "affinity"; }
  std::string_view title() const override { return "Affinity"; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                     const TimeCursor& cursor) override;

 private:
  bool conditional_shown() const { return settings_[1].value == 1; }
  // The first of the two rows: the selected one, or the last that has a successor.
  static int from_row(const RunData& data, const Selection& selection);
  std::span<const uint64_t> counts(const RunData& data, int row) const;
  void refresh(const ViewContext& context, int row);
  void draw_matrix(const ViewContext& context, int row, const ItemRect& grid, bool labels);
  void draw_facts(const ViewContext& context, int row, const ItemRect& column);
  void answer_input(const ViewContext& context, int row);
  void answer_key(const ViewContext& context, const KeyPress& press, int row);
  void select_pair(const ViewContext& context, int row, int from, int to) const;

  std::vector<ViewSetting> settings_;
  HeatGrid grid_;
  std::vector<double> probabilities_;  // [E, E]
  AffinityStats stats_;
  std::vector<ExpertPair> strongest_;
  double scale_ = 1;
  uint64_t total_ = 0;
  std::string key_;
  SliderState layer_slider_;
};

}  // namespace switchyard
