// The table twin model: Qt's own model rules, sorting, roles; and every view's twin under the model tester.
#include <gtest/gtest.h>

#include <QAbstractItemModelTester>
#include <QSignalSpy>

#include <cmath>
#include <memory>

#include "tests/views/fixture.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

TableData small_table() {
  return {{{"id", "", 0}, {"value", "nat", 2}, {"words", "", 0}},
          {int64_t(0), 0.1 + 0.2, std::string("b"), int64_t(1), std::nan(""), std::string("a"), int64_t(2), -1.5,
           std::string("c")}};
}

std::vector<qlonglong> first_column(const TableTwin& model) {
  std::vector<qlonglong> out;
  for (int row = 0; row < model.rowCount(); ++row)
    out.push_back(model.index(row, 0).data(TableTwin::kSortRole).toLongLong());
  return out;
}

TEST(TableTwin, ShowsRoundedAndCopiesExact) {
  TableTwin model;
  const QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::Fatal);
  model.set(small_table());
  EXPECT_EQ(model.index(0, 1).data().toString(), "0.30");
  EXPECT_EQ(model.index(0, 1).data(TableTwin::kCopyRole).toString().toDouble(), 0.1 + 0.2);
  EXPECT_EQ(model.index(1, 1).data().toString(), "–");
  EXPECT_EQ(model.headerData(1, Qt::Horizontal, Qt::ToolTipRole).toString(), "value [nat]");
}

TEST(TableTwin, SortsByNumberAndKeepsTheOrderWhenNumbersChange) {
  TableTwin model;
  const QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::Fatal);
  model.set(small_table());
  model.sort(1, Qt::DescendingOrder);
  EXPECT_EQ(first_column(model), (std::vector<qlonglong>{0, 2, 1}));
  model.sort(2, Qt::AscendingOrder);
  EXPECT_EQ(first_column(model), (std::vector<qlonglong>{1, 0, 2}));
  model.sort(1, Qt::AscendingOrder);
  TableData changed = small_table();
  changed.cells[1] = -9.0;
  const QPersistentModelIndex kept = model.index(2, 0);  // row of id 0, last in rising order
  ASSERT_EQ(kept.data(TableTwin::kSortRole).toLongLong(), 0);
  model.set(changed);
  EXPECT_EQ(first_column(model), (std::vector<qlonglong>{1, 0, 2})) << "NaN first, then -9, then -1.5";
  EXPECT_EQ(kept.data(TableTwin::kSortRole).toLongLong(), 0) << "persistent indexes follow their row";
}

TEST(TableTwin, ResetsOnlyWhenItsShapeChanges) {
  TableTwin model;
  model.set(small_table());
  QSignalSpy resets(&model, &QAbstractItemModel::modelReset), changes(&model, &QAbstractItemModel::dataChanged);
  model.set(small_table());
  EXPECT_EQ(resets.count(), 0);
  EXPECT_EQ(changes.count(), 1);
  model.set({});
  EXPECT_EQ(resets.count(), 1);
  EXPECT_EQ(model.rowCount(), 0);
}

TEST(EveryTable, PassesTheModelTesterWhileARunGrows) {
  for (const auto& view : make_builtin_views()) {
    SCOPED_TRACE(std::string(view->id()));
    Fixture run;
    std::unique_ptr<QAbstractTableModel> model(view->make_table(nullptr));
    const QAbstractItemModelTester tester(model.get(), QAbstractItemModelTester::FailureReportingMode::Fatal);
    RunData nothing;
    view->refresh_table(model.get(), nothing, run.selection, run.cursor);
    EXPECT_EQ(model->rowCount(), 0);
    EXPECT_GT(model->columnCount(), 3);
    view->refresh_table(model.get(), run.data, run.selection, run.cursor);
    for (int i = 0; i < 3; ++i) {
      run.add_tokens(7);
      run.shadow({{"native router", {}}});  // the comparison has no rows without a recipe
      view->refresh_table(model.get(), run.data, run.selection, run.cursor);
      EXPECT_GT(model->rowCount(), 0);
      model->sort(i, i % 2 ? Qt::DescendingOrder : Qt::AscendingOrder);
    }
    for (int column = 0; column < model->columnCount(); ++column) {
      EXPECT_FALSE(model->headerData(column, Qt::Horizontal).toString().isEmpty());
      EXPECT_TRUE(model->index(0, column).data(TableTwin::kCopyRole).isValid());
    }
  }
}

}  // namespace
}  // namespace switchyard
