#include "views/ui/table_twin.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace switchyard {
namespace {

QString shown(const TableCell& cell, int digits) {
  if (const auto* whole = std::get_if<int64_t>(&cell)) return QString::number(*whole);
  if (const auto* words = std::get_if<std::string>(&cell)) return QString::fromStdString(*words);
  if (const auto* real = std::get_if<double>(&cell)) {
    if (std::isnan(*real)) return QStringLiteral("–");
    if (std::isinf(*real)) return *real < 0 ? QStringLiteral("−∞") : QStringLiteral("∞");
    return QString::number(*real, 'f', digits);
  }
  return {};
}

QString exact(const TableCell& cell) {
  const auto* real = std::get_if<double>(&cell);
  return real ? QString::fromStdString(fmt::format("{}", *real)) : shown(cell, 0);
}

QVariant sortable(const TableCell& cell) {
  if (const auto* whole = std::get_if<int64_t>(&cell)) return QVariant::fromValue<qlonglong>(*whole);
  if (const auto* real = std::get_if<double>(&cell)) return *real;
  if (const auto* words = std::get_if<std::string>(&cell)) return QString::fromStdString(*words);
  return {};
}

// Empty cells and NaN first in rising order, then numbers, then words.
bool less(const TableCell& a, const TableCell& b) {
  const auto rank = [](const TableCell& c) {
    if (std::holds_alternative<std::string>(c)) return 2;
    const auto* real = std::get_if<double>(&c);
    return std::holds_alternative<std::monostate>(c) || (real && std::isnan(*real)) ? 0 : 1;
  };
  if (rank(a) != rank(b)) return rank(a) < rank(b);
  if (rank(a) == 2) return std::get<std::string>(a) < std::get<std::string>(b);
  if (rank(a) == 0) return false;
  const auto number = [](const TableCell& c) {
    const auto* whole = std::get_if<int64_t>(&c);
    return whole ? double(*whole) : std::get<double>(c);
  };
  return number(a) < number(b);
}

}  // namespace

const TableCell& TableTwin::cell(int row, int column) const {
  return data_.cells[size_t(order_[size_t(row)]) * data_.columns.size() + size_t(column)];
}

std::vector<int> TableTwin::sorted_rows() const {
  std::vector<int> order(data_.rows());
  std::iota(order.begin(), order.end(), 0);
  if (sort_column_ < 0 || sort_column_ >= int(data_.columns.size())) return order;
  const auto at = [this](int row) -> const TableCell& {
    return data_.cells[size_t(row) * data_.columns.size() + size_t(sort_column_)];
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return sort_order_ == Qt::AscendingOrder ? less(at(a), at(b)) : less(at(b), at(a));
  });
  return order;
}

void TableTwin::set(TableData data) {
  const bool same_columns =
      std::equal(data.columns.begin(), data.columns.end(), data_.columns.begin(), data_.columns.end(),
                 [](const TableColumn& a, const TableColumn& b) { return a.title == b.title && a.unit == b.unit; });
  if (!same_columns || data.rows() != data_.rows()) {
    beginResetModel();
    data_ = std::move(data);
    order_ = sorted_rows();
    endResetModel();
    return;
  }
  data_ = std::move(data);
  if (sort_column_ >= 0) sort(sort_column_, sort_order_);  // numbers moved: so do rows
  if (rowCount() > 0) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, columnCount() - 1));
}

int TableTwin::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : int(data_.rows());
}
int TableTwin::columnCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : int(data_.columns.size());
}

QVariant TableTwin::data(const QModelIndex& index, int role) const {
  if (!index.isValid() || index.row() >= rowCount() || index.column() >= columnCount()) return {};
  const TableCell& value = cell(index.row(), index.column());
  switch (role) {
    case Qt::DisplayRole:
      return shown(value, data_.columns[size_t(index.column())].digits);
    case Qt::TextAlignmentRole:
      return int((std::holds_alternative<std::string>(value) ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
    case kSortRole:
      return sortable(value);
    case kCopyRole:
      return exact(value);
    default:
      return {};
  }
}

QVariant TableTwin::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || section < 0 || section >= columnCount()) return {};
  const TableColumn& column = data_.columns[size_t(section)];
  if (role == Qt::DisplayRole) return QString::fromStdString(column.title);
  if (role == Qt::ToolTipRole)
    return QString::fromStdString(column.unit.empty() ? column.title : column.title + " [" + column.unit + "]");
  return {};
}

void TableTwin::sort(int column, Qt::SortOrder order) {
  sort_column_ = column;
  sort_order_ = order;
  Q_EMIT layoutAboutToBeChanged({}, QAbstractItemModel::VerticalSortHint);
  const std::vector<int> before = order_;
  order_ = sorted_rows();
  std::vector<int> place(order_.size());
  for (size_t i = 0; i < order_.size(); ++i) place[size_t(order_[i])] = int(i);
  for (const QModelIndex& old : persistentIndexList())
    changePersistentIndex(old, index(place[size_t(before[size_t(old.row())])], old.column()));
  Q_EMIT layoutChanged({}, QAbstractItemModel::VerticalSortHint);
}

}  // namespace switchyard
