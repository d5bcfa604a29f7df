// Tells what plugins say and do wrong in the log, keeps the Plugins dock up to date, and draws a plugin's view again
// when its code has been opened. GUI thread.
#pragma once

#include <vector>

#include <QTimer>

#include "engine/plugin_host/plugin.h"

namespace switchyard {

class MainWindow;

class PluginWatch : public QObject {
  Q_OBJECT
 public:
  explicit PluginWatch(MainWindow& window);
  void look();  // now

 private:
  MainWindow& window_;
  QTimer timer_;
  std::vector<PluginState> shown_;
};

}  // namespace switchyard
