// Kept in the window's settings, newest first. GUI thread.
#include "app/gui/behaviors/recent_files.h"

#include <QMenu>
#include <QMenuBar>

#include "app/gui/action_table.h"
#include "app/gui/behaviors/settings.h"
#include "app/gui/main_window.h"
#include "app/gui/start_page.h"

namespace switchyard {
namespace {

constexpr int kMost = 8;

}  // namespace

RecentFiles::RecentFiles(MainWindow& window) : QObject(&window), window_(window) {
  paths_ = window_settings()->value("recent").toStringList().mid(0, kMost);
  menu_ = new QMenu(tr("Open recent"), &window_);
  if (auto* file = window_.menuBar()->findChild<QMenu*>("menu.File"))
    file->insertMenu(window_.actions().action("file.cancel_opening"), menu_);
  connect(&window_.model(), &RunModel::model_changed, this, [this] {
    const RunModel& model = window_.model();
    if (!model.opening() && !model.is_empty() && (paths_.isEmpty() || paths_.first() != model.opened().model))
      add(model.opened().model);
  });
  show();
}

void RecentFiles::add(const QString& path) {
  paths_.removeAll(path);
  paths_.prepend(path);
  paths_ = paths_.mid(0, kMost);
  window_settings()->setValue("recent", paths_);
  show();
}

void RecentFiles::show() {
  window_.start_page().set_recent(paths_);
  menu_->clear();
  menu_->setEnabled(!paths_.isEmpty());
  for (const QString& path : paths_)
    menu_->addAction(QString(path).replace("&", "&&"), this, [this, path] { window_.open_path(path); });
}

}  // namespace switchyard
