// A table as text: what is visible, in the order shown. Pure; GUI thread because models are.
#pragma once

#include <QString>

#include "engine/analysis/result_table.h"

class QAbstractItemModel;

namespace switchyard {

enum class TableFormat { kCsv, kTsv, kMarkdown, kLatex, kNumpy, kJson };

// The rows and columns of the model as it stands: numbers where it has them, else the words shown.
ResultTable shown_table(const QAbstractItemModel& model, const QString& name = {});
QString table_as_text(const ResultTable& table, TableFormat format);
QString table_as_text(const QAbstractItemModel& model, TableFormat format);

}  // namespace switchyard
