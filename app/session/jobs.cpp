// The list of running jobs. GUI thread.
#include "app/session/jobs.h"

#include <algorithm>
#include <chrono>

namespace switchyard {
namespace {

qint64 now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Jobs::Jobs(QObject* parent) : QObject(parent) {
  pool_.setMaxThreadCount(8);  // mostly waiting: a cancelled job may still hold one
}

Jobs::~Jobs() {
  for (Entry& entry : entries_) entry.task->cancel();
  entries_.clear();
  pool_.waitForDone();
}

Jobs::Id Jobs::add(const QString& tag, const QString& title, std::shared_ptr<Task> task,
                   std::function<void()> cancelled) {
  if (!tag.isEmpty()) {
    std::erase_if(entries_, [&](const Entry& entry) {
      if (entry.tag == tag) entry.task->cancel();
      return entry.tag == tag;
    });
  }
  entries_.push_back({next_, tag, title, std::move(task), std::move(cancelled), now_ms()});
  Q_EMIT changed();
  return next_++;
}

bool Jobs::take(Id id) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.id == id; });
  if (found == entries_.end()) return false;
  entries_.erase(found);
  Q_EMIT changed();
  return true;
}

void Jobs::cancel(Id id) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.id == id; });
  if (found == entries_.end()) return;
  const Entry entry = std::move(*found);
  entries_.erase(found);
  entry.task->cancel();
  Q_EMIT changed();
  entry.cancelled();
}

void Jobs::cancel_all() {
  while (!entries_.empty()) cancel(entries_.back().id);
}

std::vector<Jobs::Running> Jobs::running() const {
  std::vector<Running> out;
  for (const Entry& entry : entries_)
    out.push_back(
        {entry.id, entry.title, entry.task->fraction(), QString::fromStdString(entry.task->step()), entry.started_ms});
  return out;
}

}  // namespace switchyard
