// The Branches dock: the tree that rewinds make, with what goes on with one of them. GUI thread.
#pragma once

#include <functional>

#include <QWidget>

#include "engine/runtime/session.h"

class QLabel;
class QPushButton;
class QTreeWidget;

namespace switchyard {

class RunModel;

class BranchPanel : public QWidget {
  Q_OBJECT
 public:
  enum Column { kName, kFrom, kTokens, kEpoch, kColumns };
  // run_action: "run.rewind", from the action table.
  BranchPanel(RunModel& model, std::function<void(const QString&)> run_action, QWidget* parent = nullptr);
  QTreeWidget* tree() const { return tree_; }

 private:
  void refresh();
  void go_on();  // with the branch that is chosen in the tree

  RunModel& model_;
  SharedList<Branch> shown_;
  uint32_t running_ = 0;
  QTreeWidget* tree_;
  QLabel* hint_;
  QPushButton *go_on_, *rewind_;
};

}  // namespace switchyard
