// CSV per RFC 4180 with a header row and a formula guard; TSV; GitHub Markdown; JSON with a schema number.
#include "app/gui/table_copy.h"

#include <QAbstractItemModel>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QLocale>
#include <QStringList>

#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

QString text_of(const QVariant& value) {
  if (value.typeId() == QMetaType::Double || value.typeId() == QMetaType::Float)
    return QLocale::c().toString(value.toDouble(), 'g', QLocale::FloatingPointShortest);
  return value.toString();
}

bool is_number(const QVariant& value) {
  switch (value.typeId()) {
    case QMetaType::Int:
    case QMetaType::UInt:
    case QMetaType::LongLong:
    case QMetaType::ULongLong:
    case QMetaType::Double:
    case QMetaType::Float:
      return true;
    default:
      return false;
  }
}

// A cell that a spreadsheet would run as a formula is quoted with an apostrophe.
QString csv_cell(const QVariant& value) {
  QString text = text_of(value);
  if (!is_number(value) && !text.isEmpty() && QString("=+-@\t\r").contains(text[0])) text.prepend('\'');
  if (text.contains('"') || text.contains(',') || text.contains('\n') || text.contains('\r'))
    text = '"' + text.replace("\"", "\"\"") + '"';
  return text;
}

QString tsv_cell(const QVariant& value) {
  return text_of(value).replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
}

QString markdown_cell(const QVariant& value) {
  QString text = text_of(value).replace('\\', "\\\\").replace('|', "\\|").replace('\n', " ").replace('\r', " ");
  return text.replace('<', "&lt;");
}

// The number itself where the model has one, else the words shown.
QVariant cell(const QAbstractItemModel& model, int row, int column) {
  const QModelIndex index = model.index(row, column);
  const QVariant value = index.data(TableTwin::kSortRole);
  return is_number(value) ? value : index.data(Qt::DisplayRole);
}

QString as_lines(const QAbstractItemModel& model, QString (*escape)(const QVariant&), const QString& before,
                 const QString& between, const QString& after, const QString& end, bool rule) {
  QString out;
  QStringList header, dashes;
  for (int c = 0; c < model.columnCount(); ++c) {
    header << escape(model.headerData(c, Qt::Horizontal));
    dashes << "---";
  }
  out += before + header.join(between) + after + end;
  if (rule) out += before + dashes.join(between) + after + end;
  for (int r = 0; r < model.rowCount(); ++r) {
    QStringList cells;
    for (int c = 0; c < model.columnCount(); ++c) cells << escape(cell(model, r, c));
    out += before + cells.join(between) + after + end;
  }
  return out;
}

QString as_json(const QAbstractItemModel& model) {
  QJsonArray columns, rows;
  for (int c = 0; c < model.columnCount(); ++c) columns.append(model.headerData(c, Qt::Horizontal).toString());
  for (int r = 0; r < model.rowCount(); ++r) {
    QJsonArray row;
    for (int c = 0; c < model.columnCount(); ++c) {
      const QVariant value = cell(model, r, c);
      row.append(is_number(value) ? QJsonValue::fromVariant(value) : QJsonValue(value.toString()));
    }
    rows.append(row);
  }
  return QString::fromUtf8(QJsonDocument(QJsonObject{{"schema", 1}, {"columns", columns}, {"rows", rows}}).toJson());
}

}  // namespace

QString table_as_text(const QAbstractItemModel& model, TableFormat format) {
  switch (format) {
    case TableFormat::kCsv:
      return as_lines(model, csv_cell, "", ",", "", "\r\n", false);
    case TableFormat::kTsv:
      return as_lines(model, tsv_cell, "", "\t", "", "\n", false);
    case TableFormat::kMarkdown:
      return as_lines(model, markdown_cell, "| ", " | ", " |", "\n", true);
    case TableFormat::kJson:
      return as_json(model);
  }
  return {};
}

}  // namespace switchyard
