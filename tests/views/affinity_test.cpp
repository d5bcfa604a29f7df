// Affinity: known values of MT1, items, table, pair selection and the layer slider.
#include <gtest/gtest.h>

#include <imgui.h>

#include <memory>

#include "tests/views/fixture.h"
#include "views/affinity/view.h"
#include "views/host/headless.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

// specs/analyses.md A10: A_0 = [[2,0,2,0],[0,2,2,0],[0,0,1,0],[0,6,0,1]], MI .890541 bit, U .539919, E max P .6875.
TEST(AffinityView, ShowsTheKnownMatrixOfMt1) {
  const auto run = Fixture::mt1();
  AffinityView view;
  view.settings()[0].value = 1;  // first choices, as A_j is defined
  HeadlessView host(view, run->source(), 480, 360);
  EXPECT_EQ(host.items().find("pair 0/0")->value, 2);
  EXPECT_EQ(host.items().find("pair 3/1")->value, 6);
  EXPECT_EQ(host.items().find("pair 1/0")->value, 0);
  EXPECT_NEAR(host.items().find("stat/MI")->value, 0.890541, 1e-6);
  EXPECT_NEAR(host.items().find("stat/U")->value, 0.539919, 1e-6);
  EXPECT_NEAR(host.items().find("stat/max P")->value, 0.6875, 1e-6);
  EXPECT_EQ(host.items().find("strongest 0")->label, "expert 3 → expert 1");
  EXPECT_EQ(view.subtitle(run->data, run->selection, run->cursor), "layer 1 → 3");
  view.settings()[1].value = 1;
  host.frames(1);
  EXPECT_NEAR(host.items().find("pair 3/1")->value, 6.0 / 7, 1e-12);
}

TEST(AffinityView, TableHoldsEveryPairThatWasSeen) {
  const auto run = Fixture::with_edits();
  AffinityView view;
  HeadlessView host(view, run->source(), 480, 360);
  std::unique_ptr<QAbstractTableModel> model(view.make_table(nullptr));
  view.refresh_table(model.get(), run->data, run->selection, run->cursor);
  uint64_t sum = 0;
  for (int row = 0; row < model->rowCount(); ++row) {
    const auto number = [&](int column) { return model->index(row, column).data(TableTwin::kSortRole).toInt(); };
    EXPECT_EQ(host.items().find("pair " + std::to_string(number(0)) + "/" + std::to_string(number(1)))->value,
              number(2));
    sum += uint64_t(number(2));
  }
  // Layer 5 has 4 experts a token, layer 6 has 4 before and 2 after the top-k edit at token 64.
  EXPECT_EQ(sum, 64u * 16 + 11u * 8);
}

TEST(AffinityView, ClickSelectsBothExperts) {
  const auto run = Fixture::with_edits();
  AffinityView view;
  HeadlessView host(view, run->source(), 480, 360);
  host.click("pair 9/22");
  EXPECT_EQ(run->selection, (Selection{5, 9, 22}));
  host.key(ImGuiKey_RightArrow);
  host.key(ImGuiKey_DownArrow);
  EXPECT_EQ(run->selection, (Selection{5, 10, 23}));
  const auto strongest = host.items().find("strongest 0");
  host.click("strongest 0");
  EXPECT_EQ(
      "expert " + std::to_string(*run->selection.expert) + " → expert " + std::to_string(*run->selection.expert_to),
      strongest->label);
}

TEST(AffinityView, SliderWalksTheLayersAndTheLastRowKeepsItsPredecessor) {
  const auto run = Fixture::with_edits();
  run->selection.moe_layer = 7;  // the last has no successor: 6 to 7 is shown
  AffinityView view;
  HeadlessView host(view, run->source(), 480, 360);
  EXPECT_EQ(view.subtitle(run->data, run->selection, run->cursor), "layer 6 → 7");
  const auto track = host.items().find("slider/layer");
  host.click(track->rect.x0 + 1, (track->rect.y0 + track->rect.y1) / 2);
  EXPECT_EQ(run->selection.moe_layer, 0);
}

TEST(AffinityView, OneLayerSaysThatThereIsNoNeighbour) {
  Fixture run({.layers = 1, .experts = 8, .k = 2});
  run.add_tokens(3);
  AffinityView view;
  HeadlessView host(view, run.source(), 480, 360);
  EXPECT_EQ(host.items().find("empty")->label, "One MoE layer only");
}

}  // namespace
}  // namespace switchyard
