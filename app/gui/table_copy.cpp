// A model as a table of the engine, which writes all formats. GUI thread.
#include "app/gui/table_copy.h"

#include <cmath>

#include <QAbstractItemModel>

#include "engine/report/table_text.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

using Document = nlohmann::ordered_json;

// The number itself where the model has one, else the words shown.
Document cell_of(const QModelIndex& index) {
  const QVariant value = index.data(TableTwin::kSortRole);
  switch (value.typeId()) {
    case QMetaType::Int:
    case QMetaType::LongLong: return value.toLongLong();
    case QMetaType::UInt:
    case QMetaType::ULongLong: return value.toULongLong();
    case QMetaType::Double:
    case QMetaType::Float: return std::isnan(value.toDouble()) ? Document() : Document(value.toDouble());
    default: break;
  }
  const QVariant shown = index.data(Qt::DisplayRole);
  switch (shown.typeId()) {
    case QMetaType::Double: return shown.toDouble();
    case QMetaType::Int: return shown.toInt();
    default: return shown.toString().toStdString();
  }
}

}  // namespace

ResultTable shown_table(const QAbstractItemModel& model, const QString& name) {
  ResultTable out{name.toStdString(), {}, {}};
  for (int c = 0; c < model.columnCount(); ++c) out.columns.push_back(model.headerData(c, Qt::Horizontal).toString().toStdString());
  for (int r = 0; r < model.rowCount(); ++r) {
    auto& row = out.rows.emplace_back();
    for (int c = 0; c < model.columnCount(); ++c) row.push_back(cell_of(model.index(r, c)));
  }
  return out;
}

QString table_as_text(const ResultTable& table, TableFormat format) {
  std::string text;
  switch (format) {
    case TableFormat::kCsv: text = csv_of(table); break;
    case TableFormat::kTsv: text = tsv_of(table); break;
    case TableFormat::kMarkdown: text = markdown_of(table); break;
    case TableFormat::kLatex: text = latex_of(table, table.name); break;
    case TableFormat::kNumpy: text = numpy_of(table); break;
    case TableFormat::kJson: text = json_of(table); break;
  }
  return QString::fromStdString(text);
}

QString table_as_text(const QAbstractItemModel& model, TableFormat format) { return table_as_text(shown_table(model), format); }

}  // namespace switchyard
