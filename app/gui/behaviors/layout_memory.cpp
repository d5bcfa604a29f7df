// Saving at quit, restoring at start. GUI thread.
#include "app/gui/behaviors/layout_memory.h"

#include <QApplication>

#include "app/gui/behaviors/settings.h"
#include "app/gui/docks/generation_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/main_window.h"
#include "app/gui/style.h"
#include "app/gui/workbench.h"

namespace switchyard {

LayoutMemory::LayoutMemory(MainWindow& window, bool restore) : QObject(&window), window_(window) {
  if (restore) this->restore();
  connect(qApp, &QApplication::aboutToQuit, this, &LayoutMemory::save);
}

void LayoutMemory::save() const {
  const auto settings = window_settings();
  settings->setValue("geometry", window_.saveGeometry());
  settings->setValue("layout", window_.workbench().layout());
  settings->setValue("theme", current_theme().dark ? "dark" : "light");
  settings->setValue("scale", ui_scale());
  settings->setValue("prompt", window_.generation().prompt());
  for (const LiveDock* dock : window_.live_docks())
    for (const ViewSetting& setting : dock->view().settings())
      settings->setValue("views/" + dock->objectName() + "/" + QString::fromStdString(setting.id), setting.value);
}

void LayoutMemory::restore() {
  const auto settings = window_settings();
  if (window_.options().size.isEmpty()) window_.restoreGeometry(settings->value("geometry").toByteArray());
  const QByteArray layout = settings->value("layout").toByteArray();
  if (!layout.isEmpty()) window_.workbench().restore_layout(layout);
  window_.generation().set_prompt(settings->value("prompt").toString());
  for (LiveDock* dock : window_.live_docks())
    for (const ViewSetting& setting : dock->view().settings()) {
      const QString id = QString::fromStdString(setting.id);
      bool whole = false;
      const int value = settings->value("views/" + dock->objectName() + "/" + id).toInt(&whole);
      if (whole) dock->set_setting(id, value);
    }
}

}  // namespace switchyard
