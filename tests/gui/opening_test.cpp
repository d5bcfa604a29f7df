// Opening, cancelling, refusing, remembering: the window stays alive and says what happened.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include <QDropEvent>
#include <QMimeData>
#include <QPushButton>

#include "app/gui/behaviors/crash_recovery.h"
#include "app/gui/behaviors/drop_open.h"
#include "app/gui/behaviors/layout_memory.h"
#include "app/gui/behaviors/settings.h"
#include "app/gui/behaviors/workspace.h"
#include "app/gui/status_row.h"
#include "app/gui/style.h"
#include "app/gui/toasts.h"
#include "app/gui/workbench.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

WindowOptions quiet_options() {
  WindowOptions options;
  options.size = "1280x720";
  return options;
}

// An opener that works until it is cancelled, and long after.
RunModel::OpenSession endless(std::atomic<bool>& let_go) {
  return [&let_go](const OpenRequest&, Task& task) -> Result<std::unique_ptr<Session>> {
    task.report(0.25, "reading layer 3");
    while (!let_go) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return fail(ErrorCode::kCancelled, "cancelled late");
  };
}

TEST(Opening, CancelAnswersWithin200MsEvenWhenTheWorkDoesNot) {
  std::atomic<bool> let_go{false};
  {
    MainWindow window(quiet_options(), endless(let_go));
    window.show();
    window.open_path("demo");
    const auto at_work = [&] {
      const auto jobs = window.jobs().running();
      return jobs.size() == 1 && jobs[0].fraction == 0.25 && jobs[0].step == "reading layer 3";
    };
    ASSERT_TRUE(window.model().opening());
    ASSERT_TRUE(wait_until(at_work));
    QElapsedTimer clock;
    clock.start();
    window.model().cancel_opening();
    EXPECT_LT(clock.elapsed(), 200);
    EXPECT_FALSE(window.model().opening());
    EXPECT_TRUE(window.jobs().running().empty());
    QTest::qWait(50);
    EXPECT_EQ(window.log().entries().size(), 0u);  // a cancel is no error
    let_go = true;
  }
}

TEST(Opening, NewerOneMakesTheOlderStale) {
  std::atomic<int> calls{0};
  MainWindow window(quiet_options(), [&](const OpenRequest&, Task&) -> Result<std::unique_ptr<Session>> {
    const int call = ++calls;
    if (call == 1) std::this_thread::sleep_for(std::chrono::milliseconds(150));
    return fail(ErrorCode::kNotFound, "opening " + std::to_string(call));
  });
  window.model().open_model({"first"});
  ASSERT_TRUE(wait_until([&] { return calls == 1; }));
  window.model().open_model({"second"});
  ASSERT_TRUE(wait_until([&] { return window.log().entries().size() == 1; }));
  QTest::qWait(300);
  ASSERT_EQ(window.log().entries().size(), 1u);
  EXPECT_TRUE(window.log().entries()[0].text.contains("opening 2"));
}

void drop(MainWindow& window, const QString& path) {
  QMimeData mime;
  mime.setUrls({QUrl::fromLocalFile(path)});
  QDragEnterEvent enter(QPoint(300, 300), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
  QApplication::sendEvent(&window, &enter);
  EXPECT_TRUE(enter.isAccepted());
  QDropEvent event(QPointF(300, 300), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
  QApplication::sendEvent(&window, &event);
}

TEST(Opening, BadDropIsToldOnceAndTheWindowLives) {
  const TemporaryFolder folder;
  std::ofstream(folder / "config.json") << R"({"model_type": "qwen3_moe")";  // cut short
  MainWindow window(quiet_options());
  new DropOpen(window);
  window.show();
  drop(window, QString::fromStdString(folder.path().string()));
  ASSERT_TRUE(wait_until([&] { return !window.log().entries().empty(); }));
  EXPECT_TRUE(window.log().entries()[0].text.contains("config.json")) << window.log().entries()[0].text.toStdString();
  EXPECT_EQ(window.toasts().shown(), 1);
  EXPECT_TRUE(window.model().is_empty());
  drop(window, QString::fromStdString((folder / "config.json").string() + ".txt"));
  ASSERT_TRUE(wait_until([&] { return window.log().entries().size() == 2; }));
  EXPECT_TRUE(window.isVisible());
}

TEST(Opening, DroppedCheckpointFolderOpens) {
  MainWindow window(quiet_options());
  new DropOpen(window);
  window.show();
  drop(window, SWITCHYARD_SOURCE_DIR "/assets/models/demo");
  EXPECT_TRUE(wait_until([&] { return window.model().has_session(); }));
}

TEST(Opening, PathsAreNamedBeforeTheyOpen) {
  const TemporaryFolder folder;
  EXPECT_EQ(what_is("demo").kind, Dropped::kModel);
  EXPECT_EQ(what_is("Qwen/Qwen3-30B-A3B").kind, Dropped::kModel);
  EXPECT_EQ(what_is(QString::fromStdString(folder.path().string())).kind, Dropped::kUnknown);
  for (const char* name : {"run.moetrace.h5", "run.moetrace.h5.part", "a.edits.json", "x.bin"})
    std::ofstream(folder / name) << "x";
  EXPECT_EQ(what_is(QString::fromStdString((folder / "run.moetrace.h5").string())).kind, Dropped::kTrace);
  EXPECT_EQ(what_is(QString::fromStdString((folder / "run.moetrace.h5.part").string())).kind, Dropped::kTrace);
  EXPECT_EQ(what_is(QString::fromStdString((folder / "a.edits.json").string())).kind, Dropped::kScript);
  EXPECT_EQ(what_is(QString::fromStdString((folder / "x.bin").string())).kind, Dropped::kUnknown);
}

TEST(Opening, LayoutThemeSettingsAndPromptComeBack) {
  window_settings()->clear();
  {
    MainWindow window(quiet_options());
    LayoutMemory memory(window, true);
    window.show();
    window.workbench().dock("affinity")->hide();
    window.workbench().dock("log")->show();
    window.generation().set_prompt("remember me");
    window.live_dock("routing_heatmap")
        ->set_setting(QString::fromStdString(window.live_dock("routing_heatmap")->view().settings()[0].id), 1);
    window.set_theme("light");
    memory.save();
    window.set_theme("dark");
  }
  MainWindow window(quiet_options());
  LayoutMemory memory(window, true);
  window.show();
  EXPECT_TRUE(window.workbench().dock("affinity")->isHidden());
  EXPECT_FALSE(window.workbench().dock("log")->isHidden());
  EXPECT_EQ(window.generation().prompt(), "remember me");
  EXPECT_EQ(window.live_dock("routing_heatmap")->view().settings()[0].value, 1);
  EXPECT_EQ(window_settings()->value("theme").toString(), "light");
}

TEST(Opening, WorkspaceRoundTrips) {
  Workspace w;
  w.model = "demo";
  w.prompt = "Et le roi\n";
  w.chat = true;
  w.sampling = {false, 0.7f, 0.9f, 5, 11};
  w.moe_layer = 3;
  w.theme = "light";
  w.script_json = R"({"schema":1,"edits":[{"kind":"mute","layer":3,"expert":5,"at_token":10}]})";
  w.settings = {{"routing_heatmap", "quantity", 2}};
  w.layout = QByteArray("\x00\x01layout", 8);
  const auto read = parse_workspace(workspace_json(w), "a.switchyard.json");
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->model, w.model);
  EXPECT_EQ(read->prompt, w.prompt);
  EXPECT_TRUE(read->chat);
  EXPECT_EQ(read->sampling, w.sampling);
  EXPECT_EQ(read->moe_layer, 3);
  EXPECT_EQ(read->layout, w.layout);
  ASSERT_EQ(read->settings.size(), 1u);
  EXPECT_EQ(read->settings[0].id, "quantity");
  EXPECT_NE(read->script_json.find("\"at_token\":10"), std::string::npos);
}

TEST(Opening, BadWorkspacesAreRefusedByName) {
  for (const char* text : {"", "{}", R"({"schema":2})", R"({"schema":1,"model":7})",
                           R"({"schema":1,"sampling":{"greedy":true,"temperature":0}})",
                           R"({"schema":1,"views":[{"view":"x"}]})", R"({"schema":1,"max_new_tokens":0})"}) {
    const auto read = parse_workspace(text, "w.switchyard.json");
    ASSERT_FALSE(read) << text;
    EXPECT_NE(read.error().message().find("w.switchyard.json"), std::string::npos) << read.error().message();
  }
}

TEST(Opening, WorkspaceBringsModelPromptAndEditsBack) {
  const TemporaryFolder folder;
  Workspace w;
  w.model = "demo";
  w.prompt = "2 + 3 = 5";
  w.moe_layer = 2;
  w.script_json = R"({"schema":1,"edits":[{"kind":"mute","layer":3,"expert":5}]})";
  std::ofstream(folder / "a.switchyard.json") << workspace_json(w);
  MainWindow window(quiet_options());
  window.show();
  window.open_path(QString::fromStdString((folder / "a.switchyard.json").string()));
  ASSERT_TRUE(wait_until([&] { return window.model().snapshot() && window.model().snapshot()->history.size() == 1; }));
  EXPECT_EQ(window.generation().prompt(), "2 + 3 = 5");
  EXPECT_EQ(window.model().selection().moe_layer, 2);
  EXPECT_EQ(window.model().snapshot()->history[0].sentence, "Mute expert 5 in layer 3");
}

// A journal whose process is gone: the page is shown first, and Restore brings model, prompt and edits back.
TEST(Opening, EditsOfACrashedRunAreOfferedAndRestored) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto theirs = Journal::create(state_folder());
    theirs->model_opened("demo");
    theirs->prompt_used("Et le roi");
    HistoryEntry one, two;
    one.edits = {{Mute{LayerSet{{3}}, {5}}, std::nullopt}};
    two.edits = {{TopK{LayerSet{}, 2}, std::nullopt}};
    theirs->history_changed({one, two}, 1);
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  {
    MainWindow window(quiet_options());
    window.show();
    CrashRecovery recovery(window);
    ASSERT_TRUE(recovery.offer());
    QTest::qWait(50);
    QTest::mouseClick(recovery.dialog()->findChild<QPushButton*>("recovery.restore"), Qt::LeftButton);
    ASSERT_TRUE(wait_until([&] {
      return window.model().snapshot() && window.model().snapshot()->history.size() == 2 &&
             window.model().snapshot()->history_cursor == 1;
    }));
    EXPECT_EQ(window.model().snapshot()->history[0].sentence, "Mute expert 5 in layer 3");
    EXPECT_EQ(window.generation().prompt(), "Et le roi");
    EXPECT_FALSE(recovery.offer());
  }
  EXPECT_TRUE(orphaned_journals(state_folder()).empty());
}

TEST(Opening, BrokenSettingsFileCountsAsAbsent) {
  const QString file = window_settings()->fileName();
  for (const char* text : {"\x01\x02garbage", "[General]\nversion=99\nlayout=@ByteArray(xx)\n",
                           "[General]\nversion=1\nlayout=@Invalid()\ngeometry=7\n"}) {
    QFile out(file);
    ASSERT_TRUE(out.open(QIODevice::WriteOnly | QIODevice::Truncate));
    out.write(text);
    out.close();
    MainWindow window(quiet_options());
    LayoutMemory memory(window, true);
    window.show();
    EXPECT_FALSE(window.workbench().dock("generation")->isHidden()) << text;
  }
}

}  // namespace
}  // namespace switchyard
