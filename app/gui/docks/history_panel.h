// The Edit history dock: every edit with the token it took effect at; undo, redo, jump back, copy. GUI thread.
#pragma once

#include <functional>

#include <QWidget>

class QTreeView;
class QLabel;

namespace switchyard {

class HistoryModel;
class RunModel;

class HistoryPanel : public QWidget {
  Q_OBJECT
 public:
  // run_action: "edit.undo", "edit.save_script", … from the action table.
  HistoryPanel(RunModel& model, std::function<void(const QString&)> run_action, QWidget* parent = nullptr);
  QTreeView* view() const { return view_; }
  HistoryModel* rows() const { return rows_; }

 private:
  void show_menu(const QPoint& position);

  RunModel& model_;
  std::function<void(const QString&)> run_action_;
  HistoryModel* rows_;
  QTreeView* view_;
  QLabel* hint_;
};

}  // namespace switchyard
