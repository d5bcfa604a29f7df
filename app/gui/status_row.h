// The line at the bottom: state, speed, epoch, token, drops, capture cost, memory, running tasks. GUI thread.
#pragma once

#include <QTimer>
#include <QWidget>

class QLabel;
class QToolButton;

namespace switchyard {

class Jobs;
class RunModel;

class StatusRow : public QWidget {
  Q_OBJECT
 public:
  StatusRow(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);
  void refresh();
  QString text() const;  // the whole line, for tests and screen readers

 protected:
  void paintEvent(QPaintEvent*) override;

 private:
  void refresh_tasks();
  void show_tasks();

  struct Part {
    QString label, value;
    bool alarm = false;
  };
  std::vector<Part> left() const;
  std::vector<Part> right() const;

  RunModel& model_;
  Jobs& jobs_;
  QToolButton* tasks_;
  QTimer tick_;
};

}  // namespace switchyard
