// Table twins and copies: sound models, the numbers of the picture, formats by their rules.
#include "app/gui/table_copy.h"

#include <QAbstractItemModelTester>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QSortFilterProxyModel>
#include <QStandardItemModel>
#include <QTableView>

#include "app/gui/docks/history_model.h"
#include "app/gui/table_panel.h"
#include "app/gui/workbench.h"
#include "tests/gui/support.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

TEST(TableCopy, CsvQuotesAndGuardsFormulas) {
  QStandardItemModel model(2, 2);
  model.setHorizontalHeaderLabels({"text", "a,b"});
  model.setItem(0, 0, new QStandardItem("=1+1"));
  model.setItem(0, 1, new QStandardItem("say \"so\"\n"));
  model.setItem(1, 0, new QStandardItem("plain"));
  model.setData(model.index(1, 1), 0.1);
  EXPECT_EQ(table_as_text(model, TableFormat::kCsv), "text,\"a,b\"\r\n'=1+1,\"say \"\"so\"\"\n\"\r\nplain,0.1\r\n");
}

TEST(TableCopy, MarkdownEscapesPipesAndHtml) {
  QStandardItemModel model(1, 1);
  model.setHorizontalHeaderLabels({"x"});
  model.setItem(0, 0, new QStandardItem("a|<b>"));
  EXPECT_EQ(table_as_text(model, TableFormat::kMarkdown), "| x |\n| --- |\n| a\\|&lt;b&gt; |\n");
}

TEST(TableCopy, JsonKeepsNumbersNumbers) {
  QStandardItemModel model(1, 2);
  model.setHorizontalHeaderLabels({"n", "s"});
  model.setData(model.index(0, 0), 2.5);
  model.setItem(0, 1, new QStandardItem("2.5"));
  const QJsonObject object = QJsonDocument::fromJson(table_as_text(model, TableFormat::kJson).toUtf8()).object();
  EXPECT_EQ(object["schema"].toInt(), 1);
  const QJsonArray row = object["rows"].toArray()[0].toArray();
  EXPECT_TRUE(row[0].isDouble());
  EXPECT_TRUE(row[1].isString());
}

class Tables : public DemoWindow {};

TEST_F(Tables, EveryTwinIsASoundModelWhileTokensArrive) {
  std::vector<std::unique_ptr<QAbstractItemModelTester>> testers;
  for (LiveDock* dock : window_->live_docks()) {
    dock->show();  // Compare is closed at first
    dock->show_table(true);
    testers.push_back(std::make_unique<QAbstractItemModelTester>(
        dock->table_panel()->rows()->sourceModel(), QAbstractItemModelTester::FailureReportingMode::Fatal));
  }
  HistoryModel history(model());
  QAbstractItemModelTester history_tester(&history, QAbstractItemModelTester::FailureReportingMode::Fatal);
  model().add_shadow("native router", {});  // what Compare has rows of
  run("def add(a, b):", 24);
  model().edit({Mute{LayerSet{{0}}, {1}}, std::nullopt});
  run("Et le roi dit:", 8);
  ASSERT_TRUE(wait_until([&] { return history.rowCount() == 2; }));
  for (LiveDock* dock : window_->live_docks()) {
    dock->table_panel()->data_changed();
    EXPECT_TRUE(wait_until([&] { return dock->table_panel()->rows()->rowCount() > 0; }))
        << dock->objectName().toStdString();
    dock->show_table(false);
  }
}

// The load table and the bars of the picture come from the same counts.
TEST_F(Tables, LoadTwinHasTheValuesOfThePicture) {
  run("2 + 3 = 5\n", 32);
  LiveDock* dock = window_->live_dock("expert_load");
  ASSERT_TRUE(wait_until([&] { return dock->live()->items().find("expert 0").has_value(); }));
  auto* twin = static_cast<QAbstractTableModel*>(dock->table_panel()->rows()->sourceModel());
  dock->view().refresh_table(twin, model().data(), model().selection(), model().cursor());
  QTest::qWait(200);
  int compared = 0;
  for (int r = 0; r < twin->rowCount(); ++r) {
    const int expert = twin->index(r, 0).data(TableTwin::kSortRole).toInt();
    const auto item = dock->live()->items().find("expert " + std::to_string(expert));
    ASSERT_TRUE(item) << expert;
    EXPECT_DOUBLE_EQ(item->value, twin->index(r, 1).data(TableTwin::kSortRole).toDouble()) << expert;
    ++compared;
  }
  EXPECT_EQ(compared, 32);  // experts of the demo
}

TEST_F(Tables, SortsByNumberAndFilters) {
  run("2 + 3 = 5\n", 16);
  LiveDock* dock = window_->live_dock("expert_load");
  dock->show_table(true);
  auto* rows = dock->table_panel()->rows();
  ASSERT_TRUE(wait_until([&] { return rows->rowCount() == 32; }));
  rows->sort(1, Qt::DescendingOrder);
  for (int r = 0; r + 1 < rows->rowCount(); ++r)
    EXPECT_GE(rows->index(r, 1).data(TableTwin::kSortRole).toDouble(),
              rows->index(r + 1, 1).data(TableTwin::kSortRole).toDouble());
  const QString csv = table_as_text(*rows, TableFormat::kCsv);
  EXPECT_EQ(csv.count("\r\n"), 33);
}

TEST_F(Tables, CtrlTSwapsPictureAndTable) {
  LiveDock* dock = window_->live_dock("routing_heatmap");
  dock->setFocus();
  ASSERT_TRUE(wait_until([&] { return window_->workbench().focused() == dock; }, 5000));
  window_->actions();
  QTest::keyClick(QApplication::focusWidget(), Qt::Key_T, Qt::ControlModifier);
  EXPECT_TRUE(dock->shows_table());
  QTest::keyClick(QApplication::focusWidget(), Qt::Key_T, Qt::ControlModifier);
  EXPECT_FALSE(dock->shows_table());
}

}  // namespace
}  // namespace switchyard
