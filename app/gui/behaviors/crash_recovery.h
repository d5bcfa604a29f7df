// Keeps the journal of this run and, at start, offers what a run left behind that did not end by itself:
// its edits and the trace it was recording. GUI thread.
#pragma once

#include <vector>

#include <QDialog>
#include <QObject>

#include "app/session/journal.h"

class QCheckBox;

namespace switchyard {

class MainWindow;

// One page before anything else: restore, recover, discard.
class RecoveryDialog : public QDialog {
  Q_OBJECT
 public:
  RecoveryDialog(const JournalContents& left, QWidget* parent);
  bool restore_edits() const;
  bool recover_trace() const;

 private:
  QCheckBox *edits_ = nullptr, *trace_ = nullptr;
};

class CrashRecovery : public QObject {
  Q_OBJECT
 public:
  explicit CrashRecovery(MainWindow& window);
  ~CrashRecovery() override;  // the run ended by itself

  // Shows the page when something was left; not modal to the event loop. Returns whether it was shown.
  bool offer();
  RecoveryDialog* dialog() const { return dialog_; }

 private:
  void restore(const JournalContents& left);
  void recover(const JournalContents& left);

  MainWindow& window_;
  Journal journal_;
  std::vector<std::filesystem::path> orphans_;
  RecoveryDialog* dialog_ = nullptr;
};

}  // namespace switchyard
