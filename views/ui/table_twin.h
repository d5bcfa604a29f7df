// The Qt twin of a picture: the same numbers as a sortable table. A view fills TableData; one model serves
// all views. GUI thread only.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include <QAbstractTableModel>

namespace switchyard {

struct TableColumn {
  std::string title;
  std::string unit;    // "nat", "x uniform"; shown in the header's tooltip
  int digits = 0;      // decimals shown; the copy role gives full precision
};

// Nothing, a whole number, a real number or words.
using TableCell = std::variant<std::monostate, int64_t, double, std::string>;

struct TableData {
  std::vector<TableColumn> columns;
  std::vector<TableCell> cells;  // [rows, columns], row-major
  size_t rows() const { return columns.empty() ? 0 : cells.size() / columns.size(); }
};

class TableTwin : public QAbstractTableModel {
 public:
  enum Role {
    kSortRole = Qt::UserRole,      // the number itself, or the words
    kCopyRole = Qt::UserRole + 1,  // text in full precision
  };
  using QAbstractTableModel::QAbstractTableModel;

  // Keeps the order chosen by sort(). A change of shape resets the model, else only data changes.
  void set(TableData data);
  const TableData& table() const { return data_; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;
  void sort(int column, Qt::SortOrder order = Qt::AscendingOrder) override;

 private:
  const TableCell& cell(int row, int column) const;
  std::vector<int> sorted_rows() const;
  TableData data_;
  std::vector<int> order_;  // shown row -> row of data_
  int sort_column_ = -1;
  Qt::SortOrder sort_order_ = Qt::AscendingOrder;
};

}  // namespace switchyard
