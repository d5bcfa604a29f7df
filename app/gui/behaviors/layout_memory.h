// The window comes back as it was left: place, docks, theme, scale, view settings, prompt. GUI thread.
#pragma once

#include <QObject>

namespace switchyard {

class MainWindow;

class LayoutMemory : public QObject {
  Q_OBJECT
 public:
  // restore: false forgets the saved layout (safe mode, --reset-layout).
  LayoutMemory(MainWindow& window, bool restore);
  void save() const;

 private:
  void restore();
  MainWindow& window_;
};

}  // namespace switchyard
