// Compare: what the picture, its items and its table say of the shadow recipes of the fixture.
#include <gtest/gtest.h>

#include <imgui.h>

#include <memory>

#include "engine/analysis/shadow.h"
#include "tests/views/fixture.h"
#include "views/compare/view.h"
#include "views/host/headless.h"
#include "views/ui/draw.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

TEST(Compare, SaysWhatToDoWithoutARecipe) {
  Fixture run;
  run.add_tokens(3);
  CompareView view;
  HeadlessView host(view, run.source(), 440, 620);
  EXPECT_EQ(host.items().find("empty")->label, "Nothing to compare with yet");
  host.click("empty/action");
  EXPECT_EQ(run.actions.back(), "compare.add_file");
}

// MT1 (specs/analyses.md, section 0), k = 2 against k = 1: token 0 of its first layer is 4 5 3 8, so experts 3 and 1
// ran with softmax weights of 4 and 2.5 after renormalisation, and k = 1 keeps expert 3.
TEST(Compare, ShowsTheKnownTokenOfMt1) {
  const auto run = Fixture::mt1();
  run->shadow({{"one", {{TopK{{}, 1}, {}}}}});
  run->cursor = 0;
  CompareView view;
  HeadlessView host(view, run->source(), 440, 620);
  const double second = 1 / (1 + std::exp(1.5));
  EXPECT_NEAR(host.items().find("pair 3")->value, second, 1e-6);  // 1 - (1 - second)
  EXPECT_NEAR(host.items().find("pair 1")->value, -second, 1e-6);
  EXPECT_FALSE(host.items().find("pair 0"));
  EXPECT_NEAR(host.items().find("stat/Jaccard")->value, 0.5, 1e-12);
  EXPECT_NEAR(host.items().find("stat/extra experts")->value, -1, 1e-12);
  EXPECT_EQ(host.items().find("stat/KL")->value, 0);
  EXPECT_EQ(host.items().find("stat/tokens")->value, 16);
  EXPECT_EQ(view.subtitle(run->data, run->selection, run->cursor), "the run beside one · layer 1");
}

TEST(Compare, PictureItemsAndTableAgreeWithTheTotals) {
  const auto run = Fixture::with_edits();
  CompareView view;
  HeadlessView host(view, run->source(), 440, 620);
  host.click("button/recipe 1");
  const ShadowState& shadow = (*run->data.snapshot->shadows)[1];
  std::unique_ptr<QAbstractTableModel> model(view.make_table(nullptr));
  view.refresh_table(model.get(), run->data, run->selection, run->cursor);
  ASSERT_EQ(model->rowCount(), 16);
  for (int row = 0; row < 8; ++row) {
    const GateDifference mean = shadow.totals->mean(row);
    const std::string layer = std::to_string(row);
    EXPECT_EQ(host.items().find("jaccard " + layer)->value, mean.jaccard);
    EXPECT_EQ(model->index(8 + row, 3).data(TableTwin::kSortRole).toDouble(), mean.jaccard);
    EXPECT_EQ(model->index(8 + row, 6).data(TableTwin::kSortRole).toDouble(), mean.js);
    double moved = 0;
    for (int e = 0; e < 32; ++e) moved += host.items().find("layer " + layer + "/expert " + std::to_string(e))->value;
    EXPECT_NEAR(moved, mean.extra_experts, 1e-9);
  }
  EXPECT_TRUE(std::isinf(host.items().find("token 20")->value)) << "layer 4 mutes an expert";
  view.settings()[0].value = 2;
  host.frames(1);
  uint64_t from = 20;
  EXPECT_FLOAT_EQ(float(host.items().find("token 20")->value), 1 - shadow.tokens->range(from, 21)[0].jaccard);
}

// What ran on one side only stands in the edit colour; the numbers are those of the frame and of explain().
TEST(Compare, TheColumnsAreBothDecisions) {
  const auto run = Fixture::with_edits();
  run->cursor = 70;
  run->selection.moe_layer = 6;  // top-k 2 at this token
  CompareView view;
  HeadlessView host(view, run->source(), 440, 620);
  const RoutingFrame& frame = *run->data.frames[70];
  const GateExplanation native = explain(run->plan.routed(6).router, nullptr, {.logits = frame.logits(6)});
  for (int e = 0; e < 32; ++e) {
    const auto item = host.items().find("pair " + std::to_string(e));
    const auto ids = frame.used_ids(6);
    const auto at = std::find(ids.begin(), ids.end(), ExpertId(e));
    ASSERT_EQ(item.has_value(), at != ids.end() || native.selected[size_t(e)]) << e;
    if (!item) continue;
    const float ran = at == ids.end() ? 0 : frame.weights(6)[size_t(at - ids.begin())];
    EXPECT_FLOAT_EQ(float(item->value), native.weights[size_t(e)] - ran);
  }
  EXPECT_GT(host.vertices_of(ink(run->theme->edit)), 0);
}

TEST(Compare, ClicksSelectTokensExpertsAndRecipes) {
  const auto run = Fixture::with_edits();
  CompareView view;
  HeadlessView host(view, run->source(), 440, 620);
  host.click("token 12");
  EXPECT_EQ(run->cursor, TimeCursor(12));
  host.click("layer 2/expert 9");
  EXPECT_EQ(run->selection, (Selection{2, 9, std::nullopt}));
  host.key(ImGuiKey_DownArrow);
  EXPECT_EQ(run->selection.moe_layer, 3);
  host.click("button/recipe 1");
  host.click("button/remove");
  EXPECT_EQ(run->removed_shadows, std::vector<size_t>{1});
  host.click("button/add_edits");
  EXPECT_EQ(run->actions.back(), "compare.add_edits");
}

TEST(Compare, SaysWhyNothingIsCompared) {
  Fixture run;
  run.add_tokens(3);
  run.data.frames.back() = std::make_shared<RoutingFrame>(8, 32, 4, CaptureLevel::kWeights);
  run.shadow({{"native router", {}}});
  CompareView view;
  HeadlessView host(view, run.source(), 440, 620);
  EXPECT_TRUE(host.stage().failure().empty()) << host.stage().failure();
  EXPECT_EQ((*run.data.snapshot->shadows)[0].unavailable,
            "router logits are not captured: set the capture level to logits");
}

}  // namespace
}  // namespace switchyard
