// List, menu and hint of the edit history. GUI thread.
#include "app/gui/docks/history_panel.h"

#include <QClipboard>
#include <QGuiApplication>
#include <QHeaderView>
#include <QLabel>
#include <QMenu>
#include <QTreeView>
#include <QVBoxLayout>

#include "app/gui/docks/history_model.h"
#include "app/gui/style.h"
#include "app/session/edits_in_force.h"
#include "app/session/run_model.h"

namespace switchyard {

HistoryPanel::HistoryPanel(RunModel& model, std::function<void(const QString&)> run_action, QWidget* parent)
    : QWidget(parent), model_(model), run_action_(std::move(run_action)) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(4, 4, 4, 2);
  column->setSpacing(2);
  rows_ = new HistoryModel(model_, this);
  view_ = new QTreeView;
  view_->setAccessibleName(tr("Edit history"));
  view_->setModel(rows_);
  view_->setHeaderHidden(true);
  view_->setRootIsDecorated(false);
  view_->setIndentation(0);
  view_->setUniformRowHeights(true);
  view_->setAllColumnsShowFocus(true);
  view_->setContextMenuPolicy(Qt::CustomContextMenu);
  view_->setTextElideMode(Qt::ElideRight);
  view_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  view_->setColumnHidden(HistoryModel::kAuthor, true);
  QHeaderView* header = view_->header();
  header->setStretchLastSection(false);
  header->setMinimumSectionSize(20);
  header->setSectionResizeMode(HistoryModel::kEpoch, QHeaderView::Fixed);
  header->resizeSection(HistoryModel::kEpoch, QFontMetrics(number_font()).horizontalAdvance("e000") + 8);
  header->setSectionResizeMode(HistoryModel::kSentence, QHeaderView::Stretch);
  header->setSectionResizeMode(HistoryModel::kToken, QHeaderView::ResizeToContents);
  column->addWidget(view_, 1);
  hint_ = new QLabel(tr("No edits yet. Right-click a cell of the heat map, or select an expert and press M."));
  hint_->setWordWrap(true);
  hint_->setProperty("kind", "faint");
  hint_->setContentsMargins(6, 0, 6, 4);
  column->addWidget(hint_);

  connect(view_, &QTreeView::doubleClicked, this,
          [this](const QModelIndex& index) { model_.undo_to(size_t(index.row())); });
  connect(view_, &QTreeView::clicked, this, [this](const QModelIndex& index) {
    const SessionSnapshot* s = model_.snapshot();
    const int row = index.row() - 1;
    if (!s || row < 0 || size_t(row) >= s->history.size() || s->history[size_t(row)].sequence != s->sequence) return;
    if (s->history[size_t(row)].first_token < model_.data().tokens())
      model_.set_cursor(s->history[size_t(row)].first_token);
  });
  connect(view_, &QTreeView::customContextMenuRequested, this, &HistoryPanel::show_menu);
  connect(rows_, &QAbstractItemModel::modelReset, this, [this] {
    hint_->setVisible(rows_->rowCount() == 1);
    view_->scrollTo(rows_->index(rows_->row_in_force(), 0));
  });
}

void HistoryPanel::show_menu(const QPoint& position) {
  const QModelIndex index = view_->indexAt(position);
  QMenu menu(this);
  if (index.isValid() && index.row() != rows_->row_in_force()) {
    const auto cursor = size_t(index.row());
    menu.addAction(index.row() < rows_->row_in_force() ? tr("Undo to here") : tr("Redo to here"), this,
                   [this, cursor] { model_.undo_to(cursor); });
    menu.addSeparator();
  }
  const SessionSnapshot* s = model_.snapshot();
  if (s && index.isValid() && index.row() > 0 && size_t(index.row()) <= s->history.size()) {
    const std::string json = to_json_script(s->history[size_t(index.row()) - 1].edits);
    menu.addAction(tr("Copy this edit as JSON"), this,
                   [json] { QGuiApplication::clipboard()->setText(QString::fromStdString(json)); });
  }
  for (const char* id : {"edit.copy_script_json", "edit.copy_script_cli", "edit.save_script", "edit.load_script"}) {
    QAction* action = menu.addAction(QString());
    const QString name = id;
    connect(action, &QAction::triggered, this, [this, name] { run_action_(name); });
    action->setText(name == "edit.copy_script_json"  ? tr("Copy all as an edit script")
                    : name == "edit.copy_script_cli" ? tr("Copy as a command line")
                    : name == "edit.save_script"     ? tr("Save as script…")
                                                     : tr("Load a script…"));
  }
  menu.exec(view_->viewport()->mapToGlobal(position));
}

}  // namespace switchyard
