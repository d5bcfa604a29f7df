#include "app/gui/behaviors/plugin_watch.h"

#include <utility>

#include "app/gui/docks/live_dock.h"
#include "app/gui/docks/plugin_panel.h"
#include "app/gui/main_window.h"
#include "engine/plugin_host/host.h"
#include "views/plugin/view.h"

namespace switchyard {

PluginWatch::PluginWatch(MainWindow& window) : QObject(&window), window_(window) {
  connect(&timer_, &QTimer::timeout, this, &PluginWatch::look);
  if (!PluginHost::instance().plugins().empty()) timer_.start(250);
  QTimer::singleShot(0, this, &PluginWatch::look);
}

void PluginWatch::look() {
  bool told = false;
  for (const std::string& line : PluginHost::instance().take_lines()) {
    window_.log().add(LogEntry::kWarning, QString::fromStdString(line));
    told = true;
  }
  bool opened = false;
  for (LiveDock* dock : window_.live_docks()) {
    const auto* view = dynamic_cast<const PluginView*>(&dock->view());
    if (!view || !view->opening() || !dock->isVisible()) continue;
    dock->live()->data_changed();
    opened = true;
  }
  std::vector<PluginState> states;
  for (const auto& plugin : PluginHost::instance().plugins()) states.push_back(plugin->status().state);
  const bool changed = states != shown_;  // opened at first use, on whatever thread
  shown_ = std::move(states);
  if (told || opened || changed) window_.plugins().refresh();
}

}  // namespace switchyard
