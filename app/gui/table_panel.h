// A table twin: sortable, filtered as one types, copied in every format of tables. GUI thread.
#pragma once

#include <functional>

#include <QTimer>
#include <QWidget>

class QAbstractItemModel;
class QLineEdit;
class QSortFilterProxyModel;
class QTableView;

namespace switchyard {

class ElidedLabel;

class TablePanel : public QWidget {
  Q_OBJECT
 public:
  // refresh re-reads the data into the source model; called at most five times a second while visible.
  TablePanel(QAbstractItemModel* source, std::function<void()> refresh, QWidget* parent = nullptr);

  void data_changed();
  void focus_filter();
  void select_row(int row);  // of the source model; a filter that hides it is cleared
  QTableView* view() const { return view_; }
  QSortFilterProxyModel* rows() const { return rows_; }
  void refresh_now();

 protected:
  void showEvent(QShowEvent* event) override;

 private:
  std::function<void()> refresh_;
  QTimer throttle_;
  QSortFilterProxyModel* rows_;
  QTableView* view_;
  QLineEdit* filter_;
  ElidedLabel* count_;
  bool sized_ = false;
};

}  // namespace switchyard
