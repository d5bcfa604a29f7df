// Lines of the log and what may be copied. GUI thread.
#include "app/gui/docks/log_panel.h"

#include <QCheckBox>
#include <QClipboard>
#include <QGuiApplication>
#include <QHBoxLayout>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QVBoxLayout>

#include "app/gui/style.h"

namespace switchyard {

LogPanel::LogPanel(Log& log, QWidget* parent) : QWidget(parent) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  text_ = new QPlainTextEdit;
  text_->setReadOnly(true);
  text_->setFont(number_font());
  text_->setMaximumBlockCount(1000);
  text_->setAccessibleName(tr("Log"));
  text_->setPlaceholderText(tr("Nothing has happened that needs telling."));
  column->addWidget(text_, 1);
  auto* row = new QHBoxLayout;
  auto* paths = new QCheckBox(tr("with file paths"));
  auto* copy = new QPushButton(tr("Copy for bug report"));
  connect(copy, &QPushButton::clicked, this,
          [&log, paths] { QGuiApplication::clipboard()->setText(log.bug_report(paths->isChecked())); });
  row->addStretch();
  row->addWidget(paths);
  row->addWidget(copy);
  column->addLayout(row);
  for (const LogEntry& entry : log.entries()) append(entry);
  connect(&log, &Log::added, this, &LogPanel::append);
}

void LogPanel::append(const LogEntry& entry) {
  static const char* const levels[] = {"note   ", "warning", "error  "};
  text_->appendPlainText(entry.when.toString("hh:mm:ss  ") + levels[entry.level] + "  " + entry.text);
}

}  // namespace switchyard
