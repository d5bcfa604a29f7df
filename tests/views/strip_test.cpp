// Token strip: cells, marks, scrubbing, keys, zoom, the live end, and tokens that left the memory.
#include <gtest/gtest.h>

#include <imgui.h>

#include <cmath>
#include <memory>

#include "tests/views/fixture.h"
#include "views/host/headless.h"
#include "views/token_strip/view.h"
#include "views/token_strip/window.h"
#include "views/ui/edits.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

// specs/analyses.md A2: mean entropy of layer 0 is 1.106707, mean margin .65625.
TEST(TokenStrip, CellsHoldTheKnownEntropyAndMarginOfMt1) {
  const auto run = Fixture::mt1();
  TokenStrip view;
  HeadlessView host(view, run->source(), 900, 92);
  const auto mean = [&] {
    double sum = 0;
    for (int t = 0; t < 16; ++t) sum += host.items().find("token " + std::to_string(t) + "/layer 1")->value;
    return sum / 16;
  };
  EXPECT_NEAR(mean(), 1.106707, 1e-6);
  view.settings()[0].value = TokenStrip::kMargin;
  host.frames(1);
  EXPECT_NEAR(mean(), 0.65625, 1e-6);
  view.settings()[0].value = TokenStrip::kExpert;
  host.frames(1);
  EXPECT_EQ(host.items().find("token 0/layer 1")->value, 3) << "T[0] starts with 31";
}

TEST(TokenStrip, MarksThePromptsEndAndEveryEditWithItsSentence) {
  const auto run = Fixture::with_edits();
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  EXPECT_EQ(host.items().find("prompt end")->value, 50);
  EXPECT_EQ(host.items().find("edit e1")->value, 53);
  EXPECT_EQ(host.items().find("edit e1")->label, "Mute expert 11 in layer 5");
  EXPECT_EQ(host.items().find("edit e2")->value, 58);
  EXPECT_EQ(host.items().find("edit e3")->value, 64);
  const auto mark = host.items().find("edit e2"), cell = host.items().find("token 58/layer 0");
  EXPECT_NEAR((mark->rect.x0 + 3), cell->rect.x0, 1.0) << "the line stands where token 58 begins";
}

TEST(TokenStrip, AnEditForTheNextTokenStandsAtTheLiveEndAndKeepsClearOfTheLegend) {
  const auto run = Fixture::with_edits();
  run->edit(Mute{{{1}}, {2}});
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  const auto mark = host.items().find("edit e4"), last = host.items().find("token 74/layer 0");
  ASSERT_TRUE(mark);
  EXPECT_EQ(mark->value, 75) << "first token under it, not routed yet";
  EXPECT_LE(mark->rect.x1, last->rect.x1 + 4);
}

// A second decision of a layer stands under the first, and selecting it leaves the layer selected.
TEST(TokenStrip, ALaterDecisionHasARowOfItsOwn) {
  const auto run = Fixture::mt1();
  for (size_t t = 8; t < run->data.frames.size(); ++t) {
    const RoutingFrame& old = *run->data.frames[t];
    auto frame = std::make_shared<RoutingFrame>(3, 4, 2, CaptureLevel::kLogits, 2);
    frame->header() = old.header();
    frame->header().passes = 2;
    for (int row = 0; row < 4; ++row) {  // row 3: router 0 again, with what router 1 did
      const int from = row == 3 ? 1 : row;
      const Decision decision{.k_used = old.layer(from).k_used, .stats = old.layer(from).stats};
      frame->record(row, decision, old.ids(from), old.weights(from), old.kinds(from), old.logits(from));
    }
    run->data.frames[t] = std::move(frame);
  }
  run->data.later_rows = {3};
  run->serial();
  TokenStrip view;
  HeadlessView host(view, run->source(), 900, 92);
  const std::string first = row_label(run->data, 0), second = row_label(run->data, 3);
  EXPECT_EQ(second, first + "·2");
  const auto upper = host.items().find("token 9/layer " + first), lower = host.items().find("token 9/layer " + second),
             next = host.items().find("token 9/layer " + row_label(run->data, 1));
  ASSERT_TRUE(upper && lower && next);
  EXPECT_LT(upper->rect.y0, lower->rect.y0);
  EXPECT_LT(lower->rect.y0, next->rect.y0);
  EXPECT_EQ(lower->value, next->value);
  EXPECT_NE(lower->label.find("decision 2"), std::string::npos) << lower->label;
  EXPECT_TRUE(std::isnan(host.items().find("token 3/layer " + second)->value)) << "the frame has no second decision";
  host.click("token 9/layer " + second);
  EXPECT_EQ(run->selection.moe_layer, 0);
  EXPECT_EQ(run->selection.pass, 1);
  EXPECT_EQ(decision_row(run->data, run->selection, run->data.frames[9].get()), 3);
  EXPECT_EQ(decision_row(run->data, run->selection, run->data.frames[3].get()), 0);
}

TEST(TokenStrip, ClickPinsTokenAndLayerAndDragScrubs) {
  const auto run = Fixture::with_edits();
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  host.click("token 30/layer 2");
  EXPECT_EQ(run->cursor, TimeCursor(30));
  EXPECT_EQ(run->selection.moe_layer, 2);
  const auto from = host.items().find("token 10/layer 4"), to = host.items().find("token 20/layer 7");
  run->cursors.clear();
  host.drag((from->rect.x0 + from->rect.x1) / 2, from->rect.y0 + 2, (to->rect.x0 + to->rect.x1) / 2, to->rect.y0 + 2,
            20);
  EXPECT_EQ(run->cursor, TimeCursor(20));
  EXPECT_EQ(run->cursors.size(), 11u) << "once for each token passed, 10 to 20";
  EXPECT_EQ(run->selection.moe_layer, 4) << "a drag keeps the layer it began in";
}

TEST(TokenStrip, KeysStepAndGoHomeAndLive) {
  const auto run = Fixture::with_edits();
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  host.key(ImGuiKey_Comma);
  EXPECT_EQ(run->cursor, TimeCursor(73));
  host.key(ImGuiKey_Comma);
  host.key(ImGuiKey_Period);
  EXPECT_EQ(run->cursor, TimeCursor(73));
  host.key(ImGuiKey_Home);
  EXPECT_EQ(run->cursor, TimeCursor(0));
  host.key(ImGuiKey_Comma);
  EXPECT_EQ(run->cursor, TimeCursor(0));
  host.key(ImGuiKey_End);
  EXPECT_EQ(run->cursor, TimeCursor());
  host.click("live");
  EXPECT_EQ(run->cursor, TimeCursor(74));
  host.click("live");
  EXPECT_EQ(run->cursor, TimeCursor());
}

TEST(TokenStrip, FollowsTheLiveEndOfALongRunAndScrollsToAPinnedToken) {
  Fixture run({.layers = 2, .experts = 8, .k = 2});
  run.add_tokens(3000);
  TokenStrip view;
  HeadlessView host(view, run.source(), 600, 92);
  EXPECT_TRUE(host.items().find("token 2999/layer 0"));
  EXPECT_FALSE(host.items().find("token 0/layer 0"));
  run.add_tokens(5);
  host.frames(1);
  EXPECT_TRUE(host.items().find("token 3004/layer 0"));
  run.cursor = 10;
  host.frames(2);
  EXPECT_TRUE(host.items().find("token 10/layer 0"));
  host.key(ImGuiKey_End);
  host.frames(2);
  EXPECT_TRUE(host.items().find("token 3004/layer 0"));
}

TEST(TokenStrip, WheelZoomsAboutThePointer) {
  const auto run = Fixture::with_edits();
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  const auto before = host.items().find("token 40/layer 3");
  const float x = (before->rect.x0 + before->rect.x1) / 2, y = (before->rect.y0 + before->rect.y1) / 2;
  host.wheel(x, y, 3);
  const auto after = host.items().find("token 40/layer 3");
  EXPECT_GT(after->rect.width(), before->rect.width() * 1.8f);
  EXPECT_TRUE(after->rect.contains(x, y)) << "the token under the pointer stays there";
  host.wheel(x, y, -20);
  EXPECT_NEAR(host.items().find("token 40/layer 3")->rect.width(), before->rect.width(), 0.1);
}

TEST(TokenStrip, FramesThatWereLetGoHaveNoValueButAreStillThere) {
  const auto run = Fixture::with_edits();
  for (int t = 0; t < 20; ++t) run->data.frames[size_t(t)] = nullptr;
  run->serial();
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  const auto gone = host.items().find("token 3/layer 1");
  EXPECT_TRUE(std::isnan(gone->value));
  EXPECT_NE(gone->detail.find("no longer in memory"), std::string::npos);
  EXPECT_FALSE(std::isnan(host.items().find("token 20/layer 1")->value));
  run->cursor = 3;
  host.frames(1);
  EXPECT_TRUE(host.items().find("token 3/layer 1")) << "the strip stays usable";
}

TEST(TokenStrip, TableHasOneRowPerTokenOfTheSelectedLayer) {
  const auto run = Fixture::with_edits();
  TokenStrip view;
  HeadlessView host(view, run->source(), 1586, 92);
  std::unique_ptr<QAbstractTableModel> model(view.make_table(nullptr));
  view.refresh_table(model.get(), run->data, run->selection, run->cursor);
  ASSERT_EQ(model->rowCount(), 75);
  for (int t = 0; t < 75; ++t)
    EXPECT_EQ(model->index(t, 5).data(TableTwin::kSortRole).toDouble(),
              host.items().find("token " + std::to_string(t) + "/layer 5")->value);
  EXPECT_EQ(model->index(49, 3).data().toString(), "prompt");
  EXPECT_EQ(model->index(50, 3).data().toString(), "generated");
  EXPECT_EQ(model->index(74, 4).data().toInt(), 3);
}

TEST(TokenWindow, ZoomAndPanStayInside) {
  TokenWindow window;
  window.update(1000, 200, true);
  EXPECT_EQ(window.first(), 800);
  EXPECT_EQ(window.span(), 200);
  window.zoom(0.5, 900);
  EXPECT_EQ(window.span(), 100);
  EXPECT_EQ(window.first(), 850);
  window.pan(1e9);
  EXPECT_EQ(window.last(), 1000);
  window.pan(-1e9);
  EXPECT_EQ(window.first(), 0);
  window.update(1001, 200, true);
  EXPECT_EQ(window.first(), 0) << "somebody looks at the start: the live end does not pull";
  window.reveal(500);
  EXPECT_TRUE(window.first() <= 500 && window.last() >= 501);
  window.zoom(1e9, 500);
  EXPECT_EQ(window.span(), 1001);
  window.zoom(1e-9, 500);
  EXPECT_EQ(window.span(), 8);
  window.update(3, 200, true);
  EXPECT_EQ(window.first(), 0);
  EXPECT_EQ(window.span(), 3);
}

}  // namespace
}  // namespace switchyard
