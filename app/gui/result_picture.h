// A picture of one table of an analysis or a study: keys against keys as a heat map, a quantity over the last key as
// lines, one for each variant that is compared, an effect against its corrected p as a volcano, or pairs of experts in
// neighbouring layers as a flow. The numbers are the table's. GUI thread.
#pragma once

#include <optional>

#include <QWidget>

#include "app/gui/flow_plot.h"
#include "app/gui/volcano_plot.h"
#include "engine/report/chart.h"

class QPainter;

namespace switchyard {

class ResultPicture : public QWidget {
  Q_OBJECT
 public:
  explicit ResultPicture(QWidget* parent = nullptr);

  // What can be drawn: of a test of many experts "effect against q" first, of pairs of experts the flow, then columns, in
  // the table's order.
  static QStringList quantities(const ResultTable& table);
  // sides: names of the two sides that a test compares.
  void show_table(const ResultTable& table, const QString& quantity, const QStringList& sides = {});

  QSize minimumSizeHint() const override;
  QSize sizeHint() const override;
  bool is_heat_map() const { return heat_map_; }
  bool is_volcano() const { return !volcano_.empty(); }
  bool is_flow() const { return !flow_.empty(); }
  const ChartSpec& chart() const { return chart_; }  // what is painted, as a report draws it
  QStringList series() const;                // names of the lines; a single line has none
  QString value_at(const QPoint& at) const;  // the sentence of the tooltip; empty: nothing there
  // Of a volcano: marks the point of a row of the table, and where it is.
  void mark_row(std::optional<size_t> row);
  std::optional<QPointF> place_of(size_t row) const { return volcano_.place_of(row, plot()); }

 Q_SIGNALS:
  void row_clicked(size_t row);  // the point of a volcano; its row of the table

 protected:
  void paintEvent(QPaintEvent*) override;
  void mousePressEvent(QMouseEvent* event) override;
  bool event(QEvent* event) override;

 private:
  void clear();
  void find_range();
  void find_places();  // of columns, along the axis of lines

  QRectF plot() const;
  bool is_low() const;  // too low for titles
  int legend_rows() const;
  QString legend() const;  // in words: a mark and a name a line
  QString words(size_t row, size_t column) const;
  double x_of(size_t column, const QRectF& area) const { return area.x() + places_[column] * area.width(); }
  void paint_heat_map(QPainter& p, const QRectF& area) const;
  void paint_titles(QPainter& p) const;
  void paint_axes(QPainter& p, const QRectF& area) const;
  void paint_line(QPainter& p, const QRectF& area, size_t row) const;
  void paint_legend(QPainter& p) const;
  std::vector<QPointF> legend_places() const;  // left top of each entry

  bool named_ = false, heat_map_ = false;
  QString quantity_, row_title_, column_title_;
  std::vector<QString> row_names_, column_names_;
  std::vector<double> places_;                 // of columns, 0..1
  std::vector<std::optional<double>> values_;  // [rows, columns]
  std::vector<uint8_t> pruned_;                // likewise; empty: the table tells of none
  double low_ = 0, high_ = 0;
  ChartSpec chart_;
  VolcanoPlot volcano_;
  FlowPlot flow_;
};

}  // namespace switchyard
