// Drop a checkpoint folder, a trace or an edit script anywhere on the window to open it; what will happen is
// said before the button is let go. GUI thread.
#pragma once

#include <QObject>
#include <QString>

namespace switchyard {

class MainWindow;

struct Dropped {
  enum Kind { kModel, kTrace, kScript, kWorkspace, kUnknown } kind = kUnknown;
  QString sentence;  // "Opens the model demo"; for kUnknown: why not
};
// path: a file or folder, "demo", or "org/name" of the Hugging Face cache. Looks at names only.
Dropped what_is(const QString& path);

class DropOpen : public QObject {
  Q_OBJECT
 public:
  explicit DropOpen(MainWindow& window);

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  MainWindow& window_;
};

}  // namespace switchyard
