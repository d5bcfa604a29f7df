// QActions and menus from rows. GUI thread.
#include "app/gui/action_table.h"

#include <QAction>
#include <QKeySequence>
#include <QMenu>
#include <QMenuBar>
#include <QStringList>
#include <QWidget>

namespace switchyard {

ActionTable::ActionTable(QWidget* window, std::vector<ActionRow> rows) : QObject(window), rows_(std::move(rows)) {
  for (const ActionRow& row : rows_) {
    auto* action = new QAction(row.title, window);
    action->setObjectName(row.id);
    QList<QKeySequence> keys;
    for (const QString& text : row.keys.split(" | ", Qt::SkipEmptyParts))
      keys << QKeySequence(text, QKeySequence::PortableText);
    action->setShortcuts(keys);
    action->setShortcutContext(Qt::WindowShortcut);
    action->setToolTip(row.help);
    action->setStatusTip(row.help);
    action->setCheckable(bool(row.checked));
    window->addAction(action);
    const QString id = row.id;
    connect(action, &QAction::triggered, this, [this, id] { run(id); });
    actions_.push_back(action);
  }
  refresh();
}

const ActionRow* ActionTable::row(const QString& id) const {
  for (const ActionRow& row : rows_)
    if (row.id == id) return &row;
  return nullptr;
}

QAction* ActionTable::action(const QString& id) const {
  for (size_t i = 0; i < rows_.size(); ++i)
    if (rows_[i].id == id) return actions_[i];
  return nullptr;
}

QString ActionTable::keys_text(const ActionRow& row) const {
  QStringList out;
  for (const QString& text : row.keys.split(" | ", Qt::SkipEmptyParts))
    out << QKeySequence(text, QKeySequence::PortableText).toString(QKeySequence::NativeText);
  return out.join(tr(" or "));
}

void ActionTable::run(const QString& id) {
  const ActionRow* found = row(id);
  if (!found) return;
  if (const QString why = why_blocked(*found); !why.isEmpty()) return Q_EMIT refused(found->title + ": " + why);
  found->run();
  refresh();
}

void ActionTable::fill(QMenuBar* bar) const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    QString name = rows_[i].menu;
    if (name.isEmpty()) continue;
    const bool line = name.startsWith('-');
    if (line) name.remove(0, 1);
    QMenu* menu = bar->findChild<QMenu*>("menu." + name, Qt::FindDirectChildrenOnly);
    if (!menu) {
      menu = new QMenu(name, bar);
      menu->setObjectName("menu." + name);
      menu->setToolTipsVisible(true);
      bar->addMenu(menu);
    }
    if (line) menu->addSeparator();
    menu->addAction(actions_[i]);
  }
}

void ActionTable::refresh() {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const QString why = why_blocked(rows_[i]);
    actions_[i]->setEnabled(why.isEmpty());
    actions_[i]->setToolTip(why.isEmpty() ? rows_[i].help : rows_[i].help + "\n" + why);
    if (rows_[i].checked) actions_[i]->setChecked(rows_[i].checked());
  }
}

}  // namespace switchyard
