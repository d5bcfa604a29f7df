// See dock_copy.h.
#include "app/gui/dock_copy.h"

#include <QCursor>
#include <QMenu>
#include <QSortFilterProxyModel>

#include "app/gui/docks/live_dock.h"
#include "app/gui/table_panel.h"
#include "app/gui/view_chart.h"

namespace switchyard {

Copyable copyable_of(const Dock& dock) {
  Copyable out;
  if (auto* panel = qobject_cast<TablePanel*>(dock.table())) {
    panel->refresh_now();
    out.table = shown_table(*panel->rows(), dock.windowTitle());
    if (const auto* live = qobject_cast<const LiveDock*>(&dock))
      out.chart = chart_of_view(live->view(), out.table);
    else if (const auto choices = chart_choices(out.table); !choices.empty())
      out.chart = chart_of(out.table, choices[0]);
    if (!out.chart.empty()) {
      const QString subtitle = dock.subtitle();
      out.chart.title = (dock.windowTitle() + (subtitle.isEmpty() ? QString() : ": " + subtitle)).toStdString();
    }
  }
  if (dock.body()) out.screen = dock.body()->grab().toImage();
  return out;
}

void add_copy_button(Dock& dock) {
  QToolButton* copy = flat_button(QObject::tr("copy"), QObject::tr("Copy the picture or its numbers"), &dock);
  copy->setObjectName("dock.copy");
  auto* menu = new QMenu(copy);
  add_copy_actions(
      *menu, [&dock] { return copyable_of(dock); }, true);
  QObject::connect(copy, &QToolButton::clicked, menu, [menu] { menu->popup(QCursor::pos()); });
  dock.add_to_header(copy);
}

}  // namespace switchyard
