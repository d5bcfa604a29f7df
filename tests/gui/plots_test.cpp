// Geometry and words of the plots that ResultPicture paints.
#include <cmath>

#include <QFontMetrics>

#include <gtest/gtest.h>

#include "app/gui/flow_plot.h"
#include "app/gui/style.h"
#include "app/gui/volcano_plot.h"

namespace switchyard {
namespace {

// Numbers: 5e-5 is 4.3 on the axis, whose top is 5; the points of q = 0 stand above it.
TEST(VolcanoPlot, PlacesAPointByItsEffectAndItsCorrectedP) {
  ResultTable table{"layers.values", {"layer", "router", "index", "delta", "q"}, {{3, "key", 7, 0.2, 5e-5}, {3, "key", 8, -0.3, 0.0}, {4, nullptr, 9, 0.1, 0.05}}};
  const VolcanoPlot plot(table, *test_columns(table), {"code", "prose"});
  EXPECT_EQ(plot.count(), "2 of 3 with q < 0.05, 1 with q = 0 at the top");
  EXPECT_EQ(plot.strongest(1), "layer 3, router key, expert 8: delta -0.3, q 0 (too small for a number; drawn at the top)");
  EXPECT_EQ(plot.title(), "−log₁₀ q");
  EXPECT_EQ(plot.effect_title(), "delta: rate in code − rate in prose (share of tokens)");
  const QRectF area(50, 20, 600, 400);
  const double band = QFontMetrics(number_font()).lineSpacing() * 1.2;
  const auto at = [&](double effect, double height) { return QPointF(350 + effect / 0.3 * 300, 420 - height / 5 * (400 - band)); };
  EXPECT_EQ(plot.value_at(at(0.2, -std::log10(5e-5)), area), "layer 3, router key, expert 7: delta 0.2, q 5e-05");
  EXPECT_EQ(plot.value_at(at(0.1, -std::log10(0.05)), area), "layer 4, expert 9: delta 0.1, q 0.05");
  EXPECT_TRUE(plot.value_at({50, 20 + band / 2}, area).contains("expert 8"));
  EXPECT_EQ(plot.value_at({500, 300}, area), "");
  // No test: a column is missing, or nothing says which expert a row is.
  EXPECT_FALSE(test_columns({"layers.values", {"layer", "index", "delta", "p"}, {}}));
  EXPECT_FALSE(test_columns({"layers", {"layer", "delta", "q"}, {}}));
}

// Layers 1, 3 and 5 stand at the left, in the middle and at the right; experts 0 to 3 from above.
TEST(FlowPlot, TellsTheRibbonUnderThePointer) {
  const ResultTable table{"transitions.topk.top_pairs", {"from", "to", "i", "j", "count"}, {{1, 3, 0, 3, 40}, {1, 3, 2, 2, 10}, {3, 5, 3, 1, 20}}};
  EXPECT_EQ(FlowPlot::name_of(table), "flow");
  const FlowPlot plot(table);
  EXPECT_EQ(plot.facts(), "3 ribbons, 10 to 40 tokens");
  EXPECT_EQ(plot.strongest(2), "layer 1, expert 0 → layer 3, expert 3: 40; layer 3, expert 3 → layer 5, expert 1: 20");
  const QRectF area(50, 20, 600, 400);
  EXPECT_EQ(plot.value_at({51, 70}, area), "layer 1, expert 0 → layer 3, expert 3: 40");
  EXPECT_EQ(plot.value_at({200, 220}, area), "layer 1, expert 0 → layer 3, expert 3: 40");  // halfway down, halfway across
  EXPECT_EQ(plot.value_at({52, 270}, area), "layer 1, expert 2 → layer 3, expert 2: 10");
  EXPECT_EQ(plot.value_at({648, 170}, area), "layer 3, expert 3 → layer 5, expert 1: 20");
  EXPECT_EQ(plot.value_at({500, 400}, area), "");
  EXPECT_EQ(FlowPlot::name_of({"layers.top_pairs", {"layer", "i", "j", "count"}, {{1, 0, 1, 5}}}), "");
}

}  // namespace
}  // namespace switchyard
