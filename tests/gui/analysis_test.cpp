// The Analysis panel from the user's hand: record, analyse, look, mute what a row names, undo; and what it refuses.
#include <fstream>
#include <iterator>

#include <QComboBox>
#include <QLineEdit>
#include <QProcess>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QStandardItemModel>
#include <QTableView>

#include "app/gui/action_table.h"
#include "app/gui/dock.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/option_form.h"
#include "app/gui/help_dialog.h"
#include "app/gui/placement_picture.h"
#include "app/gui/result_picture.h"
#include "app/gui/style.h"
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
  // A finished recording of the demo; its trace is what the panel reads.
  void record(const char* prompt, uint64_t tokens) {
    const auto path = folder_ / "run.moetrace.h5";
    model().record_to(path, false);
    ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
    run(prompt, tokens);
    model().stop_recording();
    ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path); }));
    ASSERT_TRUE(wait_until([&] { return child<QPushButton>("analysis.run")->isEnabled(); }));
  }
  // The document that the command line would print of the same trace.
  nlohmann::ordered_json document(const char* name, const std::vector<std::pair<const char*, const char*>>& given) {
    const StudyInfo& info = *find_study(name);
    StudyOptions options(info.options);
    for (const auto& [option, value] : given) EXPECT_TRUE(options.set(option, value));
    std::vector<std::unique_ptr<TraceReader>> readers(1);
    auto reader = TraceReader::open(folder_ / "run.moetrace.h5");
    EXPECT_TRUE(reader);
    readers[0] = std::move(*reader);
    auto walk = TraceWalk::of(std::move(readers));
    EXPECT_TRUE(walk);
    Task task;
    auto result = run_study(info, options, {&*walk}, task);
    EXPECT_TRUE(result) << result.error().message();
    return result ? result->document : nlohmann::ordered_json();
  }
  std::string content_of(const std::filesystem::path& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
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
  record("The router sends each token", 24);

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
  EXPECT_FALSE(window_->actions().action("run.taps_ahead")->isChecked());
  window_->actions().run("run.taps_ahead");
  ASSERT_TRUE(wait_until([&] { return window_->actions().action("run.taps_ahead")->isChecked(); }));
  model().record_to(path, false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  EXPECT_FALSE(window_->actions().action("run.taps")->isEnabled());
  run("The router sends each token", 16);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(path) && child<QPushButton>("analysis.run")->isEnabled(); }));
  analyse("load-over-time");
  show_table("layers.windows");
  EXPECT_TRUE(panel().picture().is_heat_map());
  analyse("affinity");
  show_table("transitions.topk.top_pairs");
  EXPECT_TRUE(panel().picture().is_flow());
  EXPECT_TRUE(panel().picture().accessibleDescription().contains("→ layer"));
  analyse("next-layer-prediction");
  ASSERT_TRUE(panel().result());
  for (const auto& one : panel().result()->object["transitions"]) EXPECT_EQ(one["gate_tokens"], one["tokens"]);
  analyse("saliency");
  ASSERT_TRUE(panel().result());
  EXPECT_FALSE(panel().result()->object.contains("missing"));
  child<QLineEdit>("analysis.option.keep")->setText("24");
  analyse("saliency");
  show_table("layers.criteria.values");
  EXPECT_TRUE(panel().picture().is_heat_map());
  const QRect cells = panel().picture().rect().adjusted(120, 40, -20, -50);
  int pruned = 0;
  for (int x = cells.left(); x < cells.right(); x += 3) pruned += panel().picture().value_at({x, cells.center().y()}).endsWith(", pruned");
  EXPECT_GT(pruned, 0);
  EXPECT_LT(pruned, cells.width() / 3);
  panel().picture().grab();
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

TEST_F(AnalysisWindow, ComparesTwoTraces) {
  record("The router sends each token", 12);
  const auto other = folder_ / "other.moetrace.h5";
  std::filesystem::copy_file(folder_ / "run.moetrace.h5", other);
  panel().choose("trace compare");
  EXPECT_EQ(child<QPushButton>("analysis.run")->text(), "Compare");
  child<QComboBox>("analysis.option.other")->setCurrentText(QString::fromStdString((folder_ / "none.moetrace.h5").string()));
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return newest_message().find("none.moetrace.h5") != std::string::npos; })) << newest_message();
  child<QComboBox>("analysis.option.other")->setCurrentText(QString::fromStdString(other.string()));
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return panel().result().has_value(); })) << newest_message();
  EXPECT_EQ(panel().result()->object["equal_tokens"], panel().result()->object["tokens"]);
  EXPECT_EQ(panel().result()->object["layers"].size(), 8u);
  show_table("layers");
}

TEST_F(AnalysisWindow, CachePoliciesStandSideBySide) {
  record("The router sends each token", 24);
  panel().choose("simulate cache");
  EXPECT_EQ(child<QPushButton>("analysis.run")->text(), "Simulate");
  child<QLineEdit>("analysis.option.policies")->setText("lru,mru");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  EXPECT_NE(newest_message().find("\"mru\" is no cache policy"), std::string::npos) << newest_message();
  EXPECT_FALSE(panel().result());
  child<QLineEdit>("analysis.option.policies")->setText("lru,belady,plec");
  child<QComboBox>("analysis.option.start")->setCurrentText("warm");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return panel().result().has_value(); })) << newest_message();
  EXPECT_EQ(panel().result()->object, document("cache", {{"policies", "lru,belady,plec"}, {"start", "warm"}}));

  // A line for each policy; the tooltip holds the numbers of the table.
  ResultPicture& picture = panel().picture();
  EXPECT_FALSE(picture.is_heat_map());
  EXPECT_EQ(picture.series(), (QStringList{"lru", "belady", "plec"}));
  const auto& sizes = panel().result()->object["policies"][1]["sizes"];
  const QString rate = QString::number(sizes.back()["hit_rate"].get<double>(), 'g', 7);
  const QString words = picture.value_at({picture.width() - 20, picture.height() / 2});
  EXPECT_TRUE(words.contains(QString("policy belady, slots %1: hit_rate %2").arg(sizes.back()["slots"].get<int>()).arg(rate))) << words.toStdString();
  EXPECT_EQ(words.count('\n'), 2);
  EXPECT_TRUE(child<ElidedLabel>("analysis.notes")->full_text().contains("plec forecasts from transitions of this very trace"));
  EXPECT_FALSE(child<QPushButton>("analysis.use")->isVisible());
  EXPECT_FALSE(child<QPushButton>("analysis.mute")->isVisible());
  picture.grab();  // paints

  const auto file = folder_ / "sizes.csv";
  ASSERT_TRUE(panel().save_to(QString::fromStdString(file.string())));
  EXPECT_EQ(content_of(file), csv_of(panel().result()->tables[size_t(child<QComboBox>("analysis.table")->currentIndex())]));
}

TEST_F(AnalysisWindow, APlacementIsShownSavedAndUsed) {
  record("The router sends each token", 24);
  panel().choose("place load");
  child<QLineEdit>("analysis.option.gpus")->setText("5");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  EXPECT_TRUE(wait_until([&] { return newest_message().find("32 experts do not divide evenly over 5 GPUs") != std::string::npos; })) << newest_message();
  child<QLineEdit>("analysis.option.gpus")->setText("8");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return panel().result().has_value(); })) << newest_message();
  const auto placed = panel().result()->object;
  EXPECT_EQ(placed, document("load", {{"gpus", "8"}}));

  // The matrix after placing stands on the right of the one before; each cell tells both.
  PlacementPicture& picture = panel().placement();
  ASSERT_TRUE(picture.isVisible());
  picture.resize(800, 300);
  picture.grab();
  const QString last = picture.value_at({picture.width() - 10, picture.height() - 50});
  EXPECT_EQ(last, QString("layer 7, expert 31: GPU %1; contiguous: GPU 7").arg(placed["placement"][7][31].get<int>()));
  EXPECT_EQ(panel().table().rows()->rowCount(), 8 * 32);

  const auto file = folder_ / "placement.json";
  ASSERT_TRUE(panel().save_to(QString::fromStdString(file.string())));
  EXPECT_EQ(nlohmann::ordered_json::parse(content_of(file)), placed);

  // Used, it moves the traffic as the saved file does.
  QTest::mouseClick(child<QPushButton>("analysis.use"), Qt::LeftButton);
  EXPECT_EQ(child<QComboBox>("analysis.choice")->currentData().toString(), "simulate traffic");
  EXPECT_EQ(child<QLineEdit>("analysis.option.gpus")->text(), "8");
  EXPECT_EQ(child<QComboBox>("analysis.option.placement")->currentText(), "load on 8 GPUs");
  const auto finish = [&] {
    bool done = false;
    const auto connection = QObject::connect(&panel(), &AnalysisPanel::finished, [&] { done = true; });
    QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
    EXPECT_TRUE(wait_until([&] { return done; })) << newest_message();
    QObject::disconnect(connection);
  };
  finish();
  EXPECT_EQ(panel().result()->object["placement"], "load on 8 GPUs");
  EXPECT_EQ(panel().result()->object["layers"], document("traffic", {{"gpus", "8"}, {"placement", file.c_str()}})["layers"]);
  EXPECT_FALSE(child<QPushButton>("analysis.use")->isVisible());
  child<QComboBox>("analysis.option.placement")->setCurrentText("");
  finish();
  EXPECT_EQ(panel().result()->object, document("traffic", {{"gpus", "8"}}));
}

TEST_F(AnalysisWindow, APlanOfCopiesAgesFromWindowToWindow) {
  record("The router sends each token", 24);
  panel().choose("place eplb");
  child<QLineEdit>("analysis.option.gpus")->setText("4");
  child<QLineEdit>("analysis.option.window")->setText("5");
  QTest::mouseClick(child<QPushButton>("analysis.run"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return panel().result().has_value(); })) << newest_message();
  EXPECT_EQ(panel().result()->object, document("eplb", {{"gpus", "4"}, {"window", "5"}}));
  show_table("staleness.windows");
  ResultPicture& picture = panel().picture();
  ASSERT_TRUE(picture.isVisible());
  EXPECT_EQ(picture.series(), (QStringList{"previous", "own", "whole", "contiguous"}));
  show_table("staleness.layers");
  EXPECT_EQ(picture.series().size(), 4);
}

TEST_F(AnalysisWindow, EveryStudyOfTheListRunsFromItsForm) {
  record("The router sends each token", 24);
  for (const StudyInfo& info : studies()) {
    if (info.kind == StudyKind::kComparison) continue;  // needs a second trace: ComparesTwoTraces
    SCOPED_TRACE(info.name);
    panel().choose(QString::fromStdString(command_of(info)));
    if (auto* sweeps = child<QLineEdit>("analysis.option.sweeps")) sweeps->setText("50");
    analyse(QString::fromStdString(command_of(info)));
    ASSERT_TRUE(panel().result());
    EXPECT_EQ(panel().result()->study, &info);
    // What the list says is shown first is there.
    const auto& table = panel().result()->tables[size_t(child<QComboBox>("analysis.table")->currentIndex())];
    EXPECT_EQ(table.name, info.table);
    EXPECT_NE(std::find(table.columns.begin(), table.columns.end(), info.quantity), table.columns.end());
    panel().grab();
  }
}

// Two domains by `score --texts`; the points are those of the table's rows, whatever its order and filter.
TEST_F(AnalysisWindow, APointOfTheVolcanoSelectsItsRowAndExpert) {
  const auto texts = folder_ / "texts.jsonl", path = folder_ / "run.moetrace.h5";
  {
    std::ofstream out(texts);
    for (const char* text : {"And the king said unto the people, behold", "In the beginning God created the heaven"})
      out << nlohmann::json{{"text", text}, {"domain", "bible"}} << "\n";
    for (const char* text : {"def read_lines(path, encoding):", "for i in range(10):\n    print(i)\n"})
      out << nlohmann::json{{"text", text}, {"domain", "python"}} << "\n";
  }
  QProcess score;
  score.start(SWITCHYARD_PROGRAM, {"score", "demo", "--texts", QString::fromStdString(texts.string()), "--trace", QString::fromStdString(path.string())});
  ASSERT_TRUE(score.waitForFinished(60'000) && score.exitCode() == 0) << score.readAllStandardError().toStdString();
  window_->open_path(QString::fromStdString(path.string()));
  ASSERT_TRUE(wait_until([&] { return model().has_trace(); })) << newest_message();
  analyse("cohort");
  ResultPicture& picture = panel().picture();
  ASSERT_TRUE(picture.is_volcano() && wait_until([&] { return picture.isVisible() && picture.width() > 100; }));
  EXPECT_EQ(picture.series(), (QStringList{"more in bible", "more in python"}));

  QTableView* view = panel().table().view();
  QAbstractItemModel* shown = view->model();
  const auto column = [&](const char* name) {
    for (int c = 0; c < shown->columnCount(); ++c)
      if (shown->headerData(c, Qt::Horizontal).toString() == name) return c;
    return -1;
  };
  view->sortByColumn(column("q"), Qt::AscendingOrder);
  const auto cell = [&](int row, const char* name) { return shown->index(row, column(name)).data(TableTwin::kSortRole).toInt(); };
  // The surest of all, and one far down, which the table must scroll to.
  const auto click = [&](int row) {
    const int source = panel().table().rows()->mapToSource(shown->index(row, 0)).row();
    const auto at = picture.place_of(size_t(source));
    EXPECT_TRUE(at);
    QTest::mouseClick(&picture, Qt::LeftButton, {}, at->toPoint());
    return picture.value_at(at->toPoint()).section('\n', 0, 0);
  };
  for (const int row : {0, 60}) {
    const int layer = cell(row, "layer"), expert = cell(row, "index");
    const QString words = click(row);
    const QModelIndexList chosen = view->selectionModel()->selectedRows();
    ASSERT_EQ(chosen.size(), 1);
    // Points may lie on one another: the one that the tooltip names first is the one that is chosen.
    const int found = chosen[0].row();
    EXPECT_TRUE(words.startsWith(QString("layer %1, expert %2:").arg(cell(found, "layer")).arg(cell(found, "index")))) << words.toStdString();
    EXPECT_EQ(model().model_layer(), cell(found, "layer"));
    EXPECT_EQ(model().selection().expert, cell(found, "index"));
    EXPECT_TRUE(view->viewport()->rect().intersects(view->visualRect(chosen[0])));
    EXPECT_TRUE(row > 0 || (layer == cell(found, "layer") && expert == cell(found, "index")));
  }
  // A filter that hides the row goes.
  const int layer = cell(0, "layer"), expert = cell(0, "index");
  panel().table().findChild<QLineEdit*>()->setText("no such row");
  ASSERT_EQ(shown->rowCount(), 0);
  const auto& table = panel().result()->tables[size_t(child<QComboBox>("analysis.table")->currentIndex())];
  const auto at = std::find_if(table.rows.begin(), table.rows.end(), [&](const auto& row) { return row[0] == layer && row[1] == expert; });
  ASSERT_NE(at, table.rows.end());
  QTest::mouseClick(&picture, Qt::LeftButton, {}, picture.place_of(size_t(at - table.rows.begin()))->toPoint());
  EXPECT_EQ(shown->rowCount(), int(table.rows.size()));
  EXPECT_EQ(model().selection().expert, expert);
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
  EXPECT_TRUE(enabled("simulate cache"));
  EXPECT_TRUE(enabled("place affinity"));

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

// The smallest window: results and their buttons push no panel over another, whatever the result.
TEST_F(AnalysisWindow, NoPanelLiesOnAnotherInASmallWindow) {
  window_->resize(900, 600);
  window_->workbench().arrange_default();
  record("The king said unto the people", 24);
  window_->show_dock("analysis");
  for (const char* name : {"load", "coactivation", "simulate cache", "place affinity"}) {
    analyse(name);
    QTest::qWait(100);
    EXPECT_EQ(window_->size(), QSize(900, 600)) << name;
    std::vector<Dock*> shown;
    for (Dock* dock : window_->workbench().docks())
      if (!dock->visibleRegion().isEmpty()) shown.push_back(dock);
    for (const Dock* one : shown)
      for (const Dock* other : shown)
        EXPECT_TRUE(one == other || !one->geometry().intersects(other->geometry()))
            << name << ": " << one->objectName().toStdString() << " on " << other->objectName().toStdString();
  }
}

TEST_F(AnalysisWindow, EveryAnalysisHasItsRowInTheHelpPage) {
  const QString page = help_page("analyses");
  for (const AnalysisInfo& info : analyses()) EXPECT_TRUE(page.contains(QString("| `%1` |").arg(info.name))) << info.name;
  EXPECT_EQ(window_->workbench().dock("analysis")->help_page(), "analyses");
  const QString placement = help_page("placement"), simulations = help_page("simulations");
  for (const StudyInfo& info : studies()) {
    const QString name = QString::fromUtf8(info.name);
    switch (info.kind) {
      case StudyKind::kPlacement: EXPECT_TRUE(placement.contains("| `" + name + "` |")) << info.name; break;
      case StudyKind::kSimulation: EXPECT_TRUE(simulations.contains("\n## " + name + ":")) << info.name; break;
      case StudyKind::kComparison: EXPECT_TRUE(page.contains(QString::fromStdString(command_of(info)))) << info.name; break;
    }
  }
}

// A pair list is a line; a grid of layers and experts a heat map; a test of many experts a volcano; a cell without a number stays empty.
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
  // Variants are lines, up to eight; a quantity stands beside that of contiguous experts.
  ResultTable sizes{"policies.sizes", {"policy", "slots", "hit_rate"}, {}};
  for (int policy = 0; policy < 8; ++policy)
    for (const int slots : {4, 8, 32}) sizes.rows.push_back({"p" + std::to_string(policy), slots, policy + slots / 100.0});
  picture.show_table(sizes, "hit_rate");
  EXPECT_FALSE(picture.is_heat_map());
  EXPECT_EQ(picture.series().size(), 8);
  // 8 stands where it belongs between 4 and 32: nearer to 4.
  EXPECT_TRUE(picture.value_at({200, 150}).contains("policy p3, slots 8: hit_rate 3.08")) << picture.value_at({200, 150}).toStdString();
  picture.grab();
  // Where a legend has no room the tooltip tells the marks.
  EXPECT_TRUE(picture.value_at({200, 150}).contains("\n● policy")) << picture.value_at({200, 150}).toStdString();
  for (const int slots : {4, 8, 32}) sizes.rows.push_back({"p8", slots, 1.0});
  picture.show_table(sizes, "hit_rate");
  EXPECT_TRUE(picture.is_heat_map());
  ResultTable cut{"transitions", {"gpus", "from", "cut", "contiguous_cut"}, {{4, 0, 3, 5}, {4, 1, 4, 6}}};
  picture.show_table(cut, "cut");
  EXPECT_EQ(picture.series(), (QStringList{"cut", "contiguous"}));
  EXPECT_TRUE(picture.value_at({380, 150}).contains("from 1: contiguous 6"));
  ResultTable pairs{"top_pairs", {"layer", "i", "j", "count"}, {{0, 1, 2, 9}, {0, 3, 4, 7}, {1, 5, 6, 5}}};
  picture.show_table(pairs, "count");
  EXPECT_FALSE(picture.is_heat_map());
  // A test of many experts; its columns alone are heat maps as before.
  ResultTable test{"layers.values", {"layer", "index", "delta", "q"}, {}};
  for (int layer = 0; layer < 3; ++layer)
    for (int e = 0; e < 4; ++e) test.rows.push_back({layer, e, layer == 1 && e == 2 ? nlohmann::ordered_json() : nlohmann::ordered_json(0.1 * (e - 1.5)), layer == 2 && e == 3 ? 0.0 : e == 0 ? 1e-4 : 0.5});
  EXPECT_EQ(ResultPicture::quantities(test), (QStringList{"delta against q", "delta", "q"}));
  picture.show_table(test, "delta against q", {"code", "prose"});
  EXPECT_TRUE(picture.is_volcano());
  EXPECT_FALSE(picture.is_heat_map());
  EXPECT_EQ(picture.series(), (QStringList{"more in code", "more in prose"}));
  EXPECT_TRUE(picture.accessibleDescription().startsWith("4 of 11 with q < 0.05, 1 with q = 0 at the top. layer 2, expert 3: delta 0.15, q 0 ")) << picture.accessibleDescription().toStdString();
  picture.grab();
  EXPECT_EQ(picture.value_at({1, 1}), "");
  picture.resize(400, 70);
  EXPECT_EQ(picture.value_at({1, 1}), "■ more in code\n● more in prose") << "too low for a legend";
  picture.resize(400, 300);
  picture.show_table(test, "delta");
  EXPECT_FALSE(picture.is_volcano());
  EXPECT_TRUE(picture.is_heat_map());
  EXPECT_TRUE(picture.accessibleDescription().isEmpty());
}

}  // namespace
}  // namespace switchyard
