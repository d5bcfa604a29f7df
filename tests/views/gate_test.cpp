// Gate inspector: numbers equal to explain() and to the frame, the native decision behind the edited one,
// and the edits its sliders and buttons send.
#include <gtest/gtest.h>

#include <imgui.h>

#include <cmath>
#include <memory>
#include <string>

#include "tests/views/fixture.h"
#include "views/gate_inspector/values.h"
#include "views/gate_inspector/view.h"
#include "views/host/headless.h"
#include "views/ui/draw.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

// p[0,0] and the renormalised top-2 weights of MT1 (specs/analyses.md section 0).
TEST(GateInspector, ShowsTheKnownDecisionOfMt1) {
  const auto run = Fixture::mt1();
  run->cursor = 0;
  const GateTable table = gate_table(run->data, run->cursor, 0);
  ASSERT_EQ(table.rows.size(), 4u);
  const double p[] = {0.093947, 0.154892, 0.056982, 0.694179};
  for (size_t e = 0; e < 4; ++e) EXPECT_NEAR(table.rows[e].score, p[e], 1e-6);
  EXPECT_TRUE(table.rows[3].selected && table.rows[1].selected);
  EXPECT_NEAR(table.rows[3].weight, 0.817574, 1e-6);
  EXPECT_NEAR(table.rows[1].weight, 0.182426, 1e-6);
  EXPECT_NEAR(table.stats.margin, 0.5, 1e-6) << "logits 4 2.5 ... : 2.5 - 2";
  EXPECT_EQ(table.changed, 0);
  EXPECT_EQ(by_score(table), (std::vector<int>{3, 1, 0, 2}));
}

TEST(GateInspector, WeightsEqualTheRecordedOnesForEveryTokenAndLayerUnderEdits) {
  const auto run = Fixture::with_edits();
  run->edit(Force{{{2}}, {4}});
  run->edit(Temperature{{{1}}, 1.7f});
  run->add_tokens(20);
  for (uint64_t t = 0; t < run->data.tokens(); ++t)
    for (int row = 0; row < 8; ++row) {
      const GateTable table = gate_table(run->data, t, row);
      const RoutingFrame& frame = *run->data.frames[t];
      const auto ids = frame.used_ids(row);
      ASSERT_EQ(table.k_used, int(ids.size()));
      for (size_t slot = 0; slot < ids.size(); ++slot) {
        ASSERT_TRUE(table.rows[ids[slot]].selected) << t << " " << row;
        ASSERT_EQ(table.rows[ids[slot]].weight, frame.weights(row)[slot]) << t << " " << row;
      }
      ASSERT_EQ(table.stats.entropy, frame.layer(row).stats.entropy);
      ASSERT_EQ(table.stats.margin, frame.layer(row).stats.margin);
      ASSERT_EQ(table.changed, frame.layer(row).changed);
    }
}

TEST(GateInspector, ShowsWhatASchemeDecidedAndNamesIt) {
  for (const char* name : {"top_k", "top_p", "dynmole", "dense_to_sparse", "activation_d2s", "min_p", "ratio", "sdm"}) {
    SCOPED_TRACE(name);
    const auto run = std::make_unique<Fixture>();
    run->add_tokens(3);
    run->edit(SetScheme{{{2}}, *make_scheme({name, {}})});
    run->add_tokens(12);
    for (uint64_t t = 3; t < run->data.tokens(); ++t) {
      const RoutingFrame& frame = *run->data.frames[t];
      const GateTable table = gate_table(run->data, t, 2);
      EXPECT_EQ(table.k_used, frame.layer(2).k_used);
      const auto ids = frame.used_ids(2);
      for (size_t slot = 0; slot < ids.size(); ++slot) {
        EXPECT_TRUE(table.rows[ids[slot]].selected);
        EXPECT_FLOAT_EQ(table.rows[ids[slot]].weight, frame.weights(2)[slot]);
      }
    }
    run->selection.moe_layer = 2;
    GateInspector view;
    EXPECT_NE(view.subtitle(run->data, run->selection, uint64_t(5)).find(std::string(" · ") + name), std::string::npos);
    EXPECT_EQ(view.subtitle(run->data, run->selection, uint64_t(1)).find(name), std::string::npos);  // before it
    run->selection.moe_layer = 1;
    EXPECT_EQ(view.subtitle(run->data, run->selection, uint64_t(5)).find(name), std::string::npos);
  }
}

TEST(GateInspector, AMutedExpertKeepsItsPlaceAndItsNativeDecision) {
  Fixture run;
  run.add_tokens(10);
  const int first = run.data.frames.back()->ids(5)[0];
  run.edit(Mute{{{5}}, {ExpertId(first)}});
  // The same logits again, now under the mute.
  std::vector<std::vector<float>> logits;
  for (int row = 0; row < 8; ++row)
    logits.emplace_back(run.data.frames.back()->logits(row).begin(), run.data.frames.back()->logits(row).end());
  run.add_token(logits);
  const GateTable table = gate_table(run.data, std::nullopt, 5);
  const GateRow& muted = table.rows[size_t(first)];
  EXPECT_TRUE(muted.edits.muted);
  EXPECT_TRUE(std::isinf(muted.edited));
  EXPECT_FALSE(muted.selected);
  EXPECT_TRUE(muted.native_selected);
  EXPECT_GT(muted.native_weight, 0);
  EXPECT_EQ(table.changed, 1);
  EXPECT_EQ(by_score(table)[0], first) << "it stands where it would be unmuted";
}

TEST(GateInspector, ItemsAndTableHoldTheSameNumbers) {
  const auto run = Fixture::with_edits();
  GateInspector view;
  HeadlessView host(view, run->source(), 640, 1400);  // every row visible
  std::unique_ptr<QAbstractTableModel> model(view.make_table(nullptr));
  view.refresh_table(model.get(), run->data, run->selection, run->cursor);
  ASSERT_EQ(model->rowCount(), 32);
  for (int row = 0; row < 32; ++row) {
    const auto item = host.items().find("expert " + std::to_string(row));
    ASSERT_TRUE(item) << row;
    EXPECT_EQ(item->value, model->index(row, 8).data(TableTwin::kSortRole).toDouble());
  }
  const GateTable table = gate_table(run->data, run->cursor, 5);
  EXPECT_EQ(host.items().find("stat/entropy")->value, double(table.stats.entropy));
  EXPECT_EQ(host.items().find("stat/margin k|k+1")->value, double(table.stats.margin));
  EXPECT_EQ(host.items().find("stat/changed vs native")->value, table.changed);
}

TEST(GateInspector, ButtonsMuteForceUndoAndReset) {
  const auto run = Fixture::with_edits();
  run->selection = {5, 18, std::nullopt};
  GateInspector view;
  HeadlessView host(view, run->source(), 396, 640);
  EXPECT_EQ(host.items().find("button/mute")->label, "Mute E18");
  host.click("button/mute");
  EXPECT_EQ(run->edits.back().edit, Edit(Mute{{{5}}, {18}}));
  host.click("button/force");
  EXPECT_EQ(run->edits.back().edit, Edit(Force{{{5}}, {18}}));
  const size_t sent = run->edits.size();
  host.click("button/undo");
  EXPECT_TRUE(run->actions.empty()) << "nothing in the history to undo";
  host.click("button/reset");
  ASSERT_EQ(run->edits.size(), sent + 1) << "one edit in force in layer 5: the mute of expert 11";
  EXPECT_EQ(run->edits.back().edit, Edit(Unmute{{{5}}, {11}}));
}

TEST(GateInspector, ResetOfSeveralEditsIsOneStepThatRestoresTheLayer) {
  Fixture run;
  run.add_tokens(3);
  for (const Edit& edit :
       {Edit(Mute{{{2}}, {1, 2}}), Edit(Bias{{{2}}, {5}, 1.5f}), Edit(TopK{{{2}}, 2}), Edit(Temperature{{{2}}, 0.5f}),
        Edit(ExpertScale{{{2}}, {6}, 0.25f}), Edit(Force{{{2}}, {9}}), Edit(RouterRow{{{2}}, {3}, 2.0f}),
        Edit(SelectBias{{{2}}, {4}, 0.3f})})
    run.edit(edit);
  run.selection = {2, 5, std::nullopt};
  GateInspector view;
  HeadlessView host(view, run.source(), 396, 640);
  host.click("button/reset");
  ASSERT_EQ(run.batches.size(), 1u);
  Recipe recipe = *run.data.snapshot->epochs.back().recipe;
  ASSERT_FALSE(recipe.is_identity());
  for (const EditCommand& command : run.batches[0]) {
    ASSERT_TRUE(validate(command.edit, run.plan));
    apply(command.edit, run.plan, recipe);
  }
  EXPECT_TRUE(recipe.is_identity());
}

TEST(GateInspector, ADragOfASliderSendsEditsOfOneTag) {
  const auto run = Fixture::with_edits();
  run->selection = {5, 18, std::nullopt};
  GateInspector view;
  HeadlessView host(view, run->source(), 396, 640);
  const auto drag = [&](const char* id) {
    const auto track = host.items().find(id);
    ASSERT_TRUE(track) << id;
    const float y = (track->rect.y0 + track->rect.y1) / 2, x = (track->rect.x0 + track->rect.x1) / 2;
    run->edits.clear();
    host.drag(x, y, x + track->rect.width() * 0.3f, y, 8);
    host.frames(60);
    ASSERT_GE(run->edits.size(), 2u) << id;
    for (const EditCommand& command : run->edits) {
      EXPECT_EQ(tag(command.edit), tag(run->edits[0].edit)) << id;
      EXPECT_TRUE(validate(command.edit, run->plan)) << id;
    }
    const size_t sent = run->edits.size();
    host.frames(60);
    EXPECT_EQ(run->edits.size(), sent) << "nothing is sent once the hand is off";
  };
  drag("slider/bias");
  EXPECT_GT(std::get<Bias>(run->edits.back().edit).value, 2.0f);
  drag("slider/temperature");
  EXPECT_GT(std::get<Temperature>(run->edits.back().edit).value, 1.0f);
  drag("slider/top_k");
  EXPECT_GT(std::get<TopK>(run->edits.back().edit).k, 4);
  drag("slider/output");
  EXPECT_GT(std::get<ExpertScale>(run->edits.back().edit).value, 1.0f);
}

TEST(GateInspector, ScopeSettingSendsKAndTemperatureToAllLayers) {
  const auto run = Fixture::with_edits();
  GateInspector view;
  view.settings()[1].value = 1;
  HeadlessView host(view, run->source(), 396, 640);
  const auto track = host.items().find("slider/temperature");
  host.click(track->rect.x0 + 3, (track->rect.y0 + track->rect.y1) / 2);
  ASSERT_FALSE(run->edits.empty());
  EXPECT_TRUE(std::get<Temperature>(run->edits.back().edit).layers.all());
}

TEST(GateInspector, ArrowsWalkTheListAsItIsDrawn) {
  const auto run = Fixture::with_edits();
  GateInspector view;
  HeadlessView host(view, run->source(), 396, 640);
  const std::vector<int> order = by_score(gate_table(run->data, run->cursor, 5));
  host.key(ImGuiKey_DownArrow);
  EXPECT_EQ(run->selection.expert, order[0]);
  host.key(ImGuiKey_DownArrow);
  EXPECT_EQ(run->selection.expert, order[1]);
  for (int i = 0; i < 40; ++i) host.key(ImGuiKey_DownArrow);
  EXPECT_EQ(run->selection.expert, order.back());
  host.frames(2);
  EXPECT_TRUE(host.items().find("expert " + std::to_string(order.back()))) << "the list scrolled to it";
}

TEST(GateInspector, DrawsTheNativeDecisionAsOutlinesOnlyUnderEdits) {
  Fixture run;
  run.add_tokens(10);
  run.selection.moe_layer = 5;
  GateInspector view;
  HeadlessView host(view, run.source(), 396, 640);
  const unsigned outline = ink(run.theme->text), amber = ink(run.theme->edit);
  const int native = host.vertices_of(outline);
  EXPECT_EQ(host.vertices_of(amber), 0);
  run.edit(Bias{{{5}}, {run.data.frames.back()->ids(5)[0]}, 0.5f});
  run.add_tokens(1);
  host.frames(1);
  EXPECT_GT(host.vertices_of(outline), native + 4 * 8);
  EXPECT_GT(host.vertices_of(amber), 0);
}

TEST(GateInspector, WithoutLogitsItShowsTheSelectionAndSaysSo) {
  Fixture run;
  run.add_tokens(4);
  auto frame = std::make_shared<RoutingFrame>(8, 32, 4, CaptureLevel::kWeights);
  Decision decision;
  decision.k_used = 2;
  const ExpertId ids[] = {7, 3};
  const float weights[] = {0.25f, 0.75f};
  const SlotKind kinds[] = {SlotKind::kRouted, SlotKind::kRouted};
  frame->record(0, decision, ids, weights, kinds, {});
  run.data.frames.back() = frame;
  run.serial();
  GateInspector view;
  HeadlessView host(view, run.source(), 396, 640);
  EXPECT_NEAR(host.items().find("expert 3")->value, 0.75, 1e-7);
  EXPECT_FALSE(host.items().find("expert 0"));
  EXPECT_FALSE(gate_table(run.data, run.cursor, 0).has_logits);
}

// The router's own bias: without the tensor the scores would be wrong, so the view must say it.
TEST(GateInspector, UsesTheRoutersOwnBiasAndSaysWhenItIsMissing) {
  Fixture run({.layers = 1, .experts = 4, .k = 2});
  run.plan.layers[0].get<MoeSpec>().router.has_select_bias = true;
  run.add_tokens(1);
  EXPECT_TRUE(gate_table(run.data, run.cursor, 0).missing_bias);
  run.data.router_tensors = {{{}, {10, 0, 0, 10}}};
  const GateTable table = gate_table(run.data, run.cursor, 0);
  EXPECT_FALSE(table.missing_bias);
  EXPECT_TRUE(table.rows[0].selected && table.rows[3].selected);
}

}  // namespace
}  // namespace switchyard
