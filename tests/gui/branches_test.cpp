// Rewind, branches and the comparison from the user's hand, on the demo.
#include <QPushButton>
#include <QTreeWidget>

#include "app/gui/action_table.h"
#include "app/gui/docks/branch_panel.h"
#include "app/gui/status_row.h"
#include "app/gui/workbench.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class Branches : public DemoWindow {};

TEST_F(Branches, RewindAndGoOnWithTheOldBranch) {
  run("The king said unto the people", 30);
  const auto ids = model().snapshot()->generated_ids;
  const uint64_t tokens = model().data().tokens(), back = tokens - 12;
  model().set_cursor(back);
  window_->actions().run("run.rewind");
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() == back; })) << newest_message();
  EXPECT_EQ(model().state(), RunState::kPaused);
  EXPECT_FALSE(model().cursor());

  auto* panel = window_->findChild<BranchPanel*>();
  ASSERT_TRUE(panel && panel->isVisible()) << "a rewind shows the panel";
  QTreeWidget* tree = panel->tree();
  ASSERT_EQ(tree->topLevelItemCount(), 1);
  ASSERT_EQ(tree->topLevelItem(0)->childCount(), 1);
  QTreeWidgetItem *first = tree->topLevelItem(0), *second = first->child(0);
  EXPECT_EQ(second->text(BranchPanel::kFrom), QString::number(back));
  EXPECT_TRUE(second->font(BranchPanel::kName).bold());
  EXPECT_FALSE(first->font(BranchPanel::kName).bold());
  EXPECT_TRUE(window_->findChild<StatusRow*>()->text().contains("branch 1 of 2"));

  model().play();
  ASSERT_TRUE(wait_until([&] { return model().state() == RunState::kFinished; }));
  EXPECT_EQ(model().snapshot()->generated_ids, ids);

  tree->setCurrentItem(first);
  auto* go_on = panel->findChildren<QPushButton*>().back();
  ASSERT_TRUE(go_on->isEnabled());
  QTest::mouseClick(go_on, Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->branch == 0 && model().data().tokens() == tokens; }))
      << newest_message();
  EXPECT_EQ(model().snapshot()->generated_ids, ids);
  EXPECT_TRUE(tree->topLevelItem(0)->font(BranchPanel::kName).bold());
}

TEST_F(Branches, CompareWithTheNativeRouterTheEditsAndAScript) {
  run("The king said unto the people", 20);
  window_->actions().run("compare.add_native");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->shadows != nullptr; })) << newest_message();
  LiveDock* dock = window_->live_dock("compare");
  EXPECT_TRUE(dock->isVisible());
  const auto& shadows = [this]() -> const std::vector<ShadowState>& { return *model().snapshot()->shadows; };
  EXPECT_EQ(shadows()[0].name, "native router");
  EXPECT_EQ(shadows()[0].totals->tokens(0), model().data().tokens());
  EXPECT_EQ(shadows()[0].totals->mean().jaccard, 1);

  ASSERT_TRUE(model().edit(EditCommand{TopK{{}, 2}, {}}));
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->epochs.back().edits.size() == 1; }));
  window_->actions().run("compare.add_edits");
  ASSERT_TRUE(wait_until([&] { return shadows().size() == 2; }));
  EXPECT_EQ(shadows()[1].totals->mean(3).extra_experts, -2) << "the tokens there are were routed natively";
  const uint64_t wanted = model().data().tokens() + 10;
  model().play(10);
  ASSERT_TRUE(wait_until([&] {
    return model().state() == RunState::kFinished && shadows()[0].next_token == wanted && shadows()[1].next_token == wanted;
  }));
  EXPECT_EQ(shadows()[0].last[3].extra_experts, 2) << "native has two more than the run now";
  EXPECT_EQ(shadows()[1].last[3], GateDifference{});

  const TemporaryFolder folder;
  std::ofstream(folder / "one.edits.json") << R"({"schema":1,"edits":[{"kind":"top_k","layer":"all","k":1}]})";
  model().add_shadow(folder / "one.edits.json");
  ASSERT_TRUE(wait_until([&] { return shadows().size() == 3; })) << newest_message();
  EXPECT_EQ(shadows()[2].name, "one");
  std::ofstream(folder / "bad.json") << R"({"schema":1,"edits":[{"kind":"mute","layer":99,"expert":1}]})";
  model().add_shadow(folder / "bad.json");
  ASSERT_TRUE(wait_until([&] { return newest_message().find("bad.json") != std::string::npos; }));
  EXPECT_EQ(shadows().size(), 3u);

  ASSERT_TRUE(wait_until([&] { return dock->live()->items().find("button/recipe 2").has_value(); }));
  model().remove_shadow(1);
  ASSERT_TRUE(wait_until([&] { return shadows().size() == 2; }));
  EXPECT_EQ(shadows()[1].name, "one");
  window_->actions().run("compare.clear");
  ASSERT_TRUE(wait_until([&] { return !model().snapshot()->shadows; }));
}

}  // namespace
}  // namespace switchyard
