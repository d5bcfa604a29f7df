// Routing heat map: its numbers, what a click, a key and a menu send, and how edits are marked.
#include <gtest/gtest.h>

#include <imgui.h>

#include <cmath>
#include <memory>

#include "tests/views/fixture.h"
#include "views/host/headless.h"
#include "views/routing_heatmap/values.h"
#include "views/routing_heatmap/view.h"
#include "views/ui/draw.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

constexpr int kCells = 3 * 4;

// n of MT1, layer 0: 9 11 3 9, mean 8 (specs/analyses.md section 0). Model layers are 1, 3, 5, not 0, 1, 2.
TEST(RoutingHeatmap, ShowsRelativeLoadUnderTheModelsOwnLayerNumbers) {
  const auto run = Fixture::mt1();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 700, 300);
  EXPECT_DOUBLE_EQ(host.items().find("layer 1/expert 0")->value, 9.0 / 8);
  EXPECT_DOUBLE_EQ(host.items().find("layer 1/expert 2")->value, 3.0 / 8);
  EXPECT_DOUBLE_EQ(host.items().find("layer 5/expert 0")->value, 12.0 / 8);
  EXPECT_FALSE(host.items().find("layer 0/expert 0"));
  EXPECT_EQ(host.items().size(), size_t(kCells));
  const auto item = host.items().find("layer 1/expert 1");
  EXPECT_EQ(item->label, "layer 1, expert 1");
  EXPECT_EQ(item->unit, "× uniform");
  EXPECT_NE(item->detail.find("11 of 32 decisions"), std::string::npos) << item->detail;
}

// First token of MT1, layer 0: experts 3 and 1 with weights .817574 and .182426.
TEST(RoutingHeatmap, ShowsTheWeightsOfThePinnedToken) {
  const auto run = Fixture::mt1();
  run->cursor = 0;
  RoutingHeatmap view;
  view.settings()[0].value = RoutingHeatmap::kWeights;
  HeadlessView host(view, run->source(), 700, 300);
  EXPECT_NEAR(host.items().find("layer 1/expert 3")->value, 0.817574, 1e-6);
  EXPECT_NEAR(host.items().find("layer 1/expert 1")->value, 0.182426, 1e-6);
  EXPECT_EQ(host.items().find("layer 1/expert 0")->value, 0);
}

TEST(RoutingHeatmap, TableAndPictureHoldTheSameNumbers) {
  const auto run = Fixture::with_edits();
  for (int quantity = 0; quantity < 4; ++quantity) {
    RoutingHeatmap view;
    view.settings()[0].value = quantity;
    HeadlessView host(view, run->source(), 784, 304);
    std::unique_ptr<QAbstractTableModel> model(view.make_table(nullptr));
    view.refresh_table(model.get(), run->data, run->selection, run->cursor);
    ASSERT_EQ(model->rowCount(), 8 * 32);
    const int column = quantity == 0 ? 3 : quantity == 1 ? 4 : quantity == 2 ? 5 : 6;
    for (int row = 0; row < model->rowCount(); ++row) {
      const auto number = [&](int c) { return model->index(row, c).data(TableTwin::kSortRole).toDouble(); };
      const std::string id = "layer " + std::to_string(int(number(0))) + "/expert " + std::to_string(int(number(1)));
      ASSERT_EQ(host.items().find(id)->value, number(column)) << id;
    }
  }
}

// Counted again by hand from the frames: tokens 0..57 belong to the recipe before the last bias edit.
TEST(RoutingHeatmap, EditChangeComparesTokensAfterTheLastEditWithTokensBeforeIt) {
  Fixture run;
  run.add_tokens(20);
  EXPECT_TRUE(edit_change(run.data).values.empty());
  run.edit(Mute{{{5}}, {7}});
  EXPECT_TRUE(edit_change(run.data).values.empty()) << "nothing routed after it yet";
  run.add_tokens(10);
  const EditChange change = edit_change(run.data);
  EXPECT_EQ(change.before_tokens, 20u);
  EXPECT_EQ(change.after_tokens, 10u);
  EXPECT_EQ(change.sentence, "Mute expert 7 in layer 5");
  const auto count = [&](int expert, uint64_t from, uint64_t to) {
    int n = 0;
    for (uint64_t t = from; t < to; ++t)
      for (const ExpertId id : run.data.frames[t]->used_ids(5)) n += id == expert;
    return n;
  };
  for (int e = 0; e < 32; ++e) {
    const double expected = count(e, 20, 30) / (10 * 4 / 32.0) - count(e, 0, 20) / (20 * 4 / 32.0);
    EXPECT_NEAR(change.values[5 * 32 + size_t(e)], expected, 1e-12) << e;
  }
  EXPECT_EQ(count(7, 20, 30), 0);
}

TEST(RoutingHeatmap, ClickSelectsAndRightClickOffersEdits) {
  const auto run = Fixture::with_edits();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 784, 304);
  ASSERT_TRUE(host.click("layer 2/expert 9"));
  ASSERT_EQ(run->selections.size(), 1u);
  EXPECT_EQ(run->selections[0], (Selection{2, 9, std::nullopt}));
  EXPECT_TRUE(run->edits.empty());

  ASSERT_TRUE(host.click("layer 4/expert 30", 1));
  EXPECT_EQ(run->selection, (Selection{4, 30, std::nullopt}));
  for (const char* entry : {"menu/mute", "menu/force", "menu/bias_up", "menu/bias_down", "menu/reset"})
    EXPECT_TRUE(host.items().find(entry)) << entry;
  ASSERT_TRUE(host.click("menu/mute"));
  ASSERT_EQ(run->edits.size(), 1u);
  EXPECT_EQ(run->edits[0], (EditCommand{Mute{{{4}}, {30}}, std::nullopt}));
  EXPECT_FALSE(host.items().find("menu/mute")) << "the menu closed";

  host.click("layer 4/expert 30", 1);
  host.click("menu/bias_down");
  EXPECT_EQ(run->edits.back().edit, Edit(Bias{{{4}}, {30}, -0.5f}));
}

TEST(RoutingHeatmap, EditsNameTheModelsLayerNotTheRow) {
  const auto run = Fixture::mt1();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 700, 300);
  host.click("layer 3/expert 2");
  host.key(ImGuiKey_M);
  ASSERT_EQ(run->edits.size(), 1u);
  EXPECT_EQ(run->edits[0].edit, Edit(Mute{{{3}}, {2}}));
  EXPECT_EQ(run->selection.moe_layer, 1);
}

TEST(RoutingHeatmap, KeysMoveTheCellCursorAndEdit) {
  const auto run = Fixture::with_edits();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 784, 304);
  run->selection = {3, 21, std::nullopt};
  host.key(ImGuiKey_RightArrow);
  EXPECT_EQ(run->selection, (Selection{3, 22, std::nullopt}));
  host.key(ImGuiKey_UpArrow);
  host.key(ImGuiKey_LeftArrow);
  EXPECT_EQ(run->selection, (Selection{2, 21, std::nullopt}));
  host.key(ImGuiKey_DownArrow);
  host.key(ImGuiKey_RightArrow);  // layer 3, expert 22: biased by 0.8
  host.key(ImGuiKey_RightBracket);
  EXPECT_EQ(run->edits.back().edit, Edit(Bias{{{3}}, {22}, 0.8f + 0.1f})) << "on top of what is in force";
  host.key(ImGuiKey_LeftBracket);
  EXPECT_EQ(run->edits.back().edit, Edit(Bias{{{3}}, {22}, 0.8f - 0.1f}));
  host.key(ImGuiKey_G);
  EXPECT_EQ(run->edits.back().edit, Edit(Force{{{3}}, {22}}));
  run->selection = {5, 11, std::nullopt};  // muted
  host.frames();
  host.key(ImGuiKey_M);
  EXPECT_EQ(run->edits.back().edit, Edit(Unmute{{{5}}, {11}}));
  for (int i = 0; i < 40; ++i) host.key(ImGuiKey_DownArrow);
  EXPECT_EQ(run->selection.moe_layer, 7) << "stops at the last layer";
}

TEST(RoutingHeatmap, MutedCellsAreHatchedInTheEditColour) {
  Fixture run;
  run.add_tokens(30);
  RoutingHeatmap view;
  HeadlessView host(view, run.source(), 784, 304);
  const unsigned amber = ink(run.theme->edit), pale = ink(run.theme->edit, 0.55f);
  EXPECT_EQ(host.vertices_of(amber) + host.vertices_of(pale), 0);
  run.edit(Mute{{{5}}, {11}});
  host.frames(1);
  EXPECT_GT(host.vertices_of(pale), 20) << "in force from the next token: pale stripes";
  EXPECT_EQ(host.vertices_of(amber), 0);
  run.add_tokens(1);
  host.frames(1);
  EXPECT_GT(host.vertices_of(amber), 20);
  EXPECT_EQ(host.vertices_of(pale), 0);
  run.cursor = 10;  // before the edit: pale again
  host.frames(1);
  EXPECT_GT(host.vertices_of(pale), 20);
  EXPECT_NE(host.items().find("layer 5/expert 11")->detail.find("from the next token: muted"), std::string::npos);
}

TEST(RoutingHeatmap, ASelectedExpertIsDottedOnceForEachSlot) {
  const auto run = Fixture::mt1();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 700, 300);
  const int white = host.vertices_of(0xFFFFFFFFu);
  const auto dots = [](const RoutingFrame& frame) {
    int n = 0;
    for (int row = 0; row < 3; ++row) n += int(frame.used_ids(row).size());
    return n;
  };
  ASSERT_EQ(dots(*run->data.frames.back()), 6);
  EXPECT_GE(white, 6 * 12);
}

TEST(RoutingHeatmap, SortByLoadPutsTheBusiestExpertOfTheLayerFirst) {
  const auto run = Fixture::mt1();
  RoutingHeatmap view;
  view.settings()[1].value = 1;
  HeadlessView host(view, run->source(), 700, 300);
  // Layer 0 of MT1: 9 11 3 9, so the order is 1, 0, 3, 2.
  const auto x = [&](int expert) { return host.items().find("layer 1/expert " + std::to_string(expert))->rect.x0; };
  EXPECT_LT(x(1), x(0));
  EXPECT_LT(x(0), x(3));
  EXPECT_LT(x(3), x(2));
  host.click("layer 1/expert 3");
  EXPECT_EQ(run->selection.expert, 3) << "a click hits the expert drawn there";
}

TEST(RoutingHeatmap, UploadsItsTextureOncePerNewPicture) {
  const auto run = Fixture::with_edits();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 784, 304);
  const uint64_t uploads = host.stage().canvas().textures.uploads();
  host.frames(10);
  host.move(100, 100);
  EXPECT_EQ(host.stage().canvas().textures.uploads(), uploads);
  run->add_tokens(1);
  host.frames(3);
  EXPECT_EQ(host.stage().canvas().textures.uploads(), uploads + 1);
}

TEST(RoutingHeatmap, TooltipNamesTheCellUnderThePointer) {
  const auto run = Fixture::with_edits();
  RoutingHeatmap view;
  HeadlessView host(view, run->source(), 784, 304);
  const auto cell = host.items().find("layer 6/expert 12");
  host.move((cell->rect.x0 + cell->rect.x1) / 2, (cell->rect.y0 + cell->rect.y1) / 2);
  host.frames(1);
  EXPECT_EQ(host.items().hovered(), "layer 6/expert 12");
  EXPECT_EQ(host.items().at((cell->rect.x0 + cell->rect.x1) / 2, (cell->rect.y0 + cell->rect.y1) / 2)->id,
            "layer 6/expert 12");
}

TEST(RoutingHeatmap, SaysWhatToDoWithoutWeightsOrEdits) {
  Fixture run;
  run.add_tokens(5);
  RoutingHeatmap view;
  view.settings()[0].value = RoutingHeatmap::kEditChange;
  HeadlessView host(view, run.source(), 784, 304);
  EXPECT_EQ(host.items().find("empty")->label, "No edit to compare");
  auto frame = std::make_shared<RoutingFrame>(8, 32, 4, CaptureLevel::kIds);
  run.data.frames.back() = frame;
  run.serial();
  view.settings()[0].value = RoutingHeatmap::kWeights;
  host.frames(1);
  EXPECT_EQ(host.items().find("empty")->label, "Weights are not captured");
}

}  // namespace
}  // namespace switchyard
