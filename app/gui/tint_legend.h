// The colour scale under a tinted text, with its ends in words. GUI thread.
#pragma once

#include <functional>

#include <QColor>
#include <QString>
#include <QWidget>

namespace switchyard {

class TintLegend : public QWidget {
  Q_OBJECT
 public:
  struct Scale {
    QString left, right;  // what no tint means, and the strongest
    QColor strongest;     // invalid: no scale, only words
  };
  // scale: asked at every painting.
  explicit TintLegend(std::function<Scale()> scale, QWidget* parent = nullptr);
  QSize sizeHint() const override;

 protected:
  void paintEvent(QPaintEvent*) override;

 private:
  std::function<Scale()> scale_;
};

}  // namespace switchyard
