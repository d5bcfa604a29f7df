// The Router gradients dock: which idle experts the loss of the text would like, layer by layer. GUI thread; the work is
// a job.
#pragma once

#include <memory>

#include <QWidget>

#include "app/gui/docks/text_probe.h"
#include "app/session/gradient_lens.h"

class QLabel;
class QPushButton;

namespace switchyard {

// Two bars per expert: the dense and the sparse gradient, summed over the text.
class GradientPlot : public QWidget {
  Q_OBJECT
 public:
  explicit GradientPlot(QWidget* parent = nullptr);
  void show_row(std::shared_ptr<const GradientLens> lens, int row);
  QSize minimumSizeHint() const override;

 protected:
  void paintEvent(QPaintEvent*) override;
  bool event(QEvent* event) override;  // tooltip of an expert

 private:
  QRectF area() const;
  std::shared_ptr<const GradientLens> lens_;
  int row_ = 0;
};

class GradientPanel : public QWidget {
  Q_OBJECT
 public:
  GradientPanel(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  void compute();
  QString why_not() const;  // empty: it can be computed now
  std::shared_ptr<const GradientLens> lens() const { return probe_.reading(); }
  TableData table() const;  // of the selected layer

 Q_SIGNALS:
  void lens_changed();

 private:
  void refresh();

  RunModel& model_;
  TextProbe<GradientLens> probe_;
  QPushButton* compute_;
  QLabel *summary_, *message_;
  GradientPlot* plot_;
};

}  // namespace switchyard
