// What must hold of every built-in view: empty states, odd sizes and shapes, help pages, settings.
#include <gtest/gtest.h>

#include <imgui.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "tests/views/fixture.h"
#include "views/host/headless.h"

namespace switchyard {
namespace {

TEST(EveryView, HasItsIdOnce) {
  std::set<std::string> ids;
  for (const auto& view : make_builtin_views()) ids.insert(std::string(view->id()));
  EXPECT_EQ(ids,
            (std::set<std::string>{"routing_heatmap", "gate_inspector", "expert_load", "affinity", "token_strip", "compare"}));
}

TEST(EveryView, HasAHelpPageThatSaysWhatItShowsHowItIsComputedTrapsAndKeys) {
  for (const auto& view : make_builtin_views()) {
    const std::filesystem::path page =
        std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "assets/help/views" / (std::string(view->id()) + ".md");
    std::ifstream file(page);
    ASSERT_TRUE(file) << page << " is missing";
    std::stringstream text;
    text << file.rdbuf();
    for (const char* part : {"## What it shows", "## Formula", "## How to read it", "## Traps", "## Keys"})
      EXPECT_NE(text.str().find(part), std::string::npos) << page << " lacks \"" << part << '"';
    for (const ViewSetting& setting : view->settings())
      for (const std::string& option : setting.options)
        EXPECT_NE(text.str().find(option), std::string::npos)
            << page << " does not explain the setting \"" << option << '"';
  }
}

TEST(EveryView, SaysWhatToDoWithoutAModelAndBeforeTheFirstToken) {
  for (const auto& view : make_builtin_views()) {
    SCOPED_TRACE(std::string(view->id()));
    Fixture run;
    HeadlessView host(*view, run.source(), 500, 300);
    EXPECT_EQ(host.items().find("empty")->label, "No token has been routed yet");
    host.click("empty/action");
    ASSERT_EQ(run.actions.size(), 1u);
    EXPECT_EQ(run.actions[0], "run.start");
    run.data.plan = nullptr;
    host.frames(1);
    EXPECT_EQ(host.items().find("empty")->label, "No model is open");
    host.click("empty/action");
    EXPECT_EQ(run.actions.back(), "file.open_demo");
    view->subtitle(run.data, run.selection, run.cursor);
    EXPECT_TRUE(run.edits.empty() && run.selections.empty());
    for (const ImGuiKey key : {ImGuiKey_M, ImGuiKey_G, ImGuiKey_LeftBracket, ImGuiKey_RightArrow, ImGuiKey_DownArrow,
                               ImGuiKey_Home, ImGuiKey_Comma})
      host.key(key);
    EXPECT_TRUE(run.edits.empty() && run.selections.empty() && run.cursors.empty())
        << "keys do nothing in an empty view";
  }
}

TEST(EveryView, DrawsAtAnySizeScaleThemeAndSetting) {
  const auto run = Fixture::with_edits();
  run->selection = {5, 18, 3};
  for (auto& view : make_builtin_views()) {
    SCOPED_TRACE(std::string(view->id()));
    for (const Theme* theme : {&dark_theme(), &light_theme()})
      for (const float scale : {0.8f, 1.0f, 2.0f}) {
        run->theme = theme;
        ViewSource source = run->source();
        source.scale = scale;
        HeadlessView host(*view, source, 200, 150);
        for (const auto& [w, h] : {std::pair{1, 1}, {12, 400}, {400, 12}, {200, 150}, {1600, 900}, {5000, 3000}}) {
          host.resize(float(w), float(h));
          host.frames(2);
          EXPECT_GT(host.items().size(), 0u) << w << "x" << h;
          EXPECT_TRUE(host.stage().failure().empty()) << host.stage().failure();
        }
        for (ViewSetting& setting : view->settings())
          for (setting.value = int(setting.options.size()) - 1; setting.value > 0; --setting.value) {
            host.frames(1);
            EXPECT_TRUE(host.stage().failure().empty()) << setting.id << " " << setting.value;
            EXPECT_FALSE(view->subtitle(run->data, run->selection, run->cursor).empty());
          }
      }
  }
}

TEST(EveryView, DrawsModelsOfManyShapes) {
  for (const FixtureShape shape : {FixtureShape{.layers = 1, .experts = 1, .k = 1},
                                   {.layers = 1, .experts = 8, .k = 8},
                                   {.layers = 2, .experts = 2, .k = 1, .first_layer = 3},
                                   {.layers = 58, .experts = 256, .k = 8, .first_layer = 3},
                                   {.layers = 3, .experts = 60, .k = 4, .sparse = true}}) {
    SCOPED_TRACE(std::to_string(shape.layers) + "x" + std::to_string(shape.experts));
    Fixture run(shape);
    run.add_tokens(shape.layers > 20 ? 5 : 70);
    run.selection = {shape.layers - 1, shape.experts - 1, std::nullopt};
    for (const auto& view : make_builtin_views()) {
      HeadlessView host(*view, run.source(), 640, 400);
      host.move(200, 60);
      host.key(ImGuiKey_RightArrow);
      host.key(ImGuiKey_DownArrow);
      EXPECT_TRUE(host.stage().failure().empty()) << view->id() << ": " << host.stage().failure();
    }
  }
}

TEST(EveryView, ASelectionOfAnotherModelIsHarmless) {
  const auto run = Fixture::with_edits();
  run->selection = {999, 12345, 4242};
  run->cursor = 1'000'000;
  for (const auto& view : make_builtin_views()) {
    HeadlessView host(*view, run->source(), 640, 400);
    for (const ImGuiKey key :
         {ImGuiKey_RightArrow, ImGuiKey_UpArrow, ImGuiKey_M, ImGuiKey_RightBracket, ImGuiKey_Comma})
      host.key(key);
    EXPECT_TRUE(host.stage().failure().empty()) << view->id();
    for (const EditCommand& edit : run->edits)
      EXPECT_TRUE(validate(edit.edit, run->plan)) << view->id() << " sent an edit the model cannot take";
    run->selection = {999, 12345, 4242};
    run->cursor = 1'000'000;
  }
}

TEST(EveryView, FramesWithoutCaptureOrMemorySayWhatIsMissing) {
  for (const auto& view : make_builtin_views()) {
    Fixture run;
    run.add_tokens(3);
    run.data.frames.back() = nullptr;
    run.serial();
    HeadlessView host(*view, run.source(), 640, 400);
    if (view->id() != "token_strip") {
      ASSERT_TRUE(host.items().find("empty")) << view->id();
      EXPECT_EQ(host.items().find("empty")->label, "This token is no longer in memory");
      run.data.frames.back() = std::make_shared<RoutingFrame>(8, 32, 4, CaptureLevel::kOff);
      run.serial();
      host.frames(1);
      EXPECT_EQ(host.items().find("empty")->label, "Routing is not captured");
    }
  }
}

// Every item the picture registers lies inside the widget and has words: that is what a screen reader gets.
TEST(EveryView, ItemsAreNamedAndInsideTheWidget) {
  const auto run = Fixture::with_edits();
  for (const auto& view : make_builtin_views()) {
    HeadlessView host(*view, run->source(), 700, 500);
    std::set<std::string> ids;
    host.items().each([&](const Item& item) {
      EXPECT_FALSE(item.label.empty()) << view->id() << " " << item.id;
      EXPECT_TRUE(ids.insert(item.id).second) << view->id() << " has two items " << item.id;
      EXPECT_GE(item.rect.x1, item.rect.x0);
      EXPECT_GT(item.rect.x1, 0);
      EXPECT_LT(item.rect.x0, 700);
    });
  }
}

}  // namespace
}  // namespace switchyard
