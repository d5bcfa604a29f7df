// The item map, the stage and the headless host.
#include <gtest/gtest.h>

#include <imgui.h>

#include <limits>

#include "tests/views/fixture.h"
#include "views/host/headless.h"
#include "views/ui/draw.h"

namespace switchyard {
namespace {

TEST(ItemMap, GivesTheLastItemDrawnAtAPlace) {
  ItemMap map;
  map.add({"below", "below", 1, "", {0, 0, 10, 10}, {}});
  map.add({"above", "above", 2, "", {5, 5, 10, 10}, {}});
  EXPECT_EQ(map.at(6, 6)->id, "above");
  EXPECT_EQ(map.at(1, 1)->id, "below");
  EXPECT_FALSE(map.at(10, 10)) << "the far edge is outside";
  EXPECT_EQ(map.find("above")->value, 2);
  EXPECT_FALSE(map.find("nothing"));
}

TEST(ItemMap, MakesCellsOfAGridWhenAsked) {
  ItemMap map;
  int made = 0;
  map.add_grid({2, 3, {0, 0, 30, 20}, [&made](int row, int col) {
                  ++made;
                  return Item{std::to_string(row) + "/" + std::to_string(col), "", double(row * 3 + col), "", {}, {}};
                }});
  EXPECT_EQ(map.size(), 6u);
  EXPECT_EQ(made, 0);
  EXPECT_EQ(map.at(29, 19)->id, "1/2");
  EXPECT_EQ(made, 1);
  EXPECT_EQ(map.find("1/0")->value, 3);
}

TEST(ItemMap, HasNoCellsOnceTheirDataIsGone) {
  bool there = true;
  ItemMap map;
  map.begin([&there] { return there; });
  map.add_grid({1, 1, {0, 0, 10, 10}, [](int, int) { return Item{"cell", "", 0, "", {}, {}}; }});
  EXPECT_TRUE(map.at(5, 5));
  there = false;
  EXPECT_FALSE(map.at(5, 5));
  EXPECT_FALSE(map.find("cell"));
}

TEST(ItemMap, WritesValuesForPeople) {
  EXPECT_EQ(value_text({"", "", 3, "decisions", {}, {}}), "3 decisions");
  EXPECT_EQ(value_text({"", "", 1.23456, "nat", {}, {}}), "1.235 nat");
  EXPECT_EQ(value_text({"", "", std::numeric_limits<double>::quiet_NaN(), "nat", {}, {}}), "no value");
}

class Thrower : public View {
 public:
  std::string_view id() const override { return "thrower"; }
  std::string_view title() const override { return "Thrower"; }
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override {
    ImGui::BeginChild("child");
    ImGui::PushStyleVar(ImGuiStyleVar_Alpha, 0.5f);
    if (broken) throw std::runtime_error("shape [3] where [4] was needed");
    ImGui::PopStyleVar();
    ImGui::EndChild();
    context.items.add({"picture", "picture", 0, "", view_area(), {}});
  }
  QAbstractTableModel* make_table(QObject*) override { return nullptr; }
  void refresh_table(QAbstractTableModel*, const RunData&, const Selection&, const TimeCursor&) override {}
  bool broken = true;

 private:
  std::vector<ViewSetting> settings_;
};

TEST(Stage, ShowsTheMessageOfAViewThatThrowsAndTriesAgainOnTheButton) {
  Thrower view;
  Fixture run;
  HeadlessView host(view, run.source(), 400, 300);
  EXPECT_EQ(host.stage().failure(), "shape [3] where [4] was needed");
  EXPECT_TRUE(host.items().find("failure/retry"));
  EXPECT_FALSE(host.items().find("picture"));
  host.click("failure/retry");
  EXPECT_EQ(host.stage().failure(), "shape [3] where [4] was needed") << "still broken: stopped again, no crash";
  view.broken = false;
  host.click("failure/retry");
  EXPECT_TRUE(host.stage().failure().empty());
  EXPECT_TRUE(host.items().find("picture"));
}

TEST(Stage, TwoViewsKeepTheirOwnContexts) {
  const auto run = Fixture::with_edits();
  auto views = make_builtin_views();
  HeadlessView a(*views[0], run->source(), 500, 300);
  HeadlessView b(*views[1], run->source(), 300, 500);
  const int before = a.vertices();
  b.frames(3);
  a.frames(2);
  EXPECT_EQ(a.vertices(), before);
}

TEST(Draw, CutsTextAtCharacterBoundaries) {
  const auto run = Fixture::with_edits();
  auto views = make_builtin_views();
  HeadlessView host(*views[0], run->source(), 400, 300);
  host.stage().activate();
  ImGui::NewFrame();
  const std::string text = "köln – 東京 and further away";
  for (float width = 0; width < 220; width += 3) {
    const std::string cut = fitted(Face::kWords, text, width);
    EXPECT_LE(text_width(Face::kWords, cut), width + 0.01f);
    for (size_t i = 0; i < cut.size();) {  // valid UTF-8: every lead byte has its followers
      const uint8_t lead = uint8_t(cut[i]);
      const size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      ASSERT_LE(i + bytes, cut.size()) << cut;
      for (size_t j = 1; j < bytes; ++j) ASSERT_EQ(uint8_t(cut[i + j]) & 0xC0, 0x80) << cut;
      i += bytes;
    }
  }
  EXPECT_EQ(fitted(Face::kWords, text, 1e6f), text);
  ImGui::EndFrame();
}

TEST(Draw, SignedNumbersHaveATrueMinus) {
  EXPECT_EQ(signed_number(0.8, 2), "+0.80");
  EXPECT_EQ(signed_number(-0.5, 1), "−0.5");
  EXPECT_EQ(signed_number(-0.001, 2), "+0.00");
}

}  // namespace
}  // namespace switchyard
