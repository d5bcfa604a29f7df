// Which GPU holds which expert: layers down, experts across, coloured by GPU, beside where contiguous placement has them.
// A cell with copies on several GPUs has a strip for each. GUI thread.
#pragma once

#include <optional>

#include <QWidget>

#include "engine/report/chart.h"
#include "engine/studies/placement_document.h"

namespace switchyard {

class PlacementPicture : public QWidget {
  Q_OBJECT
 public:
  explicit PlacementPicture(QWidget* parent = nullptr);

  // before, after: titles of the two matrices.
  void show_placement(PlacedExperts placed, const QString& before, const QString& after);

  QSize minimumSizeHint() const override;
  QSize sizeHint() const override;
  ChartSpec chart() const;  // of the placement, as a report draws it
  QString value_at(const QPoint& at) const;  // the sentence of the tooltip; empty: nothing there

 protected:
  void paintEvent(QPaintEvent*) override;
  bool event(QEvent* event) override;

 private:
  std::vector<int> gpus_of(bool before, int row, int expert) const;
  std::vector<QRectF> matrices() const;  // of the cells: before (where there is one), after
  bool roomy(double lines) const;        // whether the widget is so high
  int legend_rows() const;
  QColor gpu_color(int gpu) const;
  void paint_matrix(QPainter& p, const QRectF& area, bool before) const;
  void paint_legend(QPainter& p) const;
  double legend_step() const;

  std::optional<PlacedExperts> placed_;
  QString before_, after_;
};

}  // namespace switchyard
