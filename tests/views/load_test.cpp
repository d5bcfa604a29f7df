// Expert load: statistics of MT1, items, table, selection and keys.
#include <gtest/gtest.h>

#include <imgui.h>

#include <memory>

#include "tests/views/fixture.h"
#include "views/expert_load/view.h"
#include "views/host/headless.h"
#include "views/ui/draw.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

// specs/analyses.md A1, check values of layer 0.
TEST(ExpertLoad, ShowsTheKnownStatisticsOfMt1) {
  const auto run = Fixture::mt1();
  ExpertLoad view;
  HeadlessView host(view, run->source(), 432, 296);
  EXPECT_NEAR(host.items().find("stat/MaxVio")->value, 0.375, 1e-6);
  EXPECT_NEAR(host.items().find("stat/CV")->value, 0.375, 1e-6);
  EXPECT_NEAR(host.items().find("stat/Gini")->value, 0.1875, 1e-6);
  EXPECT_NEAR(host.items().find("stat/effective experts")->value, 3.678576, 1e-6);
  EXPECT_EQ(host.items().find("stat/dead")->value, 0);
  EXPECT_EQ(host.items().find("expert 1")->value, 11);
  EXPECT_EQ(view.subtitle(run->data, run->selection, run->cursor), "layer 1");
}

TEST(ExpertLoad, ItemsTableAndAnalysisAgreeForBothTokenRanges) {
  const auto run = Fixture::with_edits();
  for (const int range : {0, 1}) {
    ExpertLoad view;
    view.settings()[0].value = range;
    HeadlessView host(view, run->source(), 432, 296);
    const auto counts = (range == 0 ? run->data.load_all : run->data.load_window)->counts(5);
    std::unique_ptr<QAbstractTableModel> model(view.make_table(nullptr));
    view.refresh_table(model.get(), run->data, run->selection, run->cursor);
    ASSERT_EQ(model->rowCount(), 32);
    double share = 0;
    for (int e = 0; e < 32; ++e) {
      EXPECT_EQ(host.items().find("expert " + std::to_string(e))->value, double(counts[size_t(e)]));
      EXPECT_EQ(model->index(e, 1).data(TableTwin::kSortRole).toULongLong(), counts[size_t(e)]);
      share += model->index(e, 3).data(TableTwin::kSortRole).toDouble();
    }
    EXPECT_NEAR(share, 100, 1e-9);
  }
}

TEST(ExpertLoad, ClickAndArrowsSelectAndTheMenuEdits) {
  const auto run = Fixture::with_edits();
  ExpertLoad view;
  HeadlessView host(view, run->source(), 432, 296);
  host.click("expert 4");
  EXPECT_EQ(run->selection, (Selection{5, 4, std::nullopt}));
  host.key(ImGuiKey_RightArrow);
  EXPECT_EQ(run->selection.expert, 5);
  host.click("expert 9", 1);
  host.click("menu/force");
  EXPECT_EQ(run->edits.back().edit, Edit(Force{{{5}}, {9}}));
}

TEST(ExpertLoad, ExpertsChosenForTheShownTokenAreInTheAccent) {
  const auto run = Fixture::mt1();
  ExpertLoad view;
  HeadlessView host(view, run->source(), 432, 296);
  EXPECT_GT(host.vertices_of(ink(run->theme->selection)), 0);
  const auto sorted = [&] { return host.items().find("expert 1")->rect.x0 < host.items().find("expert 0")->rect.x0; };
  EXPECT_FALSE(sorted());
  view.settings()[1].value = 1;
  host.frames(1);
  EXPECT_TRUE(sorted()) << "11 before 9";
}

TEST(ExpertLoad, MutedBarsAreHatchedEvenAtZero) {
  Fixture run({.layers = 1, .experts = 8, .k = 2});
  run.edit(Mute{{{0}}, {3}});
  run.add_tokens(40);
  ExpertLoad view;
  HeadlessView host(view, run.source(), 432, 296);
  EXPECT_EQ(host.items().find("expert 3")->value, 0);
  EXPECT_GE(host.items().find("stat/dead")->value, 1);
  EXPECT_GT(host.vertices_of(ink(run.theme->edit)), 12);
}

}  // namespace
}  // namespace switchyard
