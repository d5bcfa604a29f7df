// Tokens x layers, the time axis under all views: entropy, margin or first expert of every decision, the
// end of the prompt, edits, and the live end. Analysis A2. GUI thread only.
#pragma once

#include "views/plot/heat_grid.h"
#include "views/token_strip/window.h"
#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {

class TokenStrip : public View {
 public:
  enum Tint { kEntropy, kMargin, kExpert };

  TokenStrip();
  std::string_view id() const override { return "token_strip"; }
  std::string_view title() const override { return "Tokens"; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor& cursor) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                     const TimeCursor& cursor) override;

 private:
  Tint tint() const { return Tint(settings_[0].value); }
  // Of one cell; NaN: no frame in memory.
  double value(const RunData& data, uint64_t token, int row) const;
  void refresh(const ViewContext& context, float width);
  void draw_cells(const ViewContext& context, const ItemRect& strip);
  void draw_prompt_end(const ViewContext& context, const ItemRect& strip) const;
  void draw_edits(const ViewContext& context, const ItemRect& strip) const;
  void draw_side(const ViewContext& context, const ItemRect& side) const;
  void register_items(const ViewContext& context, const ItemRect& strip) const;
  void answer_mouse(const ViewContext& context, const ItemRect& strip);
  void answer_keys(const ViewContext& context);
  void answer_key(const ViewContext& context, const KeyPress& press);
  void select_row(const ViewContext& context, int row) const;
  void go_to(const ViewContext& context, const TimeCursor& cursor);
  float x_of(double token, const ItemRect& strip) const;

  std::vector<ViewSetting> settings_;
  TokenWindow window_;
  HeatGrid grid_;
  std::vector<int> rows_;  // of frames, in the order of the grid
  double scale_ = 1;
  uint64_t first_drawn_ = 0, end_drawn_ = 0;  // tokens in the texture
  uint64_t per_column_ = 1;                   // tokens of one texel; more than 1 where they are narrower than a pixel
  std::string key_;
  TimeCursor last_cursor_;
};

}  // namespace switchyard
