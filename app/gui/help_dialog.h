// Help pages of assets/help as the program shows them offline, and the shortcut page made from the action
// table. GUI thread.
#pragma once

#include <QDialog>

class QListWidget;
class QTextBrowser;

namespace switchyard {

class ActionTable;

// Markdown of one page ("views/routing_heatmap", "generation"); empty: there is none.
QString help_page(const QString& page);
// Every page there is, index first.
QStringList help_pages();
// All actions with keys and help sentence, by menu.
QString shortcuts_markdown(const ActionTable& actions);

class HelpDialog : public QDialog {
  Q_OBJECT
 public:
  HelpDialog(const ActionTable& actions, QWidget* parent);
  void show_page(const QString& page);  // "keys": the shortcut page
  QString shown_page() const { return page_; }
  QTextBrowser* browser() const { return browser_; }

 private:
  const ActionTable& actions_;
  QListWidget* list_;
  QTextBrowser* browser_;
  QString page_;
};

}  // namespace switchyard
