// Matching, list and field of the palette. GUI thread.
#include "app/gui/palette.h"

#include <algorithm>

#include <QApplication>
#include <QKeyEvent>
#include <QLineEdit>
#include <QListView>
#include <QPainter>
#include <QStyledItemDelegate>
#include <QVBoxLayout>

#include "app/gui/style.h"

namespace switchyard {
namespace {

constexpr int kMostShown = 200;

class ItemDelegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  QSize sizeHint(const QStyleOptionViewItem& option, const QModelIndex&) const override {
    return {100, option.fontMetrics.height() + 12};
  }
  void paint(QPainter* p, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    const Theme& theme = current_theme();
    p->save();
    p->setRenderHint(QPainter::Antialiasing);
    if (option.state & QStyle::State_Selected) {
      p->setPen(Qt::NoPen);
      p->setBrush(mix(theme.raised, theme.selection, 0.22));
      p->drawRoundedRect(option.rect.adjusted(4, 1, -4, -1), 5, 5);
    }
    const QString blocked = index.data(PaletteModel::kBlocked).toString();
    QRect box = option.rect.adjusted(14, 0, -14, 0);
    p->setFont(number_font());
    p->setPen(color(theme.muted));
    const QString keys = index.data(PaletteModel::kKeys).toString();
    if (!keys.isEmpty()) {
      p->drawText(box, Qt::AlignRight | Qt::AlignVCenter, keys);
      box.setRight(box.right() - QFontMetrics(number_font()).horizontalAdvance(keys) - 16);
    }
    p->setFont(option.font);
    p->setPen(color(blocked.isEmpty() ? theme.text : theme.faint));
    const QString title = index.data(Qt::DisplayRole).toString();
    const QString shown = option.fontMetrics.elidedText(title, Qt::ElideRight, box.width());
    p->drawText(box, Qt::AlignLeft | Qt::AlignVCenter, shown);
    box.setLeft(box.left() + option.fontMetrics.horizontalAdvance(shown) + 14);
    const QString side = blocked.isEmpty() ? index.data(PaletteModel::kGroup).toString() : blocked;
    p->setPen(color(theme.faint));
    p->drawText(box, Qt::AlignLeft | Qt::AlignVCenter,
                option.fontMetrics.elidedText(side, Qt::ElideRight, box.width()));
    p->restore();
  }
};

}  // namespace

int fuzzy_score(const QString& query, const QString& text) {
  int score = 0;
  qsizetype at = 0, last = -2;
  for (const QChar c : query) {
    if (c.isSpace()) continue;
    qsizetype found = -1;
    // The start of a word is preferred to the next occurrence.
    for (qsizetype i = at; i < text.size(); ++i) {
      if (text[i].toLower() != c.toLower()) continue;
      if (found < 0) found = i;
      if (i == last + 1 || i == 0 || !text[i - 1].isLetterOrNumber()) {
        found = i;
        break;
      }
    }
    if (found < 0) return -1;
    const bool word_start = found == 0 || !text[found - 1].isLetterOrNumber();
    score += 10 + (word_start ? 8 : 0) + (found == last + 1 ? 12 : 0) - int(std::min<qsizetype>(found - at, 8));
    last = found;
    at = found + 1;
  }
  return score * 4 - int(std::min<qsizetype>(text.size(), 60)) / 4 + 16;
}

void PaletteModel::set_items(std::vector<PaletteItem> items) {
  beginResetModel();
  items_ = std::move(items);
  shown_.clear();
  endResetModel();
}

void PaletteModel::set_query(const QString& query) {
  beginResetModel();
  std::vector<std::pair<int, size_t>> hits;
  for (size_t i = 0; i < items_.size(); ++i) {
    const int score =
        std::max(fuzzy_score(query, items_[i].title), fuzzy_score(query, items_[i].group + " " + items_[i].title) - 20);
    if (query.trimmed().isEmpty() || score >= 0) hits.push_back({query.trimmed().isEmpty() ? 0 : -score, i});
  }
  std::stable_sort(hits.begin(), hits.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  shown_.clear();
  for (const auto& [score, i] : hits)
    if (int(shown_.size()) < kMostShown) shown_.push_back(i);
  endResetModel();
}

QVariant PaletteModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const PaletteItem& found = item(index.row());
  switch (role) {
    case Qt::DisplayRole:
      return found.title;
    case Qt::AccessibleTextRole:
      return found.title + (found.blocked.isEmpty() ? QString() : ", " + found.blocked) +
             (found.keys.isEmpty() ? QString() : ", " + found.keys);
    case kGroup:
      return found.group;
    case kKeys:
      return found.keys;
    case kBlocked:
      return found.blocked;
    default:
      return {};
  }
}

Palette::Palette(QWidget* over) : QFrame(over), over_(over) {
  setObjectName("palette");
  setAttribute(Qt::WA_StyledBackground);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 8, 8, 8);
  column->setSpacing(6);
  field_ = new QLineEdit;
  field_->setAccessibleName(tr("Search"));
  list_ = new QListView;
  list_->setAccessibleName(tr("Results"));
  list_->setFocusPolicy(Qt::NoFocus);
  list_->setUniformItemSizes(true);
  list_->setVerticalScrollMode(QAbstractItemView::ScrollPerPixel);
  list_->setItemDelegate(new ItemDelegate(list_));
  model_ = new PaletteModel(this);
  list_->setModel(model_);
  column->addWidget(field_);
  column->addWidget(list_, 1);
  field_->installEventFilter(this);
  over_->installEventFilter(this);
  connect(field_, &QLineEdit::textChanged, this, &Palette::query_changed);
  connect(list_, &QListView::clicked, this, [this](const QModelIndex& index) { take(index.row()); });
  hide();
}

void Palette::open(const QString& hint, std::vector<PaletteItem> items,
                   std::function<std::vector<PaletteItem>(const QString&)> more) {
  fixed_ = std::move(items);
  more_ = std::move(more);
  field_->setPlaceholderText(hint);
  field_->clear();
  query_changed({});
  place();
  show();
  raise();
  field_->setFocus();
}

void Palette::query_changed(const QString& text) {
  std::vector<PaletteItem> items = more_ ? more_(text) : std::vector<PaletteItem>{};
  items.insert(items.end(), fixed_.begin(), fixed_.end());
  model_->set_items(std::move(items));
  model_->set_query(text);
  list_->setCurrentIndex(model_->index(0));
  list_->scrollToTop();
  place();
}

void Palette::place() {
  const int row = list_->fontMetrics().height() + 12, rows = std::clamp(model_->rowCount(), 1, 14);
  const int width = std::min(680, over_->width() - 40);
  const int height = std::min(field_->sizeHint().height() + 26 + rows * row, over_->height() - 120);
  setGeometry((over_->width() - width) / 2, 70, width, height);
}

void Palette::take(int row) {
  if (row < 0 || row >= model_->rowCount()) return;
  const PaletteItem chosen = model_->item(row);
  if (!chosen.blocked.isEmpty()) return;
  hide();
  over_->setFocus();
  chosen.take();
}

bool Palette::eventFilter(QObject* watched, QEvent* event) {
  if (watched == over_ && event->type() == QEvent::Resize && isVisible()) place();
  if (watched != field_) return QFrame::eventFilter(watched, event);
  if (event->type() == QEvent::FocusOut) {
    hide();
  } else if (event->type() == QEvent::KeyPress) {
    const auto* key = static_cast<QKeyEvent*>(event);
    const int row = list_->currentIndex().row(), rows = model_->rowCount();
    const auto go = [&](int to) { list_->setCurrentIndex(model_->index(std::clamp(to, 0, std::max(0, rows - 1)))); };
    switch (key->key()) {
      case Qt::Key_Escape:
        hide();
        return true;
      case Qt::Key_Down:
        go(row + 1);
        return true;
      case Qt::Key_Up:
        go(row - 1);
        return true;
      case Qt::Key_PageDown:
        go(row + 10);
        return true;
      case Qt::Key_PageUp:
        go(row - 10);
        return true;
      case Qt::Key_Return:
      case Qt::Key_Enter:
        take(row);
        return true;
      default:
        break;
    }
  }
  return QFrame::eventFilter(watched, event);
}

}  // namespace switchyard
