// List of pages left, page right. GUI thread.
#include "app/gui/help_dialog.h"

#include <fstream>
#include <iterator>

#include <QDir>
#include <QDirIterator>
#include <QHBoxLayout>
#include <QListWidget>
#include <QTextBrowser>
#include <QTextFrame>
#include <QTextTable>

#include "app/gui/action_table.h"
#include "app/gui/style.h"
#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

QString help_folder() {
  const auto assets = find_assets();
  return assets ? QString::fromStdString((*assets / "help").string()) : QString();
}

// "# Routing heat map" of the page, else its file name.
QString title_of(const QString& page) {
  const QString text = help_page(page);
  const QString first = text.section('\n', 0, 0);
  return first.startsWith("# ") ? first.mid(2).trimmed() : page.section('/', -1);
}

// Markdown tables come with heavy double borders: one thin line between rows, and room.
void quiet_tables(QTextDocument& document) {
  const QColor line = color(current_theme().line);
  for (QTextFrame* frame : document.rootFrame()->childFrames()) {
    auto* table = qobject_cast<QTextTable*>(frame);
    if (!table) continue;
    QTextTableFormat format = table->format();
    format.setBorder(1);
    format.setBorderBrush(line);
    format.setBorderStyle(QTextFrameFormat::BorderStyle_Solid);
    format.setBorderCollapse(true);
    format.setCellPadding(5);
    format.setCellSpacing(0);
    format.setTopMargin(6);
    format.setBottomMargin(10);
    table->setFormat(format);
  }
}

}  // namespace

QString help_page(const QString& page) {
  if (page.contains("..")) return {};
  std::ifstream in((help_folder() + "/" + page + ".md").toStdString(), std::ios::binary);
  return in ? QString::fromStdString(std::string((std::istreambuf_iterator<char>(in)), {})) : QString();
}

QStringList help_pages() {
  const QDir root(help_folder());
  QStringList out;
  QDirIterator files(root.path(), {"*.md"}, QDir::Files, QDirIterator::Subdirectories);
  while (files.hasNext()) out << root.relativeFilePath(files.next()).chopped(3);
  out.sort();
  if (out.removeOne("index")) out.prepend("index");
  return out;
}

QString shortcuts_markdown(const ActionTable& actions) {
  QString out = QObject::tr("# Keys\n\nEvery action, also in the command palette.\n");
  QString menu;
  for (const ActionRow& row : actions.rows()) {
    QString name = row.menu;
    if (name.startsWith('-')) name.remove(0, 1);
    if (name.isEmpty()) name = QObject::tr("Palette only");
    if (name != menu) out += QString("\n## %1\n\n| key | action | what it does |\n|---|---|---|\n").arg(menu = name);
    const QString keys = actions.keys_text(row).replace("|", "\\|").replace("`", "\\`");
    out += QString("| %1 | %2 | %3 |\n").arg(keys.isEmpty() ? QString("–") : keys, row.title, row.help);
  }
  return out + QObject::tr(
                   "\n## In a picture\n\n| key | action |\n|---|---|\n| arrows | move the cell cursor |\n"
                   "| Enter | select the cell |\n| Esc | clear |\n| Tab | leave the picture |\n");
}

HelpDialog::HelpDialog(const ActionTable& actions, QWidget* parent) : QDialog(parent), actions_(actions) {
  setWindowTitle(tr("Help"));
  resize(860, 640);
  auto* row = new QHBoxLayout(this);
  list_ = new QListWidget;
  list_->setAccessibleName(tr("Help pages"));
  list_->setFixedWidth(215);
  list_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  browser_ = new QTextBrowser;
  browser_->setAccessibleName(tr("Help text"));
  browser_->setOpenLinks(false);
  row->addWidget(list_);
  row->addWidget(browser_, 1);
  for (const QString& page : help_pages()) {
    QString title = title_of(page);
    if (page.startsWith("schemes/") || page.startsWith("adapters/")) title = "    " + title.section(": ", 1);  // under "Gating schemes"
    auto* item = new QListWidgetItem(title, list_);
    item->setData(Qt::UserRole, page);
  }
  auto* keys = new QListWidgetItem(tr("Keys"), list_);
  keys->setData(Qt::UserRole, "keys");
  connect(list_, &QListWidget::currentItemChanged, this, [this](QListWidgetItem* item) {
    if (item && item->data(Qt::UserRole).toString() != page_) show_page(item->data(Qt::UserRole).toString());
  });
  connect(browser_, &QTextBrowser::anchorClicked, this, [this](const QUrl& url) {
    if (url.isRelative()) show_page(QDir::cleanPath(url.path()).remove(".md"));
  });
}

void HelpDialog::show_page(const QString& page) {
  page_ = page;
  const QString text = page == "keys" ? shortcuts_markdown(actions_) : help_page(page);
  browser_->setMarkdown(text.isEmpty() ? tr("There is no help page named “%1”.").arg(page) : text);
  quiet_tables(*browser_->document());
  for (int i = 0; i < list_->count(); ++i)
    if (list_->item(i)->data(Qt::UserRole).toString() == page) list_->setCurrentRow(i);
  show();
  raise();
  activateWindow();
}

}  // namespace switchyard
