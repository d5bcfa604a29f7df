// The Log dock: every message of this run. GUI thread.
#pragma once

#include <QWidget>

#include "app/gui/log.h"

class QPlainTextEdit;

namespace switchyard {

class LogPanel : public QWidget {
  Q_OBJECT
 public:
  explicit LogPanel(Log& log, QWidget* parent = nullptr);

 private:
  void append(const LogEntry& entry);
  QPlainTextEdit* text_;
};

}  // namespace switchyard
