// The Analysis panel from the user's hand: record, analyse, look, mute what a row names, undo; and what it refuses.
#include <fstream>
#include <iterator>

#include <QComboBox>
#include <QLineEdit>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QStandardItemModel>
#include <QTableView>

#include "app/gui/action_table.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/help_dialog.h"
#include "app/gui/result_picture.h"
#include "app/gui/table_panel.h"
#include "app/gui/workbench.h"
#include "tests/gui/support.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

class AnalysisWindow : public DemoWindow {
 protected:
  void SetUp() override {
    DemoWindow::SetUp();
    if (!HasFatalFailure()) window_->show_dock("analysis");
  }
  AnalysisPanel& panel() { return window_->analysis(); }
  template <class W>
  W* child(const char* name) { return panel().findChild<W*>(name); }
  // Presses Analyse and waits for the result.
  void analyse(const QString& name) {
    panel().choose(name);
    bool done = false;
    const auto connection = QObject::connect(&panel(), &AnalysisPanel::finished, [&] { done = true; });
    QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
    EXPECT_TRUE(wait_until([&] { return done; })) << newest_message();
    QObject::disconnect(connection);
  }
  void show_table(const char* prefix) {
    auto* tables = child<QComboBox>("analysis.table");
    for (int i = 0; i < tables->count(); ++i) {
      if (!tables->itemText(i).startsWith(QString(prefix) + " (")) continue;
      tables->setCurrentIndex(i);
      Q_EMIT tables->activated(i);
      ASSERT_TRUE(wait_until([&] { return panel().table().rows()->rowCount() == int(panel().result()->tables[size_t(i)].rows.size()); }));
      return;
    }
    FAIL() << "no table " << prefix;
  }
  const TemporaryFolder folder_;
};

TEST_F(AnalysisWindow, ARecordingIsAnalysedAndItsBusiestExpertMuted) {
  EXPECT_FALSE(child<QPushButton>("analysis.run")->isEnabled());  // nothing is recorded yet
  const auto path = folder_ / "run.moetrace.h5";
  model().record_to(path, false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  run("The router sends each token", 24);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path); }));
  ASSERT_TRUE(wait_until([&] { return child<QPushButton>("analysis.run")->isEnabled(); }));

  analyse("load");
  ASSERT_TRUE(panel().result());
  // The same counts as the live run has.
  ASSERT_EQ(panel().result()->shape.tokens, model().data().tokens());
  const auto& layers = panel().result()->object["layers"];
  ASSERT_EQ(layers.size(), 8u);
  for (int row = 0; row < 8; ++row) {
    const auto counts = model().data().load_all->counts(row);
    EXPECT_EQ(layers[size_t(row)]["counts"].get<std::vector<uint64_t>>(), std::vector<uint64_t>(counts.begin(), counts.end()));
  }
  show_table("layers.values");
  EXPECT_TRUE(panel().picture().is_heat_map());
  EXPECT_FALSE(child<QPushButton>("analysis.mute")->isEnabled());

  // The row of layer 2 with the largest count.
  QTableView* view = panel().table().view();
  const QSortFilterProxyModel* rows = panel().table().rows();
  const auto column = [&](const QString& title) {
    for (int c = 0; c < rows->columnCount(); ++c)
      if (rows->headerData(c, Qt::Horizontal).toString() == title) return c;
    return -1;
  };
  const auto value = [&](int row, const char* title) { return rows->index(row, column(title)).data(TableTwin::kSortRole).toInt(); };
  int busiest = -1;
  for (int r = 0; r < rows->rowCount(); ++r)
    if (value(r, "layer") == 2 && (busiest < 0 || value(r, "counts") > value(busiest, "counts"))) busiest = r;
  ASSERT_GE(busiest, 0);
  const auto expert = ExpertId(value(busiest, "index"));
  view->selectRow(busiest);
  ASSERT_TRUE(wait_until([&] { return child<QPushButton>("analysis.mute")->isEnabled(); }));
  QTest::mouseClick(child<QPushButton>("analysis.mute"), Qt::LeftButton);
  const auto muted = [&] {
    const Recipe* recipe = model().recipe_ahead();
    const LayerRecipe* layer = recipe ? recipe->layer(2) : nullptr;
    return layer != nullptr && layer->muted.size() > expert && layer->muted[expert] != 0;
  };
  ASSERT_TRUE(wait_until(muted)) << newest_message();
  window_->actions().run("edit.undo");
  EXPECT_TRUE(wait_until([&] { return !muted(); }));

  // Hovering tells a number of the table.
  const QRect inside = panel().picture().rect().adjusted(80, 40, -30, -50);
  EXPECT_TRUE(panel().picture().value_at(inside.center()).contains("counts"));
  panel().picture().grab();  // paints
}

TEST_F(AnalysisWindow, WhatExpertsGaveFeedsThePruningCriteria) {
  const auto path = folder_ / "tapped.moetrace.h5";
  window_->actions().run("run.taps");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->taps == (Taps::kOutNorm | Taps::kBlockCos); }));
  EXPECT_TRUE(window_->actions().action("run.taps")->isChecked());
  model().record_to(path, false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  EXPECT_FALSE(window_->actions().action("run.taps")->isEnabled());
  run("The router sends each token", 16);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path) && child<QPushButton>("analysis.run")->isEnabled(); }));
  analyse("saliency");
  ASSERT_TRUE(panel().result());
  EXPECT_FALSE(panel().result()->object.contains("missing"));
  // Every norm that was measured is that of a frame.
  double sum = 0;
  for (uint64_t t = 0; t < model().data().tokens(); ++t)
    for (const float norm : model().data().frames[t]->out_norms(3)) sum += norm;
  double total = 0;
  for (const auto& value : panel().result()->object["layers"][3]["ean_sum"]) total += value.get<double>();
  EXPECT_GT(total, 0);
  EXPECT_NEAR(total, sum, 1e-4 * sum);
  show_table("layers.values");
}

TEST_F(AnalysisWindow, GreysWhatATraceCannotFeedAndNamesWrongOptions) {
  const auto path = folder_ / "ids.moetrace.h5";
  model().set_capture(CaptureLevel::kIds);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->capture == CaptureLevel::kIds; }));
  model().record_to(path, false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  run("One two three", 8);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path); }));
  window_->open_path(QString::fromStdString(path.string()));
  ASSERT_TRUE(wait_until([&] { return model().has_trace(); })) << newest_message();
  const auto* items = qobject_cast<QStandardItemModel*>(child<QComboBox>("analysis.choice")->model());
  const auto enabled = [&](const char* name) { return items->item(child<QComboBox>("analysis.choice")->findData(name))->isEnabled(); };
  EXPECT_TRUE(enabled("load"));
  EXPECT_FALSE(enabled("domain"));
  EXPECT_FALSE(enabled("logit-similarity"));

  panel().choose("srp");
  child<QLineEdit>("analysis.option.windows")->setText("4,x");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  EXPECT_NE(newest_message().find("4,x"), std::string::npos) << newest_message();
  child<QLineEdit>("analysis.option.windows")->setText("2,4");
  analyse("srp");
  EXPECT_EQ(panel().result()->object["windows"].size(), 2u);
  child<QLineEdit>("analysis.layers")->setText("99");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  EXPECT_TRUE(wait_until([&] { return newest_message().find("no routing of layer 99") != std::string::npos; })) << newest_message();
  EXPECT_EQ(panel().result()->name, "srp");  // what was there stays
}

TEST_F(AnalysisWindow, EveryAnalysisHasItsRowInTheHelpPage) {
  const QString page = help_page("analyses");
  for (const AnalysisInfo& info : analyses()) EXPECT_TRUE(page.contains(QString("| `%1` |").arg(info.name))) << info.name;
  EXPECT_EQ(window_->workbench().dock("analysis")->help_page(), "analyses");
}

// A pair list is a line; a grid of layers and experts a heat map; a cell without a number stays empty.
TEST(ResultPicture, ChoosesTheFormByTheTable) {
  ResultTable grid{"layers.values", {"layer", "index", "counts"}, {}};
  for (int layer = 0; layer < 3; ++layer)
    for (int e = 0; e < 4; ++e) grid.rows.push_back({layer, e, layer == 1 && e == 2 ? nlohmann::ordered_json() : nlohmann::ordered_json(layer * 4 + e)});
  ResultPicture picture;
  picture.resize(400, 300);
  EXPECT_EQ(ResultPicture::quantities(grid), QStringList{"counts"});
  picture.show_table(grid, "counts");
  EXPECT_TRUE(picture.is_heat_map());
  EXPECT_TRUE(picture.value_at({390 - 5, 60}).contains("layer 0, index 3: counts 3"));
  picture.grab();
  ResultTable line{"layers", {"layer", "cv"}, {{0, 0.5}, {1, nullptr}, {2, 0.25}}};
  picture.show_table(line, "cv");
  EXPECT_FALSE(picture.is_heat_map());
  EXPECT_TRUE(picture.value_at({395 - 30, 150}).contains("layer 2: cv 0.25")) << picture.value_at({365, 150}).toStdString();
  picture.grab();
  ResultTable pairs{"top_pairs", {"layer", "i", "j", "count"}, {{0, 1, 2, 9}, {0, 3, 4, 7}, {1, 5, 6, 5}}};
  picture.show_table(pairs, "count");
  EXPECT_FALSE(picture.is_heat_map());
}

}  // namespace
}  // namespace switchyard
