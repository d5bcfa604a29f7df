// The Adaptation dock: routers that adapt while the model runs. Method and numbers, start, freeze and revert, curves and
// the log. GUI thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <QWidget>

#include "engine/runtime/live_adaptor.h"

class QCheckBox;
class QComboBox;
class QDoubleSpinBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QPushButton;

namespace switchyard {

class AdaptationPlot;
class RunModel;

class AdaptationPanel : public QWidget {
  Q_OBJECT
 public:
  // run_action: "adapt.start", "adapt.freeze", "adapt.revert", from the action table.
  AdaptationPanel(RunModel& model, std::function<void(const QString&)> run_action, QWidget* parent = nullptr);

  // What Start would send; the fields show it.
  const AdaptationPlan& plan() const { return plan_; }
  void set_plan(const AdaptationPlan& plan);
  // Why an adaptation by the shown method cannot start now; empty: it can.
  QString why_not() const;
  const AdaptationPlot& plot() const { return *plot_; }

 private:
  void refresh();
  void build_fields();
  void add_number(const char* name, const QString& title, const QString& tip, double min, double max, int decimals, double step,
                  std::function<double()> get, std::function<void(double)> set);
  void add_switch(const char* name, const QString& title, const QString& tip, bool* value);

  RunModel& model_;
  AdaptationPlan plan_;
  QComboBox* method_;
  QFormLayout* rows_;
  QLineEdit* layers_ = nullptr;
  QLabel *status_, *message_;
  QPushButton *start_, *freeze_, *revert_;
  AdaptationPlot* plot_;
};

}  // namespace switchyard
