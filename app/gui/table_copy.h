// A table as text: what is visible, in the order shown. Pure; GUI thread because models are.
#pragma once

#include <QString>

class QAbstractItemModel;

namespace switchyard {

enum class TableFormat { kCsv, kTsv, kMarkdown, kJson };
QString table_as_text(const QAbstractItemModel& model, TableFormat format);

}  // namespace switchyard
