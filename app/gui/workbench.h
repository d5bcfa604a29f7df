// The docks and their arrangement: an inner main window without centre, so that every panel can be moved,
// floated and closed. GUI thread.
#pragma once

#include <vector>

#include <QMainWindow>

namespace switchyard {

class Dock;

class Workbench : public QMainWindow {
  Q_OBJECT
 public:
  explicit Workbench(QWidget* parent = nullptr);

  void add(Dock* dock);                 // owns it; arranged by arrange_default()
  Dock* dock(const QString& id) const;  // nullptr: unknown
  const std::vector<Dock*>& docks() const { return docks_; }
  Dock* focused() const;  // the dock that has the keyboard, else the first visible one

  // The Explore layout of the design, for the size the window has.
  void arrange_default();
  void focus_next(int by);

  QByteArray layout() const { return saveState(kLayoutVersion); }
  bool restore_layout(const QByteArray& state) { return restoreState(state, kLayoutVersion); }

 protected:
  void showEvent(QShowEvent* event) override;

 private:
  static constexpr int kLayoutVersion = 1;
  void size_default();
  std::vector<Dock*> docks_;
  bool size_on_show_ = false;
};

}  // namespace switchyard
