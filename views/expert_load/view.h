// Load of the experts of the selected layer as bars against the uniform line, and how uneven it is.
// Analysis A1. GUI thread only.
#pragma once

#include "views/ui/edits.h"
#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {

class ExpertLoad : public View {
 public:
  ExpertLoad();
  std::string_view id() const override { return "expert_load"; }
  std::string_view title() const override { return "Expert load"; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                     const TimeCursor& cursor) override;

 private:
  // The counts shown; nullptr: not there.
  const Load* load(const RunData& data) const { return settings_[0].value == 0 ? data.load_all : data.load_window; }
  float draw_statistics(const ViewContext& context, const LoadStats& stats, int experts, float x0, float x1,
                        float y) const;
  void draw_bars(const ViewContext& context, int row, std::span<const uint64_t> counts, const LoadStats& stats,
                 const ItemRect& plot);
  void draw_bar(const ViewContext& context, const RowRecipes& recipes, const ItemRect& slot, float top, int expert,
                bool chosen) const;
  void answer_input(const ViewContext& context, int row, const ItemRect& plot);
  void answer_key(const ViewContext& context, const KeyPress& press, int row);

  std::vector<ViewSetting> settings_;
  std::vector<int> order_;  // column -> expert
  int menu_expert_ = 0;
};

}  // namespace switchyard
