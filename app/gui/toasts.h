// Short messages over the lower right corner of the window. Notes go by themselves, errors stay until they
// are closed or ten seconds have passed without the pointer on them. GUI thread.
#pragma once

#include <vector>

#include <QWidget>

#include "app/gui/log.h"

namespace switchyard {

class Toasts : public QObject {
  Q_OBJECT
 public:
  Toasts(QWidget* over, Log& log);
  int shown() const { return int(cards_.size()); }
  QString newest_text() const { return newest_; }

 Q_SIGNALS:
  void log_asked();

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void show(const LogEntry& entry);
  void arrange();
  void close(QWidget* card);

  QWidget* over_;
  Log& log_;
  std::vector<QWidget*> cards_;
  QString newest_;
};

}  // namespace switchyard
