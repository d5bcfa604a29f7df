// Entries, log file, bug report. GUI thread.
#include "app/gui/log.h"

#include <QRegularExpression>
#include <QSysInfo>
#include <QThread>

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/spdlog.h>

#include "app/session/journal.h"
#include "app/version.h"

namespace switchyard {
namespace {

constexpr size_t kKept = 1000;
constexpr size_t kLogBytes = size_t(10) << 20;

std::shared_ptr<spdlog::logger> file_logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    try {
      const auto file = state_folder() / "switchyard.log";
      return spdlog::rotating_logger_mt("window", file.string(), kLogBytes, 4);
    } catch (const spdlog::spdlog_ex&) {
      return std::shared_ptr<spdlog::logger>();  // no log file: the dock still shows everything
    }
  }();
  return logger;
}

}  // namespace

Log::Log(QObject* parent) : QObject(parent) {}

void Log::add(LogEntry::Level level, const QString& text) {
  entries_.push_back({level, QDateTime::currentDateTime(), text});
  if (entries_.size() > kKept) entries_.pop_front();
  if (const auto logger = file_logger()) {
    logger->log(level == LogEntry::kError     ? spdlog::level::err
                : level == LogEntry::kWarning ? spdlog::level::warn
                                              : spdlog::level::info,
                "{}", text.toStdString());
    logger->flush();
  }
  Q_EMIT added(entries_.back());
}

void Log::add(const Error& error) {
  add(LogEntry::kError, QString::fromStdString(error.message()));
  Q_EMIT failed(error);
}

QString Log::bug_report(bool with_paths) const {
  QString out = QString("%1\n  window     Qt %2, %3, %4, %5 cores\n\n")
                    .arg(QString::fromStdString(version_text()), qVersion(), QSysInfo::prettyProductName(), QSysInfo::currentCpuArchitecture())
                    .arg(QThread::idealThreadCount());
  static const char* const levels[] = {"note", "warning", "error"};
  for (const LogEntry& entry : entries_)
    out += QString("%1 %2: %3\n").arg(entry.when.toString(Qt::ISODate), levels[entry.level], entry.text);
  if (with_paths) return out;
  static const QRegularExpression path("(?<![\\w])/(?:[^\\s/:\"]+/)*([^\\s/:\"]+)");
  return out.replace(path, "…/\\1");
}

}  // namespace switchyard
