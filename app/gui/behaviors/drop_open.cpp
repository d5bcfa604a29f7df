// Drag and drop of one file or folder. GUI thread.
#include "app/gui/behaviors/drop_open.h"

#include <QDir>
#include <QDragEnterEvent>
#include <QFileInfo>
#include <QMimeData>
#include <QRegularExpression>
#include <QTextDocument>
#include <QToolTip>

#include "app/gui/main_window.h"
#include "app/gui/start_page.h"

namespace switchyard {
namespace {

QString dropped_path(const QMimeData* mime) {
  if (!mime->hasUrls() || mime->urls().size() != 1) return {};
  return mime->urls().first().toLocalFile();
}

}  // namespace

Dropped what_is(const QString& path) {
  const QFileInfo info(path);
  if (path == "demo") return {Dropped::kModel, QObject::tr("Opens the demo model")};
  if (info.isDir()) {
    if (QFileInfo::exists(path + "/config.json") || QDir(path).exists("snapshots"))
      return {Dropped::kModel, QObject::tr("Opens the model %1").arg(QDir(path).dirName())};
    return {Dropped::kUnknown, QObject::tr("This folder has no config.json, so it is no checkpoint.")};
  }
  if (info.isFile()) {
    if (path.endsWith(".moetrace.h5") || path.endsWith(".moetrace.h5.part"))
      return {Dropped::kTrace, QObject::tr("Opens the trace %1").arg(info.fileName())};
    if (info.fileName() == "config.json" || path.endsWith(".safetensors") || path.endsWith(".safetensors.index.json"))
      return QFileInfo::exists(info.path() + "/config.json")
                 ? Dropped{Dropped::kModel, QObject::tr("Opens the model %1").arg(QDir(info.path()).dirName())}
                 : Dropped{Dropped::kUnknown,
                           QObject::tr("There is no config.json beside this file, so it is no checkpoint.")};
    if (path.endsWith(".switchyard.json"))
      return {Dropped::kWorkspace, QObject::tr("Opens the workspace %1").arg(info.fileName())};
    if (path.endsWith(".json")) return {Dropped::kScript, QObject::tr("Loads the edit script %1").arg(info.fileName())};
    return {Dropped::kUnknown, QObject::tr("This is not a file that Switchyard knows.")};
  }
  static const QRegularExpression cache_name("^[\\w.-]+/[\\w.-]+$");
  if (cache_name.match(path).hasMatch())
    return {Dropped::kModel, QObject::tr("Opens %1 from the Hugging Face cache").arg(path)};
  return {Dropped::kUnknown, QObject::tr("There is no such file or folder.")};
}

DropOpen::DropOpen(MainWindow& window) : QObject(&window), window_(window) {
  window_.setAcceptDrops(true);
  window_.installEventFilter(this);
}

bool DropOpen::eventFilter(QObject* watched, QEvent* event) {
  switch (event->type()) {
    case QEvent::DragEnter:
    case QEvent::DragMove: {
      auto* drag = static_cast<QDragMoveEvent*>(event);
      const QString path = dropped_path(drag->mimeData());
      if (path.isEmpty()) return false;
      const Dropped dropped = what_is(path);
      window_.start_page().set_drop_hint(dropped.sentence);
      QToolTip::showText(window_.mapToGlobal(drag->position().toPoint()), Qt::convertFromPlainText(dropped.sentence),
                         &window_);
      drag->acceptProposedAction();
      return true;
    }
    case QEvent::DragLeave:
      window_.start_page().set_drop_hint({});
      return false;
    case QEvent::Drop: {
      auto* drop = static_cast<QDropEvent*>(event);
      window_.start_page().set_drop_hint({});
      QString path = dropped_path(drop->mimeData());
      if (path.isEmpty()) return false;
      const QFileInfo info(path);
      const bool part_of_model = info.isFile() && (info.fileName() == "config.json" || path.contains(".safetensors"));
      window_.open_path(part_of_model ? info.path() : path);
      drop->acceptProposedAction();
      return true;
    }
    default:
      return QObject::eventFilter(watched, event);
  }
}

}  // namespace switchyard
