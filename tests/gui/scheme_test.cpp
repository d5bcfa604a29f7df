// The Scheme panel from the user's hand: choose, drag, see the experts per token vary, undo; and its help pages.
#include <algorithm>
#include <set>

#include <QAction>
#include <QComboBox>
#include <QDir>
#include <QDoubleSpinBox>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSlider>
#include <QStandardItemModel>
#include <QToolButton>

#include "app/gui/action_table.h"
#include "app/gui/active_experts_plot.h"
#include "app/gui/docks/adapter_section.h"
#include "app/gui/docks/path_budget.h"
#include "app/gui/docks/path_strip.h"
#include "app/gui/docks/scheme_panel.h"
#include "app/gui/help_dialog.h"
#include "app/gui/workbench.h"
#include "app/session/scheme_choices.h"
#include "engine/routing/scheme_file.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class SchemeWindow : public DemoWindow {
 protected:
  void SetUp() override {
    DemoWindow::SetUp();
    if (HasFatalFailure()) return;
    window_->show_dock("scheme");
    model().select({kRow, std::nullopt, std::nullopt});
    QTest::qWait(50);
  }
  SchemePanel& panel() { return window_->scheme(); }
  QComboBox* box(const char* name) { return panel().findChild<QComboBox*>(name); }
  // As a hand picks an entry.
  void pick(QComboBox* list, const QString& data) {
    const int index = list->findData(data);
    ASSERT_GE(index, 0) << data.toStdString();
    list->setCurrentIndex(index);
    Q_EMIT list->activated(index);
  }
  bool taken() {
    return wait_until([&] { return !model().data().recipe_ahead; }, 5000);
  }
  const Scheme* in_force(int row) {
    const Recipe* recipe = model().recipe_ahead();
    const LayerRecipe* layer = recipe ? recipe->layer(row) : nullptr;
    return layer && layer->scheme ? &layer->scheme : nullptr;
  }
  // How many experts the generated tokens from `first` on took in a row.
  std::multiset<int> used(int row, uint64_t first) {
    std::multiset<int> out;
    for (uint64_t t = first; t < model().data().tokens(); ++t) out.insert(model().data().frames[t]->layer(row).k_used);
    return out;
  }
  static constexpr int kRow = 5;
};

TEST_F(SchemeWindow, TopPChosenInThePanelVariesTheExpertsPerTokenAndUndoBringsTheModelBack) {
  const int k = model().data().plan->routed(kRow).router.experts_per_token;
  pick(box("scheme.choice"), "top_p");
  ASSERT_TRUE(taken()) << newest_message();
  ASSERT_EQ(model().snapshot()->history.size(), 1u);
  ASSERT_TRUE(in_force(kRow));
  EXPECT_EQ(in_force(kRow)->choice.name, "top_p");
  EXPECT_FALSE(in_force(kRow - 1));
  auto* p = panel().findChild<QDoubleSpinBox*>("scheme.number.p");
  ASSERT_TRUE(p);
  p->setValue(0.5);
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_NEAR(in_force(kRow)->stages.p, 0.5, 1e-6);

  run("The king said unto the people", 120);
  const auto here = used(kRow, 0), elsewhere = used(kRow - 1, 0);
  EXPECT_GT(std::set<int>(here.begin(), here.end()).size(), 2u);
  EXPECT_EQ(std::set<int>(elsewhere.begin(), elsewhere.end()), std::set<int>{k});
  // By the scheme's own words: the fewest experts whose probabilities add up to more than p.
  for (uint64_t t = 0; t < model().data().tokens(); ++t) {
    const auto logits = model().data().frames[t]->logits(kRow);
    std::vector<double> scores;
    double sum = 0, mass = 0;
    const float top = *std::max_element(logits.begin(), logits.end());
    for (const float z : logits) scores.push_back(std::exp(double(z) - top)), sum += scores.back();
    std::sort(scores.rbegin(), scores.rend());
    int needed = 0;
    while (mass <= 0.5) mass += scores[size_t(needed++)] / sum;
    if (std::abs(mass - 0.5) < 1e-5 || std::abs(mass - scores[size_t(needed - 1)] / sum - 0.5) < 1e-5) continue;
    EXPECT_EQ(model().data().frames[t]->layer(kRow).k_used, needed) << "token " << t;
  }

  // The histogram counts the last tokens, as the frames say.
  const ActiveExperts& counts = panel().plot().counts();
  const uint64_t window = uint64_t(model().data().window);
  ASSERT_TRUE(wait_until([&] { return panel().plot().counts().total == window; }, 3000)) << counts.total;
  const auto last = used(kRow, model().data().tokens() - window);
  for (size_t n = 0; n < counts.tokens.size(); ++n) EXPECT_EQ(counts.tokens[n], last.count(int(n))) << n;
  EXPECT_TRUE(panel().plot().accessibleDescription().contains("tokens"));

  window_->actions().run("edit.undo");  // the number
  window_->actions().run("edit.undo");  // the scheme
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 0; }, 5000));
  EXPECT_EQ(box("scheme.choice")->currentData().toString(), "native");
  const uint64_t undone = model().data().tokens();
  model().play(5);
  ASSERT_TRUE(wait_until([&] { return model().state() == RunState::kFinished && model().data().tokens() > undone; }));
  model().drain();
  const auto native = used(kRow, undone);
  EXPECT_EQ(std::set<int>(native.begin(), native.end()), std::set<int>{k});
}

TEST_F(SchemeWindow, ADragOfASliderIsOneStep) {
  panel().choose("top_p");
  ASSERT_TRUE(taken());
  QTest::qWait(1200);  // a second later it is a step of its own
  const size_t before = model().snapshot()->history.size();
  auto* slider = panel().findChild<QSlider*>("scheme.slider.p");
  ASSERT_TRUE(slider);
  slider->setSliderDown(true);
  for (int at = 300; at <= 700; at += 20) {
    slider->setValue(at);
    QTest::qWait(5);
  }
  slider->setSliderDown(false);
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_EQ(model().snapshot()->history.size(), before + 1);
  EXPECT_NEAR(in_force(kRow)->stages.p, panel().findChild<QDoubleSpinBox*>("scheme.number.p")->value(), 1e-3);
  window_->actions().run("edit.undo");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == before; }, 5000));
  EXPECT_EQ(in_force(kRow)->choice, (SchemeChoice{"top_p", {}}));
  EXPECT_NEAR(panel().findChild<QDoubleSpinBox*>("scheme.number.p")->value(),
              std::get<double>(find_scheme("top_p")->parameters[0].standard), 1e-6);
}

TEST_F(SchemeWindow, AllLayersAtOnceAndNativeAgain) {
  Q_EMIT box("scheme.scope")->activated(1);
  EXPECT_TRUE(panel().all_layers());
  window_->actions().run("scheme.min_p");
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_EQ(model().snapshot()->history.size(), 1u);
  for (size_t row = 0; row < model().data().plan->moe_layers.size(); ++row) {
    ASSERT_TRUE(in_force(int(row))) << row;
    EXPECT_EQ(in_force(int(row))->choice.name, "min_p");
  }
  auto* native = panel().findChild<QPushButton*>("scheme.native");
  ASSERT_TRUE(native->isEnabled());
  native->click();
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_EQ(model().snapshot()->history.size(), 2u);
  EXPECT_TRUE(model().snapshot()->epochs.back().recipe->is_identity());
  EXPECT_FALSE(native->isEnabled());
}

// Every scheme of the registry can be chosen by hand and by its action, or says why not, in the box and in the menu.
TEST_F(SchemeWindow, WhatCannotBeChosenIsGreyAndSaysWhy) {
  const auto* items = qobject_cast<QStandardItemModel*>(box("scheme.choice")->model());
  ASSERT_EQ(items->rowCount(), int(schemes().size()));
  size_t edits = 0;
  for (int i = 0; i < items->rowCount(); ++i) {
    const QString name = box("scheme.choice")->itemData(i).toString(), reason = panel().why_not(name);
    SCOPED_TRACE(name.toStdString());
    EXPECT_EQ(items->item(i)->isEnabled(), reason.isEmpty());
    EXPECT_FALSE(items->item(i)->toolTip().isEmpty());
    EXPECT_EQ(window_->actions().action("scheme." + name)->isEnabled(), reason.isEmpty());
    if (!reason.isEmpty()) {
      EXPECT_EQ(items->item(i)->toolTip(), reason);
      panel().choose(name);
      EXPECT_NE(panel().shown().name, name.toStdString());
      continue;
    }
    panel().choose(name);
    ASSERT_TRUE(taken()) << newest_message();
    if (panel().message().isEmpty()) {
      EXPECT_EQ(scheme_in_force(model().recipe_ahead(), kRow).name, name.toStdString());
      edits = model().snapshot()->history.size();
    } else {  // it waits for its file
      EXPECT_TRUE(needs_file(*find_scheme(name.toStdString()))) << panel().message().toStdString();
      EXPECT_EQ(model().snapshot()->history.size(), edits);
    }
    for (const SchemeParameter& parameter : find_scheme(name.toStdString())->parameters)
      EXPECT_TRUE(panel().findChild<QWidget*>(QString("scheme.") + parameter.name)) << parameter.name;
  }
}

// No real expert at all: every picture has to live with a row without a choice.
TEST_F(SchemeWindow, TokensWithoutAnExpertAreCountedAndDrawn) {
  panel().choose("adamoe");
  panel().set_parameter("null_source", SchemeValue(std::string("constant")));
  panel().set_parameter("null_logit", SchemeValue(1000.0));
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_EQ(panel().message(), QString());
  run("The king said unto the people", 40);
  const auto here = used(kRow, 0);
  EXPECT_EQ(std::set<int>(here.begin(), here.end()), std::set<int>{0});
  ASSERT_TRUE(wait_until([&] { return panel().plot().counts().total > 0; }, 3000));
  EXPECT_EQ(panel().plot().counts().tokens.size(), 1u);
  EXPECT_EQ(panel().plot().counts().mean, 0);
  QTest::qWait(400);  // all pictures have drawn it
  for (LiveDock* dock : window_->live_docks())
    EXPECT_FALSE(dock->live()->items().find("failure")) << dock->objectName().toStdString();
}

// doge's product keys: no router row an expert, so nothing to take a cosine of.
TEST(SchemeChoices, SayWhyARouterCannotRunAScheme) {
  ModelPlan plan;
  plan.vocab = 64;
  plan.hidden = 8;
  plan.layers.resize(2);
  MoeSpec moe;
  moe.router.experts = 4;
  moe.router.experts_per_token = 2;
  plan.layers[0].sublayers.push_back({.op = moe});
  moe.router.product_key = true;
  plan.layers[1].sublayers.push_back({.op = moe});
  number_rows(plan);
  const SchemeInfo& prototype = *find_scheme("prototype");
  EXPECT_EQ(why_not(prototype, plan, 0, false), "");
  EXPECT_NE(why_not(prototype, plan, 1, false).find("no row per expert"), std::string::npos)
      << why_not(prototype, plan, 1, false);
  EXPECT_NE(why_not(prototype, plan, 0, true), "");  // all layers: one of them cannot
  EXPECT_EQ(why_not(*find_scheme("top_p"), plan, 0, true), "");
  EXPECT_FALSE(scheme_edit(*make_scheme({"top_k", {{"k", 5.0}}}), plan, 0, false));  // four experts
  EXPECT_TRUE(scheme_edit(*make_scheme({"top_k", {{"k", 4.0}}}), plan, 0, false));
}

TEST_F(SchemeWindow, AFileThatCannotBeReadIsToldInPlaceAndChangesNothing) {
  const SchemeInfo* info = nullptr;
  const SchemeParameter* file = nullptr;
  for (const SchemeInfo& scheme : schemes())
    for (const SchemeParameter& parameter : scheme.parameters)
      if (parameter.type == SchemeParameter::Type::kFile && !file) info = &scheme, file = &parameter;
  ASSERT_TRUE(file);
  panel().choose(info->name);
  ASSERT_TRUE(taken());
  const size_t before = model().snapshot()->history.size();
  panel().set_parameter(file->name, SchemeValue(std::string("/no/such/table.json")));
  ASSERT_TRUE(wait_until([&] { return panel().message().contains("/no/such"); }, 5000))
      << panel().message().toStdString();
  EXPECT_TRUE(panel().findChild<QLabel*>("scheme.message")->isVisible());
  EXPECT_EQ(model().snapshot()->history.size(), before);
}

// Every scheme that reads a file offers its example; one click puts it in force.
TEST_F(SchemeWindow, TheExampleOfAFileIsOneClickAway) {
  int clicked = 0;
  for (const SchemeInfo& scheme : schemes()) {
    const auto file = std::ranges::find(scheme.parameters, SchemeParameter::Type::kFile, &SchemeParameter::type);
    if (file == scheme.parameters.end() || example_of(scheme.name).empty()) continue;
    SCOPED_TRACE(scheme.name);
    panel().choose(scheme.name);
    ASSERT_TRUE(taken());
    auto* demo = panel().findChild<QToolButton*>(QString("scheme.example.") + file->name);
    ASSERT_TRUE(demo);
    demo->click();
    ASSERT_TRUE(wait_until([&] { return in_force(kRow) && in_force(kRow)->file_name() == example_of(scheme.name); }, 5000))
        << panel().message().toStdString();
    EXPECT_EQ(in_force(kRow)->choice.name, scheme.name);
    ++clicked;
  }
  EXPECT_GE(clicked, 8);
  run("The king said unto the people", 12);
  EXPECT_EQ(model().data().tokens() > 12, true);
}

TEST(SchemePages, EachSchemeHasAWholePageAndTheListLinksToIt) {
  const QString list = help_page("schemes");
  std::set<QString> registered;
  for (const SchemeInfo& scheme : schemes()) {
    const QString name = scheme.name;
    if (name == "native") continue;
    registered.insert(name);
    SCOPED_TRACE(name.toStdString());
    const QString page = help_page("schemes/" + name);
    for (const char* part : {"# Scheme: ", "## What it is", "## Formula", "## Worked example", "## Source",
                             "## Parameters", "## What to look for", "## Traps"})
      EXPECT_TRUE(page.contains(part)) << part;
    EXPECT_FALSE(page.contains("Not in this version"));
    EXPECT_TRUE(list.contains("(schemes/" + name + ".md)"));
  }
  // A page of a scheme that is not there says so first.
  for (const QString& page : help_pages())
    if (page.startsWith("schemes/") && !registered.count(page.mid(8))) {
      EXPECT_TRUE(help_page(page).section('\n', 2, 2).startsWith("**Not in this version.**")) << page.toStdString();
    }
}

TEST(AdapterPages, EachRouterHasAWholePageAndTheListsLinkToIt) {
  const QString page_of_all = help_page("adapters"), papers = help_page("schemes");
  for (const AdapterRouterInfo& info : adapter_routers()) {
    const QString name = info.name;
    SCOPED_TRACE(name.toStdString());
    const QString page = help_page("adapters/" + name);
    for (const char* part : {"# Adapter router: ", "## What it is", "## Formula", "## Worked example", "## Source", "## Parameters",
                             "## What to look for", "## Traps"})
      EXPECT_TRUE(page.contains(part)) << part;
    EXPECT_TRUE(page_of_all.contains("(adapters/" + name + ".md)"));
    EXPECT_TRUE(name == "fixed" || papers.contains("(adapters/" + name + ".md)"));
  }
}

TEST_F(SchemeWindow, AdaptersAreAttachedRoutedAndTakenAway) {
  AdapterSection& section = panel().adapters();
  const auto adapters_of = [&](int layer) -> const AdapterSet* {
    const Recipe* recipe = model().recipe_ahead();
    return recipe ? recipe->adapters_at(layer * 101) : nullptr;  // of the demo: 5 places of attention, 32 experts of 3
  };
  section.set_files({"adapters.safetensors"});  // the shipped example
  section.set_modules({"q_proj"});
  section.choose_router("arrow");
  panel().findChild<QPushButton*>("adapters.attach")->click();
  ASSERT_TRUE(wait_until([&] { return section.attached(); }, 10000)) << section.message().toStdString();
  ASSERT_TRUE(taken()) << newest_message();
  ASSERT_TRUE(adapters_of(model().model_layer()));
  EXPECT_FALSE(adapters_of(model().model_layer() - 1)) << "this layer alone";
  section.set_parameter("k", 1.0);
  ASSERT_TRUE(wait_until([&] { const AdapterSet* set = adapters_of(model().model_layer()); return set && set->rule.k == 1; }, 10000));
  ASSERT_TRUE(taken()) << newest_message();
  run("The king said unto the people", 20);
  ASSERT_TRUE(wait_until([&] { return section.decisions().startsWith("q_proj: adapters.safetensors "); }, 5000)) << section.decisions().toStdString();
  EXPECT_TRUE(section.decisions().endsWith("1.000")) << section.decisions().toStdString();

  section.choose_router("mogu");  // wants two adapters, here are four
  ASSERT_TRUE(wait_until([&] { return !section.message().isEmpty(); }, 10000));
  EXPECT_TRUE(section.message().contains("mogu blends two adapters"));
  EXPECT_EQ(adapters_of(model().model_layer())->choice.router, "arrow") << "what was refused changes nothing";
  panel().findChild<QPushButton*>("adapters.remove")->click();
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_FALSE(section.attached());
  EXPECT_TRUE(model().recipe_ahead()->is_identity());
}

TEST_F(SchemeWindow, HelpOfTheDockIsThePageOfTheScheme) {
  panel().choose("top_p");
  ASSERT_TRUE(taken());
  EXPECT_EQ(window_->workbench().dock("scheme")->help_page(), "schemes/top_p");
  panel().choose("native");
  ASSERT_TRUE(taken());
  EXPECT_EQ(window_->workbench().dock("scheme")->help_page(), "schemes");
}

// Skip and repeat by key and by click; each is an undo step, and what is sent during a run waits for the next one.
TEST_F(SchemeWindow, TheStripSkipsAndRepeatsLayersFromTheNextPrefillOn) {
  PathStrip& strip = panel().path();
  ASSERT_EQ(strip.layers(), 8);
  strip.setFocus();
  strip.set_current(2);
  QTest::keyClick(&strip, Qt::Key_Space);  // skip
  ASSERT_TRUE(taken()) << newest_message();
  QTest::keyClick(&strip, Qt::Key_Right);
  QTest::keyClick(&strip, Qt::Key_2);
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_EQ(strip.passes(2), 0);
  EXPECT_EQ(strip.passes(3), 2);
  EXPECT_EQ(strip.passes(4), 1);
  EXPECT_FALSE(strip.waits()) << "no sequence runs";
  ASSERT_EQ(model().snapshot()->history.size(), 2u);

  run("The king said", 12);
  for (const auto& frame : model().data().frames) {
    EXPECT_FALSE(frame->passed(2));
    EXPECT_TRUE(frame->passed(8 + 3)) << "a row for the second pass of layer 3";
    EXPECT_FALSE(frame->passed(8 + 4));
  }
  model().undo();
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 1; }, 5000));
  EXPECT_EQ(strip.passes(3), 1);
  EXPECT_TRUE(strip.waits());
  EXPECT_TRUE(strip.note().contains("next prefill"));
  EXPECT_TRUE(model().data().frames.back()->passed(8 + 3)) << "the sequence keeps its path";

  run("The king said", 12);
  EXPECT_FALSE(strip.waits());
  EXPECT_FALSE(model().data().frames.back()->passed(8 + 3));
  EXPECT_FALSE(model().data().frames.back()->passed(2));
  QTest::keyClick(&strip, Qt::Key_Left);
  QTest::keyClick(&strip, Qt::Key_R);  // runs again
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_TRUE(strip.waits());
  EXPECT_TRUE(model().path_ahead().native()) << "every layer once is the model's own path";

  run("The king said", 4);
  EXPECT_FALSE(strip.waits());
  QTest::keyClick(&strip, Qt::Key_3);
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_TRUE(strip.waits()) << "the model's own path runs, another is ahead";
  window_->actions().run("edit.reset_all");
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_TRUE(model().path_ahead().native());
  EXPECT_FALSE(strip.waits());
}

// Routers of layers choose the path of each prompt; the knob shortens or lengthens it, one undo step a change.
TEST_F(SchemeWindow, LayerRoutersChooseThePathUnderABudget) {
  PathStrip& strip = panel().path();
  auto* slider = panel().findChild<QSlider*>("scheme.path.budget");
  auto* example = panel().findChild<QToolButton*>("scheme.path.example");
  ASSERT_TRUE(slider && example);
  EXPECT_FALSE(slider->isEnabled());
  const auto layers_run = [&] {
    int passes = 0;
    for (int layer = 0; layer < strip.layers(); ++layer) passes += model().snapshot()->epochs.back().recipe->passes_of(layer);
    return passes;
  };
  QTest::mouseClick(example, Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return slider->isEnabled() && !model().data().recipe_ahead; }, 5000)) << panel().message().toStdString();
  EXPECT_TRUE(strip.note().contains("routers"));
  EXPECT_EQ(panel().budget().budget(), -0.5);
  run("The king said unto the people", 4);
  EXPECT_FALSE(model().snapshot()->epochs.back().recipe->path.chooser);
  EXPECT_GE(layers_run(), 1);

  slider->setValue(100);
  ASSERT_TRUE(taken()) << newest_message();
  EXPECT_EQ(model().path_ahead().chooser.budget, 1);
  run("The king said unto the people", 4);
  EXPECT_EQ(layers_run(), 16) << "1 repeats every layer";
  slider->setValue(-100);
  ASSERT_TRUE(taken()) << newest_message();
  run("The king said unto the people", 4);
  EXPECT_EQ(layers_run(), 1) << "-1 skips all but one";
  ASSERT_EQ(model().snapshot()->history.size(), 3u);
  model().undo();
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 2; }, 5000));
  EXPECT_EQ(slider->value(), 100) << "undo moves the knob back";

  panel().budget().take_file("/nowhere/routers.safetensors");
  ASSERT_TRUE(wait_until([&] { return panel().message().contains("nowhere"); }, 5000));
  EXPECT_EQ(model().snapshot()->history.size(), 3u);
}

}  // namespace
}  // namespace switchyard
