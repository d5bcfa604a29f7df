// A picture of one table of an analysis: layer × index as a heat map, or a quantity over layers (or over any first
// column) as a line. The numbers are the table's. GUI thread.
#pragma once

#include <optional>

#include <QWidget>

#include "engine/analysis/result_table.h"

namespace switchyard {

class ResultPicture : public QWidget {
  Q_OBJECT
 public:
  explicit ResultPicture(QWidget* parent = nullptr);

  // Columns that can be drawn, in the table's order.
  static QStringList quantities(const ResultTable& table);
  void show_table(const ResultTable& table, const QString& quantity);

  QSize minimumSizeHint() const override;
  QSize sizeHint() const override;
  bool is_heat_map() const { return columns_ > 0; }
  QString value_at(const QPoint& at) const;  // the sentence of the tooltip; empty: nothing there

 protected:
  void paintEvent(QPaintEvent*) override;
  bool event(QEvent* event) override;

 private:
  QRectF plot() const;
  QString words(size_t cell) const;

  bool named_ = false;  // a table was shown
  QString quantity_, row_title_, column_title_;
  std::vector<QString> row_names_, column_names_;
  size_t columns_ = 0;                                // 0: a line
  std::vector<std::optional<double>> values_;         // [rows, columns], or [points]
  double low_ = 0, high_ = 0;
};

}  // namespace switchyard
