// The one table of everything the window can do. Menus, shortcuts, the command palette, the shortcut page
// and help are made from its rows; actions.cpp holds them. GUI thread.
#pragma once

#include <functional>
#include <vector>

#include <QObject>
#include <QString>

class QAction;
class QMenuBar;
class QWidget;

namespace switchyard {

struct ActionRow {
  QString id;     // stable: "edit.undo"
  QString title;  // "Undo"; "…" when a dialog follows
  QString menu;   // "Edit"; a leading "-" puts a line before it
  QString keys;   // portable text, alternatives separated by " | "; empty: none
  QString help;   // one sentence
  std::function<void()> run;
  std::function<QString()> blocked = {};  // why it cannot run now; empty text or no function: it can
  std::function<bool()> checked = {};     // a switch, and whether it is on
};

class ActionTable : public QObject {
  Q_OBJECT
 public:
  // Shortcuts work anywhere in `window`.
  ActionTable(QWidget* window, std::vector<ActionRow> rows);

  const std::vector<ActionRow>& rows() const { return rows_; }
  const ActionRow* row(const QString& id) const;  // nullptr: unknown id
  QAction* action(const QString& id) const;
  QString why_blocked(const ActionRow& row) const { return row.blocked ? row.blocked() : QString(); }
  QString keys_text(const ActionRow& row) const;  // "Ctrl+Shift+P"

  // Runs it, or tells through refused() why it cannot run.
  void run(const QString& id);
  void fill(QMenuBar* bar) const;
  void refresh();  // enabled, checked

 Q_SIGNALS:
  void refused(const QString& sentence);

 private:
  std::vector<ActionRow> rows_;
  std::vector<QAction*> actions_;
};

}  // namespace switchyard
