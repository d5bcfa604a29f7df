// The run beside a recipe that is only looked at: both decisions on the shown token, where the selection moves
// (layer x expert), Jaccard of each layer, and the distance token by token. Analysis A6; engine/analysis/shadow.h.
// GUI thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/analysis/shadow.h"
#include "views/plot/heat_grid.h"
#include "views/ui/canvas.h"
#include "views/ui/edits.h"
#include "views/view.h"

namespace switchyard {

class CompareView : public View {
 public:
  CompareView();
  std::string_view id() const override { return "compare"; }
  std::string_view title() const override { return "Compare"; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                     const TimeCursor& cursor) override;

 private:
  // An expert that runs on either side for the shown token.
  struct Pair {
    int expert = 0;
    bool base = false, other = false;
    float base_weight = 0, other_weight = 0;
  };

  const ShadowState* selected(const RunData& data) const;  // nullptr: no recipe
  void refresh(const ViewContext& context, const ShadowState& shadow, int row);
  void decide(const RunData& data, const TimeCursor& cursor, const ShadowState& shadow, int row);
  float draw_recipes(const ViewContext& context, const ItemRect& line);
  float draw_statistics(const ViewContext& context, const ShadowState& shadow, int row, float x0, float x1,
                        float y) const;
  void draw_layers(const ViewContext& context, const ShadowState& shadow, const ItemRect& area);
  void draw_pairs(const ViewContext& context, const ShadowState& shadow, int row, const ItemRect& area) const;
  void draw_strip(const ViewContext& context, const ShadowState& shadow, const ItemRect& area);
  void answer_grid(const ViewContext& context);
  void answer_key(const ViewContext& context, const KeyPress& press);

  std::vector<ViewSetting> settings_;
  size_t recipe_ = 0;
  std::string key_;
  int rows_ = 0, experts_ = 0;
  std::vector<double> moved_;  // [rows, experts] runs in the recipe minus runs, per token; NaN: no such expert
  double scale_ = 1;
  HeatGrid grid_;
  std::unique_ptr<ShadowRouter> router_;
  const ModelPlan* router_plan_ = nullptr;
  size_t router_tensors_ = 0;  // of router_
  std::vector<Pair> pairs_;
  GateDifference shown_;  // of the shown token in the selected row
  std::string missing_;   // why there are no pairs
};

}  // namespace switchyard
