// The action table: complete, free of conflicts, and everything else is made from it.
#include "app/gui/action_table.h"

#include <map>
#include <set>

#include <QAction>
#include <QKeySequence>
#include <QLineEdit>
#include <QMenu>
#include <QMenuBar>
#include <QPlainTextEdit>
#include <QTextBrowser>

#include "app/gui/help_dialog.h"
#include "app/gui/palette.h"
#include "app/gui/style.h"
#include "app/gui/workbench.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class Actions : public ::testing::Test {
 protected:
  void SetUp() override {
    WindowOptions options;
    options.size = "1280x720";
    window_ = std::make_unique<MainWindow>(options);
    window_->show();
    ASSERT_TRUE(QTest::qWaitForWindowActive(window_.get(), 20'000));
  }
  const std::vector<ActionRow>& rows() { return window_->actions().rows(); }
  std::unique_ptr<MainWindow> window_;
};

TEST_F(Actions, EveryOneHasIdTitleMenuAndHelp) {
  std::set<QString> ids;
  for (const ActionRow& row : rows()) {
    EXPECT_TRUE(ids.insert(row.id).second) << row.id.toStdString() << " twice";
    EXPECT_TRUE(row.id.contains('.')) << row.id.toStdString();
    EXPECT_FALSE(row.title.isEmpty()) << row.id.toStdString();
    EXPECT_FALSE(row.menu.isEmpty()) << row.id.toStdString();
    EXPECT_TRUE(row.help.endsWith('.') && row.help.size() > 10) << row.id.toStdString();
  }
}

TEST_F(Actions, NoTwoShareAShortcut) {
  std::map<QString, QString> taken;
  for (const ActionRow& row : rows())
    for (const QKeySequence& key : window_->actions().action(row.id)->shortcuts()) {
      EXPECT_FALSE(key.isEmpty()) << row.id.toStdString();
      const auto [at, fresh] = taken.emplace(key.toString(), row.id);
      EXPECT_TRUE(fresh) << key.toString().toStdString() << ": " << row.id.toStdString() << " and "
                         << at->second.toStdString();
    }
}

TEST_F(Actions, MenusHoldThemAllAndBlockedOnesSayWhy) {
  std::set<QString> in_menus;
  for (const QMenu* menu : window_->menuBar()->findChildren<QMenu*>())
    for (const QAction* action : menu->actions()) in_menus.insert(action->objectName());
  for (const ActionRow& row : rows()) {
    EXPECT_TRUE(in_menus.count(row.id)) << row.id.toStdString();
    EXPECT_EQ(window_->actions().action(row.id)->isEnabled(), window_->actions().why_blocked(row).isEmpty())
        << row.id.toStdString();
  }
  EXPECT_FALSE(window_->actions().action("edit.undo")->isEnabled());
  EXPECT_EQ(window_->actions().why_blocked(*window_->actions().row("run.toggle")), "open a model first");
}

TEST_F(Actions, PaletteFindsEveryOneByItsTitle) {
  window_->show_palette();
  for (const ActionRow& row : rows()) {
    window_->palette_box().items()->set_query(row.title);
    bool found = false;
    for (int i = 0; i < std::min(3, window_->palette_box().items()->rowCount()); ++i)
      found = found || window_->palette_box().items()->item(i).title == row.title;
    EXPECT_TRUE(found) << row.title.toStdString();
  }
}

TEST_F(Actions, PaletteOpensByKeyTakesTypingAndClosesOnEscape) {
  QTest::keyClick(window_.get(), Qt::Key_P, Qt::ControlModifier | Qt::ShiftModifier);
  ASSERT_TRUE(wait_until([&] { return window_->palette_box().isVisible(); }, 5000));
  QTest::keyClicks(window_->palette_box().field(), "light th");
  EXPECT_EQ(window_->palette_box().items()->item(0).title, "Light theme");
  QTest::keyClick(window_->palette_box().field(), Qt::Key_Return);
  EXPECT_FALSE(window_->palette_box().isVisible());
  EXPECT_FALSE(current_theme().dark);
  window_->set_theme("dark");
  window_->show_palette();
  QTest::keyClick(window_->palette_box().field(), Qt::Key_Escape);
  EXPECT_FALSE(window_->palette_box().isVisible());
}

TEST(FuzzyScore, PrefersWordStartsAndRunsOverScatteredLetters) {
  EXPECT_LT(fuzzy_score("xyz", "Undo"), 0);
  EXPECT_GT(fuzzy_score("me", "Mute or unmute expert"), 0);
  EXPECT_GT(fuzzy_score("und", "Undo"), fuzzy_score("und", "Run and do"));
  EXPECT_GT(fuzzy_score("ml", "Mute layer"), fuzzy_score("ml", "small letters"));
}

TEST_F(Actions, SingleLetterKeysAreTypedIntoThePromptNotRun) {
  auto* prompt = window_->generation().prompt_edit();
  window_->workbench().show();
  // The prompt lives on the page that appears with a model; here only the widget's own handling matters.
  for (const auto key : {Qt::Key_Space, Qt::Key_M, Qt::Key_G, Qt::Key_Comma, Qt::Key_Question}) {
    QKeyEvent ask(QEvent::ShortcutOverride, key, Qt::NoModifier, QString(QChar(ushort(key))));
    ask.ignore();
    QApplication::sendEvent(prompt, &ask);
    EXPECT_TRUE(ask.isAccepted()) << key;
  }
}

TEST_F(Actions, KeyPageListsEveryAction) {
  window_->help().show_page("keys");
  const QString text = window_->help().browser()->toPlainText();
  for (const ActionRow& row : rows()) EXPECT_TRUE(text.contains(row.title)) << row.title.toStdString();
  window_->help().close();
}

TEST_F(Actions, EveryPanelHasAHelpPage) {
  for (const Dock* dock : window_->workbench().docks())
    EXPECT_GT(help_page(dock->help_page()).size(), 100) << dock->help_page().toStdString();
  for (const QString& page : help_pages()) EXPECT_TRUE(help_page(page).startsWith("# ")) << page.toStdString();
}

}  // namespace
}  // namespace switchyard
