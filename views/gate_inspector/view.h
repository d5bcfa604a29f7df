// One token in one layer: logits, edited logits, probabilities, selection and weights as aligned columns,
// the native decision as outlines behind the edited one; below, the edits of the layer. GUI thread only.
#pragma once

#include <string>
#include <vector>

#include "views/gate_inspector/values.h"
#include "views/ui/controls.h"
#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {

class GateInspector : public View {
 public:
  GateInspector();
  std::string_view id() const override { return "gate_inspector"; }
  std::string_view title() const override { return "Gate inspector"; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                     const TimeCursor& cursor) override;

 private:
  struct Columns;
  void refresh(const ViewContext& context, int row);
  void draw_header(const ViewContext& context, const Columns& columns, float y) const;
  void draw_rows(const ViewContext& context, int row, const Columns& columns);
  void draw_row(const ViewContext& context, int row, const Columns& columns, const GateRow& gate, float y);
  void draw_edited_logit(const ViewContext& context, const Columns& columns, const GateRow& gate, float y) const;
  void draw_probability(const ViewContext& context, const Columns& columns, const GateRow& gate, float y) const;
  void answer_row(const ViewContext& context, int row, const GateRow& gate, const ItemRect& line);
  float draw_summary(const ViewContext& context, float x0, float x1, float y) const;
  void draw_controls(const ViewContext& context, int row, float x0, float x1, float y);
  void draw_buttons(const ViewContext& context, int row, int expert, float x0, float x1, float y);
  void answer_key(const ViewContext& context, const KeyPress& press, int row);
  int edited_expert(const ViewContext& context) const;  // the selected one, else the first of the list

  std::vector<ViewSetting> settings_;
  GateTable table_;
  std::vector<int> order_;
  std::string key_;
  SliderState k_, temperature_, bias_, output_;
  int menu_expert_ = 0, scroll_to_ = -1;
};

}  // namespace switchyard
