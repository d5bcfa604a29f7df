// The histogram of active experts per token in the selected layer, over the last tokens. GUI thread.
#pragma once

#include <QWidget>

#include "app/session/active_experts.h"

namespace switchyard {

class ActiveExpertsPlot : public QWidget {
  Q_OBJECT
 public:
  explicit ActiveExpertsPlot(QWidget* parent = nullptr);

  // native: the experts that the model's own router takes; marked on the axis.
  void show_counts(const ActiveExperts& counts, int native, bool all_native);
  const ActiveExperts& counts() const { return counts_; }
  QSize sizeHint() const override;
  QSize minimumSizeHint() const override;

 protected:
  void paintEvent(QPaintEvent*) override;
  bool event(QEvent* event) override;  // tooltip of a bar

 private:
  int columns() const;
  QRectF plot() const;
  QString sentence(int experts) const;

  ActiveExperts counts_;
  int native_ = 0;
  bool all_native_ = true;
};

}  // namespace switchyard
