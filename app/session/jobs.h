// Long work away from the window: every job has an id, a title, progress and a cancel that answers at once.
// Created and asked on the GUI thread; work runs on the runner's own pool; `done` comes back on the GUI thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <QObject>
#include <QString>
#include <QThreadPool>

#include "engine/base/result.h"
#include "engine/base/task.h"

namespace switchyard {

class Jobs : public QObject {
  Q_OBJECT
 public:
  using Id = uint64_t;
  struct Running {
    Id id = 0;
    QString title;
    double fraction = -1;  // negative: unknown
    QString step;
    qint64 started_ms = 0;  // monotonic
  };

  explicit Jobs(QObject* parent = nullptr);
  ~Jobs() override;  // cancels what runs and waits for it

  // work(Task&) -> Result<T> on the pool, then done(Result<T>) on the GUI thread, exactly once, unless a
  // newer job with the same non-empty tag made this one stale: then its result is dropped unseen.
  template <class Work, class Done>
  Id start(const QString& tag, const QString& title, Work work, Done done);

  // The job leaves the list and done() gets kCancelled before this returns; the work ends when it looks.
  void cancel(Id id);
  void cancel_all();
  std::vector<Running> running() const;

 Q_SIGNALS:
  void changed();  // a job began or ended

 private:
  struct Entry {
    Id id;
    QString tag, title;
    std::shared_ptr<Task> task;
    std::function<void()> cancelled;
    qint64 started_ms;
  };
  Id add(const QString& tag, const QString& title, std::shared_ptr<Task> task, std::function<void()> cancelled);
  bool take(Id id);  // false: cancelled or stale

  QThreadPool pool_;
  std::vector<Entry> entries_;
  Id next_ = 1;
};

template <class Work, class Done>
Jobs::Id Jobs::start(const QString& tag, const QString& title, Work work, Done done) {
  using R = std::invoke_result_t<Work&, Task&>;
  auto task = std::make_shared<Task>();
  auto shared_done = std::make_shared<Done>(std::move(done));
  const Id id = add(tag, title, task, [shared_done] { (*shared_done)(R(fail(ErrorCode::kCancelled, "Cancelled."))); });
  auto shared_work = std::make_shared<Work>(std::move(work));
  pool_.start([this, id, task, shared_work, shared_done] {
    std::shared_ptr<R> result;
    try {
      result = std::make_shared<R>((*shared_work)(*task));
    } catch (const std::bad_alloc&) {
      result = std::make_shared<R>(fail(ErrorCode::kMemory, "Out of memory."));
    } catch (const std::exception& problem) {
      result = std::make_shared<R>(fail(ErrorCode::kInternal, problem.what()));
    }
    QMetaObject::invokeMethod(
        this,
        [this, id, result, shared_done] {
          if (take(id)) return (*shared_done)(std::move(*result));
          pool_.start([result] {});  // a stale result may be a whole model: it is torn down off the GUI thread
        },
        Qt::QueuedConnection);
  });
  return id;
}

}  // namespace switchyard
