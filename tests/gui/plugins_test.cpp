// Plugins in the window, from the user's hand: listed, trusted with the hash shown, a scheme that routes, a view that
// draws and answers clicks, a command, settings. The plugins are the examples of this build and two broken ones.
#include <cstdlib>

#include <QAction>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMenu>
#include <QMenuBar>
#include <QMessageBox>
#include <QOpenGLWidget>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QTreeWidget>

#include "app/gui/action_table.h"
#include "app/gui/behaviors/plugin_watch.h"
#include "app/gui/behaviors/report_building.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/plugin_panel.h"
#include "app/gui/docks/report_panel.h"
#include "app/gui/docks/scheme_panel.h"
#include "app/gui/help_dialog.h"
#include "app/gui/table_panel.h"
#include "app/gui/workbench.h"
#include "tests/gui/support.h"
#include "views/host/item_map.h"
#include "views/plugin/view.h"

namespace switchyard {
namespace {

class PluginWindow : public DemoWindow {
 protected:
  static void SetUpTestSuite() {
    ::setenv("SWITCHYARD_PLUGIN_BUDGET_US", "100000", 1);  // other programs run beside this test
    PluginOptions options;
    options.path = {SWITCHYARD_BINARY_DIR "/example_plugins", SWITCHYARD_BINARY_DIR "/bad_plugins/bad-not-a-number",
                    SWITCHYARD_BINARY_DIR "/bad_plugins/bad-missing-symbol"};
    PluginHost::instance().start(options);
  }
  void SetUp() override {
    for (const auto& plugin : PluginHost::instance().plugins()) {
      plugin->set_trusted(false);
      plugin->turn_on();
    }
    DemoWindow::SetUp();
    watch_ = new PluginWatch(*window_);
    window_->show_dock("plugins");
  }
  void trust(const char* id) {
    panel().select(id);
    panel().set_trusted(true);
    ASSERT_EQ(PluginHost::instance().find(id)->why_not(), "");
  }
  PluginPanel& panel() { return window_->plugins(); }
  QString state_of(const char* id) {
    auto* list = panel().findChild<QTreeWidget*>("plugins.list");
    for (int i = 0; i < list->topLevelItemCount(); ++i)
      if (list->topLevelItem(i)->data(0, Qt::UserRole).toString() == id) return list->topLevelItem(i)->text(2);
    return "not listed";
  }
  void picture(const char* name) { window_->grab().save(QString(SWITCHYARD_BINARY_DIR "/") + name); }

  PluginWatch* watch_ = nullptr;
};

TEST_F(PluginWindow, ListsWhatIsFoundAndRunsNothing) {
  EXPECT_EQ(state_of("noisy-gate"), "not trusted");
  panel().select("noisy-gate");
  EXPECT_TRUE(panel().details().contains("sha256:" +
                                         QString::fromStdString(PluginHost::instance().find("noisy-gate")->sha256())));
  EXPECT_TRUE(panel().details().contains("noisy-gate.noisy_top_k"));
  const ActionRow* row = window_->actions().row("scheme.noisy-gate.noisy_top_k");
  ASSERT_NE(row, nullptr);
  EXPECT_TRUE(window_->actions().why_blocked(*row).contains("not trusted"));
  for (const char* id :
       {"view.dock.token-table.tokens", "token-table.first", "analysis.weight-spread.participation", "plugins.panel"}) {
    ASSERT_NE(window_->actions().row(id), nullptr) << id;
    bool in_menu = false;
    for (QAction* menu : window_->menuBar()->actions())
      if (menu->menu()) in_menu |= menu->menu()->actions().contains(window_->actions().action(id));
    EXPECT_TRUE(in_menu) << id;
  }
  EXPECT_GT(help_page(window_->workbench().dock("plugins")->help_page()).size(), 1000);
  EXPECT_EQ(window_->workbench().dock("token-table.tokens")->help_page(), "plugins");
}

TEST_F(PluginWindow, TrustShowsTheHashAndNoIsTheAnswerOfEnter) {
  panel().select("noisy-gate");
  QString shown;
  bool no_is_default = false;
  const auto answer = [&](QMessageBox::StandardButton button) {
    QTimer::singleShot(200, window_.get(), [&, button] {
      auto* box = qobject_cast<QMessageBox*>(QApplication::activeModalWidget());
      ASSERT_NE(box, nullptr);
      shown = box->text() + box->informativeText();
      no_is_default = box->defaultButton() == box->button(QMessageBox::No);
      box->button(button)->click();
    });
    window_->actions().run("plugins.trust");
  };
  answer(QMessageBox::No);
  EXPECT_EQ(state_of("noisy-gate"), "not trusted");
  EXPECT_TRUE(no_is_default);
  EXPECT_TRUE(shown.contains(QString::fromStdString(PluginHost::instance().find("noisy-gate")->sha256())));
  EXPECT_TRUE(shown.contains("your rights"));
  answer(QMessageBox::Yes);
  EXPECT_EQ(state_of("noisy-gate"), "ready");
  const auto choices = read_plugin_choices();
  ASSERT_TRUE(choices);
  EXPECT_TRUE(choices->trusted.contains(PluginHost::instance().find("noisy-gate")->sha256()));
  panel().set_trusted(false);
  EXPECT_FALSE(read_plugin_choices()->trusted.contains(PluginHost::instance().find("noisy-gate")->sha256()));
}

TEST_F(PluginWindow, ASchemeIsChosenAndRoutes) {
  trust("noisy-gate");
  window_->actions().run("scheme.noisy-gate.noisy_top_k");
  EXPECT_EQ(window_->scheme().shown().name, "noisy-gate.noisy_top_k");
  window_->scheme().set_parameter("sigma", 3.0);
  ASSERT_TRUE(wait_until([&] { return !model().data().recipe_ahead; })) << newest_message();
  run("The router", 16);
  const auto& data = model().data();
  int changed = 0, fallen = 0;
  for (const auto& frame : data.frames)
    changed += frame->layer(model().selection().moe_layer).changed, fallen += (frame->header().flags & FrameFlags::kFallback) != 0;
  EXPECT_GT(changed, 0) << "noise changes decisions";
  EXPECT_EQ(fallen, 0) << newest_message();
  watch_->look();
  EXPECT_EQ(state_of("noisy-gate"), "loaded");
  panel().select("noisy-gate");
  EXPECT_TRUE(panel().details().contains("Opened in"));
  picture("plugin_manager.png");
}

TEST_F(PluginWindow, AFailingSchemeIsReplacedFlaggedAndNamed) {
  trust("bad-not-a-number");
  window_->actions().run("scheme.bad-not-a-number.scheme");
  run("The router", 24);
  EXPECT_TRUE(model().data().frames.back()->header().flags & FrameFlags::kFallback);
  watch_->look();
  EXPECT_NE(newest_message().find("bad-not-a-number"), std::string::npos) << newest_message();
  EXPECT_TRUE(state_of("bad-not-a-number").contains("faults"));
}

TEST_F(PluginWindow, ALibraryThatCannotBeUsedIsOffByName) {
  trust("bad-missing-symbol");
  window_->actions().run("scheme.bad-missing-symbol.scheme");
  watch_->look();
  EXPECT_EQ(state_of("bad-missing-symbol"), "off");
  panel().select("bad-missing-symbol");
  auto* message = panel().findChild<QLabel*>("plugins.message");
  EXPECT_TRUE(message->text().contains("no symbol switchyard_plugin")) << message->text().toStdString();
}

TEST_F(PluginWindow, AViewDrawsAnswersClicksAndHasItsTable) {
  LiveDock* dock = window_->live_dock("token-table.tokens");
  ASSERT_NE(dock, nullptr);
  run("The router", 8);
  window_->show_dock("token-table.tokens");
  ASSERT_TRUE(wait_until([&] { return dock->live()->items().find("trouble").has_value(); }));
  EXPECT_NE(dock->live()->items().find("trouble")->label.find("not trusted"), std::string::npos);
  trust("token-table");
  window_->show_dock("token-table.tokens");
  ASSERT_TRUE(wait_until([&] { return dock->live()->items().find("token 1").has_value(); })) << newest_message();
  const Item item = *dock->live()->items().find("token 1");
  EXPECT_NEAR(item.value, double(model().data().frames[1]->layer(model().selection().moe_layer).stats.margin), 1e-6);
  picture("plugin_view.png");
  auto* canvas = dock->live()->findChild<QOpenGLWidget*>();
  const QPoint at(int((item.rect.x0 + item.rect.x1) / 2), int((item.rect.y0 + item.rect.y1) / 2));
  QTest::mouseMove(canvas, at);
  QTest::qWait(120);
  QTest::mousePress(canvas, Qt::LeftButton, Qt::NoModifier, at);
  QTest::qWait(120);
  QTest::mouseRelease(canvas, Qt::LeftButton, Qt::NoModifier, at);
  EXPECT_TRUE(wait_until([&] { return model().cursor() == TimeCursor(1); }));
  window_->actions().run("token-table.first");
  EXPECT_EQ(model().cursor(), TimeCursor(0));
  dock->show_table(true);
  ASSERT_TRUE(wait_until([&] { return dock->table_panel()->rows()->rowCount() == int(model().data().tokens()); }));
}

TEST_F(PluginWindow, AReportSectionIsAddedToTheReport) {
  const ActionRow* row = window_->actions().row("report.slot-share.slots");
  ASSERT_NE(row, nullptr);
  EXPECT_TRUE(window_->actions().why_blocked(*row).contains("not trusted"));
  trust("slot-share");
  window_->actions().run("report.slot-share.slots");
  ReportPanel& report = report_of(*window_).panel();
  ASSERT_EQ(report.request().items.size(), 1u);
  EXPECT_EQ(report.request().items[0].source, "slot-share.slots");
  EXPECT_EQ(report.list().item(0)->text(), "What each slot carries");
}

TEST_F(PluginWindow, SettingsComeFromTheManifestAndKeepTheirRange) {
  panel().select("weight-spread");
  auto* field = panel().findChild<QLineEdit*>("plugins.setting.bins");
  ASSERT_NE(field, nullptr);
  EXPECT_EQ(field->text(), "8");
  EXPECT_TRUE(field->toolTip().contains("1 to 64"));
  panel().set_setting("bins", "16");
  std::string value;
  PluginHost::instance().find("weight-spread")->setting("bins", value);
  EXPECT_EQ(value, "16");
  panel().set_setting("bins", "65");
  EXPECT_NE(newest_message().find("needs 1 to 64"), std::string::npos) << newest_message();
  panel().set_setting("bins", "8");
}

}  // namespace
}  // namespace switchyard
