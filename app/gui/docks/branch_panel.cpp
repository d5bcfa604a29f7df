// Tree, buttons and hint of the branches. GUI thread.
#include "app/gui/docks/branch_panel.h"

#include <algorithm>

#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "app/gui/style.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

bool same(const SharedList<Branch>& a, const SharedList<Branch>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Branch& x, const Branch& y) {
    return x.id == y.id && x.tokens == y.tokens && x.epoch == y.epoch && x.held == y.held;
  });
}

}  // namespace

BranchPanel::BranchPanel(RunModel& model, std::function<void(const QString&)> run_action, QWidget* parent)
    : QWidget(parent), model_(model) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(4, 4, 4, 4);
  column->setSpacing(4);
  tree_ = new QTreeWidget;
  tree_->setAccessibleName(tr("Branches"));
  tree_->setHeaderLabels({tr("branch"), tr("from"), tr("tokens"), tr("epoch")});
  tree_->setUniformRowHeights(true);
  tree_->setAllColumnsShowFocus(true);
  tree_->header()->setStretchLastSection(false);
  tree_->header()->setSectionResizeMode(QHeaderView::ResizeToContents);
  tree_->header()->setSectionResizeMode(kName, QHeaderView::Stretch);
  column->addWidget(tree_, 1);
  hint_ = new QLabel(tr("No branches yet. Click a token in the text, then rewind to it: what was there is kept."));
  hint_->setWordWrap(true);
  hint_->setProperty("kind", "faint");
  hint_->setContentsMargins(6, 0, 6, 0);
  column->addWidget(hint_);
  auto* buttons = new QHBoxLayout;
  rewind_ = new QPushButton(tr("Rewind to the shown token"));
  go_on_ = new QPushButton(tr("Go on with this branch"));
  buttons->addWidget(rewind_);
  buttons->addWidget(go_on_);
  buttons->addStretch(1);
  column->addLayout(buttons);

  connect(rewind_, &QPushButton::clicked, this, [run_action] { run_action("run.rewind"); });
  connect(go_on_, &QPushButton::clicked, this, &BranchPanel::go_on);
  connect(tree_, &QTreeWidget::itemActivated, this, &BranchPanel::go_on);
  connect(tree_, &QTreeWidget::currentItemChanged, this, [this](const QTreeWidgetItem* item) {
    go_on_->setEnabled(item && item->data(kName, Qt::UserRole).toUInt() != running_);
  });
  connect(&model_, &RunModel::data_changed, this, &BranchPanel::refresh);
  connect(&model_, &RunModel::model_changed, this, &BranchPanel::refresh);
  refresh();
}

void BranchPanel::go_on() {
  const QTreeWidgetItem* item = tree_->currentItem();
  if (item && item->data(kName, Qt::UserRole).toUInt() != running_)
    model_.switch_branch(item->data(kName, Qt::UserRole).toUInt());
}

void BranchPanel::refresh() {
  const SessionSnapshot* s = model_.has_session() ? model_.snapshot() : nullptr;
  const SharedList<Branch> branches = s ? s->branches : SharedList<Branch>();
  rewind_->setEnabled(s && model_.data().tokens() > 0);
  hint_->setVisible(branches.size() < 2);
  if (same(branches, shown_) && (!s || s->branch == running_)) return;
  const bool grown = branches.size() != shown_.size();
  shown_ = branches;
  running_ = s ? s->branch : 0;
  if (grown) {
    tree_->clear();
    std::vector<QTreeWidgetItem*> items;
    for (const Branch& branch : branches) {
      auto* item = branch.parent ? new QTreeWidgetItem(items[*branch.parent]) : new QTreeWidgetItem(tree_);
      item->setData(kName, Qt::UserRole, branch.id);
      for (int c = kFrom; c < kColumns; ++c) item->setTextAlignment(c, Qt::AlignRight | Qt::AlignVCenter);
      items.push_back(item);
    }
    tree_->expandAll();
  }
  for (QTreeWidgetItemIterator it(tree_); *it; ++it) {
    const Branch& branch = branches[(*it)->data(kName, Qt::UserRole).toUInt()];
    const bool runs = branch.id == running_;
    (*it)->setText(kName, QString("%1  %2").arg(branch.id).arg(QString::fromStdString(branch.name)));
    (*it)->setText(kFrom, branch.parent ? QString::number(branch.fork_token) : QString());
    (*it)->setText(kTokens, QString::number(branch.tokens));
    (*it)->setText(kEpoch, QString("e%1").arg(branch.epoch));
    (*it)->setToolTip(kName, runs ? tr("This branch runs.")
                             : branch.held
                                 ? tr("Kept in memory: double click goes on with it.")
                                 : tr("Its keys and frames were let go; going on with it routes its tokens again."));
    QFont font = tree_->font();
    font.setBold(runs);
    for (int c = 0; c < kColumns; ++c) (*it)->setFont(c, font);
    if (runs && (grown || !tree_->currentItem())) tree_->setCurrentItem(*it);
  }
  const QTreeWidgetItem* item = tree_->currentItem();
  go_on_->setEnabled(item && item->data(kName, Qt::UserRole).toUInt() != running_);
}

}  // namespace switchyard
