// The Report panel from the user's hand: pictures added, reordered, noted, previewed, exported and kept; and copies of
// pictures and tables in every format.
#include <fstream>
#include <iterator>

#include <QAction>
#include <QClipboard>
#include <QListWidget>
#include <QMenu>
#include <QMimeData>
#include <QScrollArea>
#include <QScrollBar>
#include <QTextBrowser>
#include <QToolButton>

#include "app/gui/behaviors/report_building.h"
#include "app/gui/behaviors/workspace.h"
#include "app/gui/dock_copy.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/report_panel.h"
#include "app/gui/workbench.h"
#include "engine/report/report_files.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class ReportBuilder : public DemoWindow {
 protected:
  ReportPanel& panel() { return report_of(*window_).panel(); }
  void focus(const char* id) {
    Dock* dock = window_->workbench().dock(id);
    dock->show();
    dock->raise();
    dock->body()->setFocus();
    ASSERT_TRUE(wait_until(
        [&] { return QApplication::focusWidget() && dock->isAncestorOf(QApplication::focusWidget()); }, 5000))
        << id;
  }
  bool preview_done() {
    return wait_until([&] {
      return panel().report() && panel().report()->sections.size() == panel().request().items.size() &&
             panel().preview().toPlainText().size() > 40;
    });
  }
};

TEST_F(ReportBuilder, AddsTheFocusedPictureWithItsNumbersAndSettings) {
  run("2 + 3 = 5\n", 24);
  focus("routing_heatmap");
  report_of(*window_).add_focused();
  ASSERT_EQ(panel().request().items.size(), 1u);
  const ReportItem& item = panel().request().items[0];
  EXPECT_EQ(item.source, "view");
  ASSERT_TRUE(item.chart);
  EXPECT_EQ(item.chart->rows.size(), 8u);
  EXPECT_EQ(item.chart->columns.size(), 32u);
  const std::span<const uint64_t> counts = model().data().load_all->counts(3);
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  for (size_t e = 0; e < 32; ++e)
    EXPECT_NEAR(*item.chart->values[3 * 32 + e], double(counts[e]) * 32 / double(total), 1e-9) << e;
  EXPECT_NE(item.note.find("load / uniform"), std::string::npos) << item.note;
  EXPECT_TRUE(preview_done()) << newest_message();
}

TEST_F(ReportBuilder, EveryLiveViewHasAChart) {
  run("def add(a, b):", 24);
  model().add_shadow("native router", {});
  for (LiveDock* dock : window_->live_docks()) {
    dock->show();
    EXPECT_TRUE(wait_until([&] { return !copyable_of(*dock).chart.empty(); }, 10'000))
        << dock->objectName().toStdString();
    const Copyable shown = copyable_of(*dock);
    EXPECT_TRUE(check(shown.chart)) << dock->objectName().toStdString();
    EXPECT_FALSE(shown.screen.isNull());
    if (dock->objectName() != "routing_heatmap") dock->hide();
  }
}

TEST_F(ReportBuilder, SectionsMoveTakeNotesAndAreExported) {
  run("2 + 3 = 5\n", 24);
  ReportItem words;
  words.source = "note", words.heading = "First";
  panel().add(words);
  words.heading = "Second";
  panel().add(words);
  focus("expert_load");
  report_of(*window_).add_focused();
  window_->show_dock("report");
  panel().move_item(1, 0);
  panel().set_note(0, "Some **bold** words and <script>alert(1)</script>");
  panel().remove_item(1);
  ASSERT_EQ(panel().list().count(), 2);
  EXPECT_EQ(panel().list().item(0)->text(), "Second");
  ASSERT_TRUE(preview_done()) << newest_message();
  EXPECT_TRUE(wait_until([&] { return panel().preview().toPlainText().contains("Some bold words"); }))
      << panel().preview().toPlainText().toStdString();
  TemporaryFolder folder;
  for (const char* name : {"r.html", "r.pdf", "r.tex", "r.md"}) {
    bool done = false;
    const auto watch = QObject::connect(&panel(), &ReportPanel::exported, [&] { done = true; });
    panel().export_to(QString::fromStdString((folder / name).string()));
    ASSERT_TRUE(wait_until([&] { return done; })) << name << " " << newest_message();
    QObject::disconnect(watch);
  }
  const std::string html = text_of(folder / "r.html");
  EXPECT_NE(html.find("<strong>bold</strong>"), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(text_of(folder / "r.pdf").substr(0, 5), "%PDF-");
  // Pictures of the moment are kept: nothing changes when it is made again.
  const auto rebuilt = rebuild_report(folder / "r.html", 1, nullptr);
  ASSERT_TRUE(rebuilt) << rebuilt.error().message();
  EXPECT_TRUE(rebuilt->changes.empty());
  EXPECT_GT(rebuilt->numbers, 32u);
}

TEST_F(ReportBuilder, DraggedSectionsAreThoseOfTheReport) {
  for (const char* heading : {"a", "b", "c", "d"}) {
    ReportItem words;
    words.source = "note", words.heading = heading;
    panel().add(words);
  }
  const auto order = [&] {
    std::string shown, kept;
    for (int i = 0; i < panel().list().count(); ++i) shown += panel().list().item(i)->text().toStdString();
    for (const ReportItem& item : panel().request().items) kept += item.heading;
    return shown + " " + kept;
  };
  ASSERT_TRUE(panel().list().model()->moveRow({}, 0, {}, 3));  // as a drop between c and d does
  EXPECT_EQ(order(), "bcad bcad");
  ASSERT_TRUE(panel().list().model()->moveRow({}, 3, {}, 1));
  EXPECT_EQ(order(), "bdca bdca");
  panel().list().setCurrentRow(0);
  ASSERT_TRUE(panel().list().model()->moveRow({}, 0, {}, 4));
  EXPECT_EQ(order(), "dcab dcab");
  QApplication::processEvents();
  EXPECT_TRUE(panel().findChild<QWidget*>("report.up")->isEnabled());
  EXPECT_FALSE(panel().findChild<QWidget*>("report.down")->isEnabled());
  panel().set_note(0, "of d");
  EXPECT_EQ(panel().request().items[0].note, "of d");
}

TEST_F(ReportBuilder, ATemplateReadsTheRecordingAndFollowsIt) {
  TemporaryFolder folder;
  window_->show_dock("report");
  panel().use_template("model-card");
  EXPECT_GT(panel().list().count(), 6);
  EXPECT_TRUE(wait_until([&] { return panel().preview().toPlainText().contains("need a trace"); }));
  const std::string trace = (folder / "run.moetrace.h5").string();
  model().record_to(trace, false);
  run("def add(a, b):", 32);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(trace); })) << newest_message();
  panel().set_title("A title");
  EXPECT_TRUE(wait_until([&] {
    return panel().report() && panel().preview().toPlainText().contains("A title") &&
           panel().preview().toPlainText().contains("Load of every expert");
  })) << newest_message()
      << panel().preview().toPlainText().left(400).toStdString();
}

TEST_F(ReportBuilder, AWorkspaceKeepsIt) {
  run("2 + 3 = 5\n", 16);
  focus("affinity");
  report_of(*window_).add_focused();
  panel().set_title("Kept");
  const std::string json = workspace_json(workspace_of(*window_));
  const auto workspace = parse_workspace(json, "w");
  ASSERT_TRUE(workspace) << workspace.error().message();
  const ReportRequest before = panel().request();
  panel().set_request({});
  EXPECT_EQ(panel().list().count(), 0);
  const Json parsed = Json::parse(workspace->report_json);
  auto request = request_from_json(JsonView(parsed, "w"));
  ASSERT_TRUE(request);
  panel().set_request(std::move(*request));
  EXPECT_EQ(to_json(panel().request()), to_json(before));
  EXPECT_FALSE(parse_workspace(R"({"schema":1,"report":{"schema":1,"items":[{"source":"nonsense"}]}})", "w"));
}

TEST_F(ReportBuilder, CopiesPicturesAndNumbersInEveryFormat) {
  run("2 + 3 = 5\n", 16);
  LiveDock* dock = window_->live_dock("expert_load");
  auto* button = dock->findChild<QToolButton*>("dock.copy");
  ASSERT_NE(button, nullptr);
  auto* menu = button->findChild<QMenu*>();
  ASSERT_NE(menu, nullptr);
  const auto choose = [&](const QString& title) {
    QGuiApplication::clipboard()->clear();
    for (QAction* action : menu->actions())
      if (action->text() == title) return action->trigger(), true;
    return false;
  };
  const auto text = [] { return QGuiApplication::clipboard()->text(); };
  ASSERT_TRUE(choose("Copy as CSV"));
  EXPECT_TRUE(text().startsWith("expert,count,"));
  EXPECT_EQ(text().count("\r\n"), 33);
  ASSERT_TRUE(choose("Copy as LaTeX"));
  EXPECT_TRUE(text().contains("\\toprule"));
  ASSERT_TRUE(choose("Copy as NumPy"));
  EXPECT_TRUE(text().contains("\"expert\": np.array([0, 1, 2"));
  ASSERT_TRUE(choose("Copy as JSON"));
  EXPECT_TRUE(text().contains("\"columns\""));
  ASSERT_TRUE(choose("Copy as Markdown"));
  EXPECT_TRUE(text().contains("| --- |"));
  ASSERT_TRUE(choose("Copy picture as SVG"));
  const QMimeData* data = QGuiApplication::clipboard()->mimeData();
  EXPECT_TRUE(data->hasFormat("image/svg+xml"));
  EXPECT_TRUE(data->data("image/svg+xml").contains("<title>load, expert 0: "));
  ASSERT_TRUE(choose("Copy picture as PNG"));
  EXPECT_GT(QGuiApplication::clipboard()->image().width(), 1500);
  ASSERT_TRUE(choose("Copy picture as on the screen"));
  EXPECT_FALSE(QGuiApplication::clipboard()->image().isNull());
}

TEST_F(ReportBuilder, APictureIsExportedByItsEnding) {
  run("2 + 3 = 5\n", 16);
  TemporaryFolder folder;
  const LiveDock* dock = window_->live_dock("expert_load");
  for (const char* name : {"p.svg", "p.pdf", "p.png", "p.csv", "p.json"}) {
    const auto done = export_picture(*dock, QString::fromStdString((folder / name).string()));
    EXPECT_TRUE(done) << name << " " << done.error().message();
    EXPECT_GT(std::filesystem::file_size(folder / name), 200u) << name;
  }
  EXPECT_FALSE(export_picture(*dock, QString::fromStdString((folder / "p.doc").string())));
}

// What people look at: SWITCHYARD_PICTURES names a folder for pictures of the panel.
TEST_F(ReportBuilder, FitsASmallWindow) {
  run("def add(a, b):", 48);
  focus("routing_heatmap");
  report_of(*window_).add_focused();
  focus("token_strip");
  report_of(*window_).add_focused();
  focus("expert_load");
  report_of(*window_).add_focused();
  const char* pictures = std::getenv("SWITCHYARD_PICTURES");
  for (const QSize size : {QSize(1600, 900), QSize(900, 600)}) {
    window_->resize(size);
    window_->show_dock("report");
    Dock* dock = window_->workbench().dock("report");
    dock->raise();
    EXPECT_TRUE(preview_done());
    QTest::qWait(600);
    EXPECT_LE(window_->width(), size.width());
    EXPECT_GT(panel().preview().width(), 120);
    EXPECT_GT(panel().list().height(), 30);
    for (const char* name : {"report.add", "report.up", "report.remove", "report.export"}) {
      auto* button = panel().findChild<QWidget*>(name);
      ASSERT_NE(button, nullptr) << name;
      if (name != std::string("report.export")) panel().findChild<QScrollArea*>()->ensureWidgetVisible(button);
      EXPECT_TRUE(
          panel().rect().contains(button->geometry().translated(button->parentWidget()->mapTo(&panel(), QPoint()))))
          << name << size.width();
    }
    EXPECT_FALSE(panel().preview().horizontalScrollBar()->isVisible()) << size.width();
    const std::vector<Dock*>& docks = window_->workbench().docks();
    for (const Dock* one : docks)
      for (const Dock* two : docks)
        if (one < two && !one->visibleRegion().isEmpty() && !two->visibleRegion().isEmpty()) {
          EXPECT_FALSE(one->geometry().intersects(two->geometry()))
              << one->objectName().toStdString() << " " << two->objectName().toStdString();
        }
    if (pictures)
      for (const char* theme : {"dark", "light"}) {
        window_->set_theme(theme);
        QTest::qWait(300);
        window_->grab().save(QString("%1/report-%2-%3.png").arg(pictures).arg(size.width()).arg(theme));
      }
  }
}

}  // namespace
}  // namespace switchyard
