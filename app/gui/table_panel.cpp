// Filter line, table, copy menu. GUI thread.
#include "app/gui/table_panel.h"

#include <algorithm>

#include <QHBoxLayout>
#include <QHeaderView>
#include <QLineEdit>
#include <QMenu>
#include <QSortFilterProxyModel>
#include <QTableView>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/gui/dock.h"
#include "app/gui/style.h"
#include "app/gui/picture_copy.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

constexpr int kRefreshMs = 200;

}  // namespace

TablePanel::TablePanel(QAbstractItemModel* source, std::function<void()> refresh, QWidget* parent)
    : QWidget(parent), refresh_(std::move(refresh)) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(6, 4, 6, 4);
  column->setSpacing(4);
  auto* bar = new QHBoxLayout;
  filter_ = new QLineEdit;
  filter_->setPlaceholderText(tr("Filter rows"));
  filter_->setAccessibleName(tr("Filter rows"));
  filter_->setClearButtonEnabled(true);
  count_ = new ElidedLabel;
  count_->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
  count_->setProperty("kind", "faint");
  auto* copy = flat_button(tr("copy ▾"), tr("Copy the rows shown, in this order"), this);
  auto* menu = new QMenu(copy);
  add_copy_actions(*menu, [this] { return Copyable{{}, shown_table(*rows_), {}}; }, false);
  copy->setMenu(menu);
  copy->setPopupMode(QToolButton::InstantPopup);
  bar->addWidget(filter_, 1);
  bar->addWidget(count_);
  bar->addWidget(copy);
  column->addLayout(bar);

  rows_ = new QSortFilterProxyModel(this);
  rows_->setSourceModel(source);
  rows_->setSortRole(TableTwin::kSortRole);
  rows_->setFilterKeyColumn(-1);
  rows_->setFilterCaseSensitivity(Qt::CaseInsensitive);
  view_ = new QTableView;
  view_->setModel(rows_);
  view_->setFont(number_font());
  view_->setSortingEnabled(true);
  view_->horizontalHeader()->setSortIndicator(-1, Qt::AscendingOrder);
  view_->setShowGrid(false);
  view_->setAlternatingRowColors(true);
  view_->setSelectionBehavior(QAbstractItemView::SelectRows);
  view_->setTabKeyNavigation(false);
  view_->setWordWrap(false);
  view_->verticalHeader()->hide();
  view_->verticalHeader()->setSectionResizeMode(QHeaderView::Fixed);
  view_->verticalHeader()->setDefaultSectionSize(QFontMetrics(number_font()).height() + 8);
  view_->setMinimumHeight(2 * view_->verticalHeader()->defaultSectionSize());
  view_->setContextMenuPolicy(Qt::CustomContextMenu);
  column->addWidget(view_, 1);

  throttle_.setSingleShot(true);
  connect(&throttle_, &QTimer::timeout, this, &TablePanel::refresh_now);
  connect(filter_, &QLineEdit::textChanged, this, [this](const QString& text) {
    rows_->setFilterFixedString(text);
    refresh_now();
  });
  connect(view_, &QTableView::customContextMenuRequested, this,
          [this, menu](const QPoint& at) { menu->popup(view_->viewport()->mapToGlobal(at)); });
}

void TablePanel::data_changed() {
  if (isVisible() && !throttle_.isActive()) throttle_.start(kRefreshMs);
}

void TablePanel::refresh_now() {
  refresh_();
  const int all = rows_->sourceModel()->rowCount(), shown = rows_->rowCount();
  count_->set_full_text(shown == all ? tr("%1 rows").arg(all) : tr("%1 of %2 rows").arg(shown).arg(all));
  count_->updateGeometry();
  if (sized_ || shown == 0) return;
  sized_ = true;
  view_->resizeColumnsToContents();
  for (int c = 0; c < rows_->columnCount(); ++c)
    view_->setColumnWidth(c, std::clamp(view_->columnWidth(c) + 14, 50, 360));
}

void TablePanel::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  refresh_now();
}

void TablePanel::select_row(int row) {
  const QModelIndex source = rows_->sourceModel()->index(row, 0);
  if (!rows_->mapFromSource(source).isValid()) filter_->clear();
  const QModelIndex shown = rows_->mapFromSource(source);
  view_->selectRow(shown.row());
  view_->scrollTo(shown);
}

void TablePanel::focus_filter() {
  filter_->setFocus();
}

}  // namespace switchyard
