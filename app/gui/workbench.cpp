// Arranging docks. GUI thread.
#include "app/gui/workbench.h"

#include <QApplication>
#include <QTimer>

#include "app/gui/dock.h"

namespace switchyard {

Workbench::Workbench(QWidget* parent) : QMainWindow(parent, Qt::Widget) {
  setObjectName("workbench");
  setDockNestingEnabled(true);
  setTabPosition(Qt::AllDockWidgetAreas, QTabWidget::North);
  setCorner(Qt::BottomLeftCorner, Qt::BottomDockWidgetArea);
  setCorner(Qt::BottomRightCorner, Qt::BottomDockWidgetArea);
  setContentsMargins(7, 6, 7, 6);
}

void Workbench::add(Dock* dock) {
  dock->setParent(this);
  docks_.push_back(dock);
  addDockWidget(Qt::LeftDockWidgetArea, dock);
  dock->hide();
}

Dock* Workbench::dock(const QString& id) const {
  for (Dock* dock : docks_)
    if (dock->objectName() == id) return dock;
  return nullptr;
}

Dock* Workbench::focused() const {
  for (QWidget* at = QApplication::focusWidget(); at; at = at->parentWidget())
    if (auto* dock = qobject_cast<Dock*>(at)) return dock;
  return nullptr;
}

void Workbench::focus_next(int by) {
  std::vector<Dock*> visible;
  for (Dock* dock : docks_)
    if (dock->isVisible() && !dock->visibleRegion().isEmpty()) visible.push_back(dock);
  if (visible.empty()) return;
  const Dock* here = focused();
  int at = by > 0 ? -1 : 0;
  for (size_t i = 0; i < visible.size(); ++i)
    if (visible[i] == here) at = int(i);
  const int count = int(visible.size());
  visible[size_t((at + by + count) % count)]->setFocus();
}

void Workbench::arrange_default() {
  for (Dock* dock : docks_) {
    dock->setFloating(false);
    removeDockWidget(dock);
  }
  const auto show = [&](const char* id) {
    Dock* found = dock(id);
    if (found) found->show();
    return found;
  };
  Dock *generation = show("generation"), *history = show("edit_history"), *routing = show("routing_heatmap"),
       *inspector = show("gate_inspector"), *load = show("expert_load"), *affinity = show("affinity"),
       *strip = show("token_strip");
  addDockWidget(Qt::LeftDockWidgetArea, generation);
  const auto split = [&](Dock* first, Dock* second, Qt::Orientation direction) {
    if (first && second) splitDockWidget(first, second, direction);
  };
  split(generation, routing, Qt::Horizontal);
  split(routing, inspector, Qt::Horizontal);
  split(generation, history, Qt::Vertical);
  split(routing, load, Qt::Vertical);
  split(load, affinity, Qt::Horizontal);
  if (Dock* scheme = dock("scheme"); scheme && inspector) {
    scheme->show();
    tabifyDockWidget(inspector, scheme);
    inspector->raise();
  }
  if (strip) addDockWidget(Qt::BottomDockWidgetArea, strip);
  for (const char* id : {"token_table", "load_table", "log"})
    if (Dock* spare = dock(id)) {
      addDockWidget(Qt::BottomDockWidgetArea, spare);
      if (strip) tabifyDockWidget(strip, spare);
      spare->hide();
    }
  // Behind the panel beside which it is read, until it is asked for.
  const auto behind = [&](const char* id, Dock* front, Qt::DockWidgetArea area) {
    Dock* spare = dock(id);
    if (!spare) return;
    addDockWidget(area, spare);
    if (front) tabifyDockWidget(front, spare);
    spare->hide();
  };
  behind("analysis", dock("routing_heatmap"), Qt::LeftDockWidgetArea);
  behind("plugins", inspector, Qt::LeftDockWidgetArea);
  for (const Dock* other : docks_)
    if (other->objectName().contains('.')) behind(other->objectName().toUtf8(), inspector, Qt::LeftDockWidgetArea);  // views of plugins
  behind("report", dock("routing_heatmap"), Qt::LeftDockWidgetArea);
  behind("compare", inspector, Qt::LeftDockWidgetArea);
  behind("adaptation", inspector, Qt::LeftDockWidgetArea);
  behind("router_gradients", inspector, Qt::LeftDockWidgetArea);
  behind("logit_lens", inspector, Qt::LeftDockWidgetArea);
  behind("edit_effects", inspector, Qt::LeftDockWidgetArea);
  behind("branches", history, Qt::LeftDockWidgetArea);
  for (Dock* shown : {generation, history, routing, inspector, load, affinity, strip})
    if (shown) shown->show();
  if (isVisible())
    size_default();
  else
    size_on_show_ = true;
}

void Workbench::size_default() {
  QList<QDockWidget*> columns, heights_left, heights_middle, bottom_row;
  QList<int> widths, left_sizes, middle_sizes, row_sizes;
  const auto put = [&](const char* id, QList<QDockWidget*>& list, QList<int>& sizes, double size) {
    if (Dock* found = dock(id)) list << found, sizes << int(size);
  };
  const double w = width() - 28, h = height() - 18;
  const double strip = std::clamp(h * 0.145, 96.0, 128.0), body = h - strip - 6;
  put("generation", columns, widths, w * 0.248);
  put("routing_heatmap", columns, widths, w * 0.5);
  put("gate_inspector", columns, widths, w * 0.252);
  put("generation", heights_left, left_sizes, body * 0.68);
  put("edit_history", heights_left, left_sizes, body * 0.32);
  put("routing_heatmap", heights_middle, middle_sizes, body * 0.51);
  put("expert_load", heights_middle, middle_sizes, body * 0.49);
  put("expert_load", bottom_row, row_sizes, w * 0.5 * 0.555);
  put("affinity", bottom_row, row_sizes, w * 0.5 * 0.445);
  resizeDocks(columns, widths, Qt::Horizontal);
  resizeDocks(bottom_row, row_sizes, Qt::Horizontal);
  if (Dock* found = dock("token_strip")) resizeDocks({found}, {int(strip)}, Qt::Vertical);
  resizeDocks(heights_left, left_sizes, Qt::Vertical);
  resizeDocks(heights_middle, middle_sizes, Qt::Vertical);
}

void Workbench::showEvent(QShowEvent* event) {
  QMainWindow::showEvent(event);
  if (!size_on_show_) return;
  size_on_show_ = false;
  size_default();
  QTimer::singleShot(0, this, &Workbench::size_default);  // once more with the layout's final size
}

}  // namespace switchyard
