// What the program has told the user, newest last: feeds the log dock, the toasts and the rotating log file
// in the state folder. One entry per event: an error is told exactly once. GUI thread.
#pragma once

#include <deque>

#include <QDateTime>
#include <QObject>
#include <QString>

#include "engine/base/result.h"

namespace switchyard {

struct LogEntry {
  enum Level { kNote, kWarning, kError } level = kNote;
  QDateTime when;
  QString text;
};

class Log : public QObject {
  Q_OBJECT
 public:
  explicit Log(QObject* parent = nullptr);
  void add(LogEntry::Level level, const QString& text);
  void add(const Error& error);
  const std::deque<LogEntry>& entries() const { return entries_; }
  // Versions, machine and the last entries; file paths are replaced unless asked for.
  QString bug_report(bool with_paths = false) const;

 Q_SIGNALS:
  void added(const LogEntry& entry);
  void failed(const switchyard::Error& error);  // after added()

 private:
  std::deque<LogEntry> entries_;
};

}  // namespace switchyard
