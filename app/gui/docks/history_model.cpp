// Rows of the edit history. GUI thread.
#include "app/gui/docks/history_model.h"

#include <QTextDocument>

#include "app/gui/style.h"
#include "app/session/run_model.h"

namespace switchyard {

HistoryModel::HistoryModel(RunModel& model, QObject* parent) : QAbstractTableModel(parent), model_(model) {
  connect(&model_, &RunModel::history_changed, this, &HistoryModel::refresh);
  connect(&model_, &RunModel::model_changed, this, &HistoryModel::refresh);
  refresh();
}

void HistoryModel::refresh() {
  beginResetModel();
  entries_.clear();
  cursor_ = 0;
  if (const SessionSnapshot* s = model_.snapshot()) {
    entries_ = s->history;
    cursor_ = s->history_cursor;
    if (model_.has_trace()) {  // a recorded run: its epochs are its history
      for (size_t i = 0; i < s->epochs.size(); ++i) {
        const Epoch& epoch = s->epochs[i];
        if (i == 0 && epoch.edits.empty()) continue;
        entries_.push_back(
            {epoch.edits, epoch.sentence, "trace", true, epoch.epoch, epoch.sequence, epoch.first_token});
      }
      cursor_ = entries_.size();
    }
  }
  endResetModel();
}

int HistoryModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() || model_.is_empty() ? 0 : int(entries_.size()) + 1;
}

QVariant HistoryModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const bool native = index.row() == 0;
  const bool undone = size_t(index.row()) > cursor_;
  const HistoryEntry* entry = native ? nullptr : &entries_[size_t(index.row()) - 1];
  const Theme& theme = current_theme();
  switch (role) {
    case Qt::DisplayRole:
      switch (index.column()) {
        case kEpoch:
          return native ? QString("e0") : undone || !entry->applied ? QString("–") : QString("e%1").arg(entry->epoch);
        case kSentence:
          return native ? tr("Native router")
                        : QString::fromStdString(entry->sentence) + (undone           ? tr(" (undone)")
                                                                     : entry->applied ? QString()
                                                                     : entry->at_prefill ? tr(" (at the next prefill)")
                                                                                         : tr(" (scheduled)"));
        case kToken:
          if (!native && !entry->applied && entry->at_prefill) return tr("next run");
          return native ? tr("token 0") : tr("token %1").arg(entry->first_token);
        case kAuthor:
          return native ? QString() : QString::fromStdString(entry->author);
        default:
          return {};
      }
    case Qt::ForegroundRole:
      if (undone) return color(theme.faint);
      if (index.column() == kEpoch) return color(native ? theme.muted : theme.edit);
      if (index.column() == kSentence) return color(theme.text);
      return color(theme.faint);
    case Qt::BackgroundRole:
      return index.row() == row_in_force() && cursor_ > 0
                 ? QVariant(mix(theme.dock, theme.selection, theme.dark ? 0.14 : 0.1))
                 : QVariant();
    case Qt::FontRole:
      return index.column() == kSentence ? word_font() : number_font();
    case Qt::TextAlignmentRole:
      return int(index.column() == kToken || index.column() == kAuthor ? Qt::AlignRight | Qt::AlignVCenter
                                                                       : Qt::AlignLeft | Qt::AlignVCenter);
    case Qt::ToolTipRole:
      if (native) return tr("The checkpoint's own routing. Double-click to undo every edit.");
      return Qt::convertFromPlainText(
          tr("%1\nby %2, in force from token %3. Double-click to go back to here.")
              .arg(QString::fromStdString(entry->sentence), QString::fromStdString(entry->author))
              .arg(entry->first_token));
    default:
      return {};
  }
}

QVariant HistoryModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || role != Qt::DisplayRole) return {};
  static const char* const names[] = {"epoch", "edit", "from token", "author"};
  return section >= 0 && section < kColumns ? QString(names[section]) : QVariant();
}

}  // namespace switchyard
