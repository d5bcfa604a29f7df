// The last models and traces, on the start page and in the File menu. GUI thread.
#pragma once

#include <QObject>
#include <QStringList>

class QMenu;

namespace switchyard {

class MainWindow;

class RecentFiles : public QObject {
  Q_OBJECT
 public:
  explicit RecentFiles(MainWindow& window);
  const QStringList& paths() const { return paths_; }

 private:
  void add(const QString& path);
  void show();
  MainWindow& window_;
  QMenu* menu_;
  QStringList paths_;
};

}  // namespace switchyard
