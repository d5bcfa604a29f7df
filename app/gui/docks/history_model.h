// The edit history as rows: e0 is the native router, then every edit with the token it took effect at;
// undone ones come last, greyed. GUI thread.
#pragma once

#include <QAbstractTableModel>

#include "engine/runtime/session.h"

namespace switchyard {

class RunModel;

class HistoryModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { kEpoch, kSentence, kToken, kAuthor, kColumns };
  explicit HistoryModel(RunModel& model, QObject* parent = nullptr);

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : kColumns; }
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

  // Row 0 is e0: undoing to it leaves no entry in force. Row r stands for history entry r - 1.
  int row_in_force() const { return int(cursor_); }
  void refresh();

 private:
  RunModel& model_;
  std::vector<HistoryEntry> entries_;
  size_t cursor_ = 0;
};

}  // namespace switchyard
