// What one sees before a model is open: what to do next, recent files, and progress with cancel while
// something opens. GUI thread.
#pragma once

#include <functional>

#include <QTimer>
#include <QWidget>

class QLabel;
class QProgressBar;
class QPushButton;
class QVBoxLayout;

namespace switchyard {

class Jobs;
class RunModel;

class StartPage : public QWidget {
  Q_OBJECT
 public:
  StartPage(RunModel& model, Jobs& jobs, std::function<void(const QString&)> run_action,
            std::function<void(const QString&)> open_path, QWidget* parent = nullptr);
  void set_recent(const QStringList& paths);
  void set_drop_hint(const QString& sentence);  // while something is dragged over; empty: none

 private:
  void refresh();

  RunModel& model_;
  Jobs& jobs_;
  std::function<void(const QString&)> open_path_;
  QWidget *choices_, *progress_;
  QLabel *step_, *title_, *drop_;
  QProgressBar* bar_;
  QPushButton* cancel_;
  QVBoxLayout* recent_;
  QTimer tick_;
};

}  // namespace switchyard
