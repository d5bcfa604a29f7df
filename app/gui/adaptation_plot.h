// Four small curves of an adaptation, a point per step: loss, length of the biases, decisions rerouted, distance of the
// paths. GUI thread.
#pragma once

#include <memory>

#include <QWidget>

#include "engine/runtime/session.h"

namespace switchyard {

class AdaptationPlot : public QWidget {
  Q_OBJECT
 public:
  explicit AdaptationPlot(QWidget* parent = nullptr);

  void show_state(std::shared_ptr<const AdaptationState> state);  // null: nothing
  // What is drawn in each of the four: a list of curves, each a point per step.
  struct Curve {
    std::vector<double> values;
    bool second = false;  // drawn faint
  };
  struct Chart {
    QString title, unit;
    int decimals = 3;
    std::vector<Curve> curves;
  };
  const std::vector<Chart>& charts() const { return charts_; }
  QSize sizeHint() const override;
  QSize minimumSizeHint() const override;

 protected:
  void paintEvent(QPaintEvent*) override;
  bool event(QEvent* event) override;  // tooltip: the numbers of a step

 private:
  QString sentence_at(const QPoint& at) const;
  QRectF cell(size_t chart) const;
  QRectF area(size_t chart) const;
  void paint_chart(class QPainter& painter, size_t chart) const;

  std::shared_ptr<const AdaptationState> state_;
  std::vector<Chart> charts_;
};

}  // namespace switchyard
