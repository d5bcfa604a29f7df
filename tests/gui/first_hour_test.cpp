// The window's side of the tutorial assets/help/first_hour.md, step by step, and help pages against what the window has.
#include <QComboBox>
#include <QProcess>
#include <QPushButton>
#include <QRegularExpression>
#include <QOpenGLWidget>

#include "app/gui/action_table.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/effect_panel.h"
#include "app/gui/help_dialog.h"
#include "app/gui/result_picture.h"
#include "app/gui/workbench.h"
#include "app/session/edits_in_force.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class FirstHour : public DemoWindow {
 protected:
  void click_cell(int layer, int expert) {
    LiveDock* dock = window_->live_dock("routing_heatmap");
    const std::string id = "layer " + std::to_string(layer) + "/expert " + std::to_string(expert);
    ASSERT_TRUE(wait_until([&] { return dock->live()->items().find(id).has_value(); })) << id;
    const ItemRect rect = dock->live()->items().find(id)->rect;
    const QPoint at(int((rect.x0 + rect.x1) / 2), int((rect.y0 + rect.y1) / 2));
    auto* canvas = dock->live()->findChild<QOpenGLWidget*>();
    QTest::mouseMove(canvas, at);
    QTest::qWait(120);
    QTest::mousePress(canvas, Qt::LeftButton, Qt::NoModifier, at);
    QTest::qWait(120);
    QTest::mouseRelease(canvas, Qt::LeftButton, Qt::NoModifier, at);
    QTest::qWait(150);
  }
  void key(Qt::Key key, Qt::KeyboardModifiers with = {}) {
    auto* canvas = window_->live_dock("routing_heatmap")->live()->findChild<QOpenGLWidget*>();
    canvas->setFocus();
    QTest::keyClick(canvas, key, with);
  }
  // Tokens from `from` on that chose expert 9 in layer 0.
  size_t choices(uint64_t from) {
    size_t count = 0;
    for (uint64_t t = from; t < model().data().tokens(); ++t)
      for (const ExpertId id : model().data().frames[t]->used_ids(0)) count += id == 9;
    return count;
  }
  const TemporaryFolder folder_;
};

TEST_F(FirstHour, TheWindowDoesWhatThePageSays) {
  const QString page = help_page("first_hour");
  ASSERT_FALSE(page.isEmpty());

  // 1. Open the demo, write, run.
  const QString prompt = "1990, 1991, 1992,";
  EXPECT_TRUE(page.contains("Write `" + prompt + "`"));
  run(prompt, 24);
  EXPECT_EQ(model().data().plan->moe_layers.size(), 8u);
  EXPECT_GT(choices(0), 10u);

  // 3. A click on the cell, M, run on: no token takes it.
  click_cell(0, 9);
  ASSERT_EQ(model().selection().expert, 9);
  const uint64_t muted_from = model().data().tokens();
  key(Qt::Key_M);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 1; }));
  EXPECT_EQ(model().snapshot()->history[0].sentence, "Mute expert 9 in layer 0");
  window_->actions().run("run.toggle");
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() >= muted_from + 20 && model().state() == RunState::kFinished; })) << newest_message();
  const uint64_t first = model().snapshot()->history[0].first_token;
  EXPECT_LT(first, model().data().tokens());
  EXPECT_EQ(choices(first), 0u);

  // 4. What it costs the text on the screen.
  window_->actions().run("effects.compute");
  ASSERT_TRUE(wait_until([&] { return window_->effects().effect() && !window_->effects().running(); })) << newest_message();
  EXPECT_GT(window_->effects().effect()->effect.positions().size(), 20u);

  // 5. Ctrl+Z, and tokens take it again.
  key(Qt::Key_Z, Qt::ControlModifier);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 0; }));
  const uint64_t back_from = model().data().tokens();
  window_->actions().run("run.toggle");
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() >= back_from + 20 && model().state() == RunState::kFinished; })) << newest_message();
  EXPECT_GT(choices(back_from), 0u);
  key(Qt::Key_Z, Qt::ControlModifier | Qt::ShiftModifier);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 1; }));
}

// 2. The texts of the page, scored by the command line; their trace in the Analysis panel.
TEST_F(FirstHour, TheVolcanoNamesTheExpertOfDigits) {
  const auto texts = QRegularExpression("<<'TEXTS'\\n(.*?)TEXTS\\n", QRegularExpression::DotMatchesEverythingOption).match(help_page("first_hour")).captured(1);
  ASSERT_EQ(texts.count('\n'), 6);
  std::ofstream(folder_ / "texts.jsonl") << texts.toStdString();
  const QString trace = QString::fromStdString((folder_ / "texts.moetrace.h5").string());
  QProcess score;
  score.start(SWITCHYARD_PROGRAM, {"score", "demo", "--texts", QString::fromStdString((folder_ / "texts.jsonl").string()), "--trace", trace});
  ASSERT_TRUE(score.waitForFinished(60'000) && score.exitCode() == 0) << score.readAllStandardError().toStdString();
  window_->open_path(trace);
  ASSERT_TRUE(wait_until([&] { return model().has_trace(); })) << newest_message();
  window_->show_dock("analysis");
  AnalysisPanel& panel = window_->analysis();
  panel.choose("cohort");
  bool done = false;
  QObject::connect(&panel, &AnalysisPanel::finished, &panel, [&] { done = true; });
  QTest::mouseClick(panel.findChild<QPushButton*>("analysis.run"), Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return done; })) << newest_message();
  ResultPicture& picture = panel.picture();
  ASSERT_TRUE(picture.is_volcano() && wait_until([&] { return picture.isVisible() && picture.width() > 100; }));
  EXPECT_EQ(picture.series(), (QStringList{"more in digits", "more in words"}));
  // The rightmost point is the expert of the page, and a click selects it.
  std::optional<QPointF> rightmost;
  for (size_t row = 0; row < 8 * 32; ++row)
    if (const auto at = picture.place_of(row); at && (!rightmost || at->x() > rightmost->x())) rightmost = at;
  ASSERT_TRUE(rightmost);
  QTest::mouseClick(&picture, Qt::LeftButton, {}, rightmost->toPoint());
  EXPECT_EQ(model().model_layer(), 0);
  EXPECT_EQ(model().selection().expert, 9);
}

TEST_F(FirstHour, EverySettingOfAPictureIsOnItsPage) {
  size_t checked = 0;
  for (const LiveDock* dock : window_->live_docks()) {
    const QString page = help_page(dock->help_page());
    for (const ViewSetting& setting : dock->view().settings())
      for (const std::string& option : setting.options) {
        EXPECT_TRUE(page.contains(QString::fromStdString(option))) << dock->help_page().toStdString() << ": " << option;
        ++checked;
      }
  }
  EXPECT_GT(checked, 15u);
}

TEST_F(FirstHour, EveryActionSaysWhatItDoes) {
  for (const ActionRow& row : window_->actions().rows()) {
    EXPECT_TRUE(row.help.endsWith('.') && row.help.size() > 8) << row.id.toStdString();
    EXPECT_FALSE(row.title.isEmpty()) << row.id.toStdString();
  }
}

TEST_F(FirstHour, EveryPanelIsNamedInTheIndex) {
  const QString index = help_page("index");
  for (const Dock* dock : window_->workbench().docks()) {
    const QString page = dock->help_page().section('/', 0, 0) == "schemes" ? "schemes" : dock->help_page();
    EXPECT_TRUE(index.contains("(" + page + ".md)")) << dock->objectName().toStdString() << ": " << page.toStdString();
  }
}

}  // namespace
}  // namespace switchyard
