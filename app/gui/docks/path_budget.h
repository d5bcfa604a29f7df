// Layer routers and their budget, under the path strip: a file of routers that choose the path of each prompt, and the
// knob from skipping all they can to repeating all. Every change is one edit; it holds from the next prefill on. GUI
// thread.
#pragma once

#include <QWidget>

class QLabel;
class QSlider;
class QToolButton;

namespace switchyard {

struct Error;
class Jobs;
class RunModel;

class PathBudget : public QWidget {
  Q_OBJECT
 public:
  PathBudget(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  void take_file(const QString& path);  // read by a job, then sent with the budget shown
  double budget() const;
  void set_budget(double budget);  // sends an edit where routers are in force

 Q_SIGNALS:
  void read(const Error* error);  // a file; null: it was good

 private:
  void refresh();
  void send();

  RunModel& model_;
  Jobs& jobs_;
  QToolButton *file_, *example_;
  QSlider* slider_;
  QLabel* number_;
};

}  // namespace switchyard
