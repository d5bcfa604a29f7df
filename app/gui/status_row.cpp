// Words in the text face, numbers in the tabular one. GUI thread.
#include "app/gui/status_row.h"

#include <unistd.h>

#include <cmath>
#include <fstream>

#include <QHBoxLayout>
#include <QLocale>
#include <QMenu>
#include <QPainter>
#include <QToolButton>

#include "app/gui/dock.h"
#include "app/gui/style.h"
#include "app/session/jobs.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

QString bytes_text(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
  return QLocale::c().toString(bytes, 'f', bytes < 10 && unit > 2 ? 1 : 0) + " " + units[unit];
}

double resident_bytes() {
  std::ifstream in("/proc/self/statm");
  double total = 0, resident = 0;
  in >> total >> resident;
  return resident * double(::sysconf(_SC_PAGESIZE));
}

double physical_bytes() {
  return double(::sysconf(_SC_PHYS_PAGES)) * double(::sysconf(_SC_PAGESIZE));
}

QString state_text(const RunModel& model) {
  if (model.opening()) return QObject::tr("opening");
  if (model.is_empty()) return QObject::tr("no model");
  if (model.has_trace()) return QObject::tr("trace");
  if (!model.snapshot()) return {};
  switch (model.state()) {
    case RunState::kIdle:
      return QObject::tr("ready");
    case RunState::kPrefilling:
      return QObject::tr("reading the prompt");
    case RunState::kGenerating:
      return QObject::tr("generating");
    case RunState::kPaused:
      return QObject::tr("paused");
    case RunState::kFailed:
      return QObject::tr("failed");
    case RunState::kFinished:
      break;
  }
  switch (model.snapshot()->finish) {
    case Finish::kLength:
      return QObject::tr("finished: length reached");
    case Finish::kEos:
      return QObject::tr("finished: end of text");
    case Finish::kContextFull:
      return QObject::tr("finished: context full");
    case Finish::kStopped:
      return QObject::tr("stopped");
    case Finish::kNone:
      break;
  }
  return QObject::tr("finished");
}

}  // namespace

StatusRow::StatusRow(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), jobs_(jobs) {
  setObjectName("statusRow");
  setAttribute(Qt::WA_StyledBackground);
  setFixedHeight(QFontMetrics(word_font()).height() + 12);
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(10, 1, 8, 1);
  row->addStretch(1);
  tasks_ = flat_button({}, tr("Running tasks"), this);
  row->addWidget(tasks_);
  connect(tasks_, &QToolButton::clicked, this, &StatusRow::show_tasks);
  connect(&jobs_, &Jobs::changed, this, &StatusRow::refresh_tasks);
  connect(&tick_, &QTimer::timeout, this, [this] {
    refresh_tasks();
    update();
  });
  tick_.start(500);
  refresh_tasks();
}

std::vector<StatusRow::Part> StatusRow::left() const {
  std::vector<Part> parts{{state_text(model_), {}}};
  const SessionSnapshot* s = model_.snapshot();
  if (!s || model_.is_empty()) return parts;
  const QLocale c = QLocale::c();
  if (model_.has_session()) {
    const bool live = s->state == RunState::kGenerating;
    const double speed = live ? s->decode_tokens_per_s : s->mean_decode_tokens_per_s;
    if (speed > 0) parts.push_back({{}, c.toString(speed, 'f', speed < 100 ? 1 : 0) + tr(" tok/s")});
  }
  if (const TraceRun* trace = model_.trace(); trace && trace->sequences > 1)
    parts.push_back({tr("sequence"), QString("%1 of %2").arg(trace->sequence + 1).arg(trace->sequences)});
  parts.push_back({tr("epoch"), QString::number(s->epochs.empty() ? 0 : s->epochs.back().epoch)});
  if (s->branches.size() > 1)
    parts.push_back({tr("branch"), QString("%1 of %2").arg(s->branch).arg(s->branches.size())});
  const auto& data = model_.data();
  if (data.tokens() > 0)
    parts.push_back({tr("token"), QString("%1 of %2").arg(data.shown_index(model_.cursor())).arg(data.tokens()) +
                                      (model_.cursor() ? tr(" pinned") : tr(" live"))});
  parts.push_back({tr("dropped"), QString::number(s->dropped_frames), s->dropped_frames > 0});
  if (model_.has_session()) parts.push_back({tr("capture cost"), c.toString(s->capture_cost * 100, 'f', 1) + " %"});
  if (model_.recording()) parts.push_back({tr("recorded"), QString::number(model_.recorded_tokens())});
  return parts;
}

std::vector<StatusRow::Part> StatusRow::right() const {
  return {{tr("memory"), bytes_text(resident_bytes()) + tr(" of ") + bytes_text(physical_bytes())}};
}

QString StatusRow::text() const {
  QStringList words;
  for (const auto& parts : {left(), right()})
    for (const Part& part : parts) words << (part.label + " " + part.value).trimmed();
  return words.join(", ");
}

void StatusRow::refresh() {
  setAccessibleName(text());
  update();
}

void StatusRow::paintEvent(QPaintEvent*) {
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  const Theme& theme = current_theme();
  p.fillRect(rect(), color(theme.window));
  p.setPen(color(theme.line));
  p.drawLine(0, 0, width(), 0);
  const RunState state = model_.state();
  const Rgb dot = state == RunState::kGenerating || state == RunState::kPrefilling ? theme.ok
                  : state == RunState::kFailed                                     ? theme.error
                                                                                   : theme.faint;
  p.setPen(Qt::NoPen);
  p.setBrush(color(dot));
  p.drawEllipse(QPointF(16, height() / 2.0), 4, 4);

  const QFontMetrics words(word_font()), numbers(number_font());
  const auto width_of = [&](const Part& part) {
    return words.horizontalAdvance(part.label) +
           (part.value.isEmpty() ? 0 : numbers.horizontalAdvance(part.value) + (part.label.isEmpty() ? 0 : 6));
  };
  const auto draw = [&](const Part& part, int x) {
    p.setFont(word_font());
    p.setPen(color(part.alarm ? theme.error : theme.muted));
    p.drawText(QRect(x, 0, 1000, height()), Qt::AlignVCenter | Qt::AlignLeft, part.label);
    if (part.value.isEmpty()) return;
    const int at = x + (part.label.isEmpty() ? 0 : words.horizontalAdvance(part.label) + 6);
    p.setFont(number_font());
    p.setPen(color(part.alarm ? theme.error : theme.text));
    p.drawText(QRect(at, 0, 1000, height()), Qt::AlignVCenter | Qt::AlignLeft, part.value);
  };
  int end = tasks_->x() - 16;
  for (const Part& part : right()) {
    end -= width_of(part);
    if (end > 200) draw(part, end);
    end -= 24;
  }
  int x = 28;
  for (const Part& part : left()) {
    if (x + width_of(part) > end) break;
    draw(part, x);
    x += width_of(part) + 22;
  }
}

void StatusRow::refresh_tasks() {
  const auto running = jobs_.running();
  QString text = tr("no running tasks");
  if (!running.empty()) {
    const auto& job = running.back();
    text = job.title + (job.fraction >= 0 ? QString(" %1 %").arg(int(job.fraction * 100)) : QString("…"));
    if (running.size() > 1) text += tr(" and %1 more").arg(running.size() - 1);
  }
  tick_.setInterval(running.empty() ? 1000 : 100);
  if (tasks_->text() != text) tasks_->setText(text);
}

void StatusRow::show_tasks() {
  QMenu menu(this);
  for (const auto& job : jobs_.running())
    menu.addAction(tr("Cancel: %1 (%2)").arg(job.title, job.step.isEmpty() ? tr("running") : job.step), this,
                   [this, id = job.id] { jobs_.cancel(id); });
  if (menu.isEmpty()) menu.addAction(tr("No running tasks"))->setEnabled(false);
  menu.exec(tasks_->mapToGlobal(QPoint(0, -menu.sizeHint().height())));
}

}  // namespace switchyard
