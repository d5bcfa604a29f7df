// Charts, their tables and drawings, text of unknown origin in every sink, colours.
#include "engine/report/report.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/json.h"
#include "engine/base/sinks.h"
#include "engine/model/checkpoint.h"
#include "engine/report/request.h"
#include "engine/report/rich_text.h"
#include "engine/report/table_text.h"

namespace switchyard::testing {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

ResultTable loads() {
  ResultTable table{"layers.values", {"layer", "index", "counts"}, {}};
  for (int layer = 0; layer < 3; ++layer)
    for (int expert = 0; expert < 4; ++expert) table.rows.push_back({layer, expert, layer * 10 + expert});
  return table;
}

TEST(Chart, KeysAgainstKeysAreAHeatMap) {
  const ChartSpec chart = chart_of(loads(), "counts");
  EXPECT_EQ(chart.kind, ChartKind::kHeatMap);
  EXPECT_THAT(chart.rows, ElementsAre("0", "1", "2"));
  EXPECT_THAT(chart.columns, ElementsAre("0", "1", "2", "3"));
  EXPECT_EQ(chart.values[1 * 4 + 2], 12.0);
}

TEST(Chart, PairsOfNeighbouringLayersAreAFlow) {
  const ResultTable pairs{"top_pairs", {"from", "to", "i", "j", "count"}, {{0, 1, 5, 6, 9}, {0, 1, 2, 3, 4}, {1, 2, 6, 0, 7}}};
  const ChartSpec chart = chart_of(pairs, "flow");
  ASSERT_EQ(chart.kind, ChartKind::kFlow);
  EXPECT_THAT(chart.columns, ElementsAre("0", "1", "2"));
  ASSERT_EQ(chart.links.size(), 3u);
  EXPECT_EQ(chart.links[2].column, 1);
  EXPECT_EQ(chart.links[2].value, 7.0);
}

TEST(Chart, SeveralQuantitiesAreLinesAndOneIsBars) {
  const ResultTable table{"layers", {"layer", "a", "b"}, {{0, 1.5, 2}, {1, nullptr, 3}}};
  const ChartSpec both = chart_of(table, "a+b"), one = chart_of(table, "b");
  EXPECT_EQ(both.kind, ChartKind::kLines);
  EXPECT_THAT(both.rows, ElementsAre("a", "b"));
  EXPECT_EQ(both.values[1], std::nullopt);
  EXPECT_EQ(one.kind, ChartKind::kBars);
  EXPECT_TRUE(chart_of(table, "c").empty());
}

TEST(Chart, LeavesOutAQuantityThatTheTraceCannotTell) {
  const ResultTable table{"layers", {"layer", "a", "b"}, {{0, 1.5, nullptr}, {1, 2.5, nullptr}}};
  const ChartSpec chart = chart_of(table, "a+b");
  EXPECT_THAT(chart.rows, ElementsAre("a"));
  EXPECT_EQ(chart.quantity, "a");
}

ChartSpec every(ChartKind kind) {
  ChartSpec chart;
  chart.kind = kind;
  chart.name = "c", chart.title = "Title", chart.quantity = "q", chart.row_title = "layer", chart.column_title = "expert";
  chart.rows = {"0", "1"}, chart.columns = {"0", "1", "2"};
  chart.values = {1.0, 2.5, std::nullopt, 0.25, 3.0, 0.5};
  if (kind == ChartKind::kLines) chart.low = chart.values, chart.high = chart.values;
  if (kind == ChartKind::kHeatMap) chart.marked = {0, 1, 0, 0, 0, 0}, chart.mark_title = "pruned";
  if (kind == ChartKind::kStrip) chart.rows = {"q"}, chart.values.resize(3);
  chart.links = {{0, 1, 2, 5.0}}, chart.points = {{"L0 E1", 0.5, 0.01}, {"L0 E2", -0.25, 0}};
  return chart;
}

constexpr ChartKind kKinds[] = {ChartKind::kHeatMap, ChartKind::kMatrix, ChartKind::kBars, ChartKind::kLines, ChartKind::kRidge, ChartKind::kStrip, ChartKind::kFlow, ChartKind::kPoints};

TEST(Chart, EveryKindSurvivesJson) {
  for (const ChartKind kind : kKinds) {
    SCOPED_TRACE(name(kind));
    const Document json = to_json(every(kind));
    const Json parsed = Json::parse(json.dump());
    const auto again = chart_from_json(JsonView(parsed, "chart"));
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(to_json(*again), json);
  }
}

TEST(Chart, WhatDoesNotFitTogetherIsRefused) {
  const auto refused = [](const char* key, Json value) {
    Json json = Json::parse(to_json(every(ChartKind::kHeatMap)).dump());
    json[key] = std::move(value);
    return !chart_from_json(JsonView(json, "chart")).has_value();
  };
  EXPECT_TRUE(refused("values", {1, 2}));
  EXPECT_TRUE(refused("values", {1, 2, "3", 4, 5, 6}));
  EXPECT_TRUE(refused("marked", {1}));
  EXPECT_TRUE(refused("kind", "cake"));
  EXPECT_TRUE(refused("name", "../x"));
  EXPECT_TRUE(refused("links", {{7, 0, 0, 1}}));
  EXPECT_TRUE(refused("points", {{"p", 1, 2}}));
}

// One data source: the table and every mark of the drawing carry the chart's numbers.
TEST(Chart, TheTableAndTheDrawingHaveTheSameNumbers) {
  for (const ChartKind kind : kKinds) {
    if (kind == ChartKind::kRidge) continue;  // a shape for a whole row
    SCOPED_TRACE(name(kind));
    const ChartSpec chart = every(kind);
    std::vector<double> table, drawn;
    const ResultTable rows = chart_table(chart);
    const size_t column = size_t(std::find(rows.columns.begin(), rows.columns.end(), kind == ChartKind::kPoints ? "effect" : "value") - rows.columns.begin());
    for (const auto& row : rows.rows)
      if (row[column].is_number()) table.push_back(row[column].get<double>());
    for (const Shape& shape : draw_chart(chart, kOneColumn).shapes) {
      if (shape.says.empty() || shape.says.find("not defined") != std::string::npos) continue;
      const std::string after = kind == ChartKind::kPoints ? shape.says.substr(shape.says.find("q ") + 2) : shape.says.substr(shape.says.rfind(": ") + 2);
      drawn.push_back(std::stod(after));
    }
    std::sort(table.begin(), table.end());
    std::sort(drawn.begin(), drawn.end());
    EXPECT_EQ(drawn, table);
  }
}

TEST(Chart, NothingLeavesTheDrawing) {
  for (const ChartKind kind : kKinds) {
    for (const FigureSize size : {kOneColumn, kTwoColumns}) {
      SCOPED_TRACE(name(kind));
      const Drawing drawing = draw_chart(every(kind), size);
      EXPECT_EQ(drawing.width, size.width);
      for (const Shape& shape : drawing.shapes) {
        if (shape.kind == Shape::kWords) {
          EXPECT_GE(shape.size, 6.5);
          const double w = text_width(shape.words, shape.size);
          const double left = shape.upwards ? shape.x - shape.size : shape.anchor == Anchor::kStart ? shape.x : shape.anchor == Anchor::kMiddle ? shape.x - w / 2 : shape.x - w;
          EXPECT_GE(left, -1) << shape.words;
          if (!shape.upwards) {
            EXPECT_LE(left + w, drawing.width + 1) << shape.words;
          }
        }
        if (shape.kind == Shape::kRect) {
          EXPECT_GE(shape.x, 0);
          EXPECT_LE(shape.y + shape.h, drawing.height + 0.5);
        }
      }
    }
  }
}

TEST(Chart, ALargeMapStaysSmall) {
  ChartSpec chart = every(ChartKind::kHeatMap);
  chart.marked.clear();
  chart.rows.clear(), chart.columns.clear();
  for (int i = 0; i < 58; ++i) chart.rows.push_back(std::to_string(i));
  for (int i = 0; i < 256; ++i) chart.columns.push_back(std::to_string(i));
  chart.values.assign(58 * 256, 1.0);
  for (size_t i = 0; i < chart.values.size(); ++i) chart.values[i] = std::sin(double(i));
  EXPECT_LT(svg_inside(draw_chart(chart, kTwoColumns)).size(), 900'000u);
}

TEST(Sinks, ShowsWhatCanBeSeenAndNamesTheRest) {
  EXPECT_EQ(shown_text("plain <b> 漢 🎉\n\t"), "plain <b> 漢 🎉\n\t");
  EXPECT_EQ(shown_text("a\u202e\x1b\x7f\u200b"), "a[U+202E][U+001B][U+007F][U+200B]");
  EXPECT_EQ(shown_text("\xff\xc0\xaf\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(shown_text("\xe6\xbc"), "\uFFFD\uFFFD");
  EXPECT_EQ(xml_text("<a b='\"&>"), "&lt;a b=&#39;&quot;&amp;&gt;");
  EXPECT_EQ(csv_text("=1+1", true), "'=1+1");
  EXPECT_EQ(csv_text("-1", false), "-1");
  EXPECT_EQ(latex_text("50% of_x \\input{y} 漢"), "50\\% of\\_x \\textbackslash{}input\\{y\\} {[}U+6F22{]}");
  EXPECT_EQ(markdown_text("a_b |x| <img> _c_"), "a_b \\|x\\| &lt;img&gt; \\_c\\_");
}

TEST(RichText, ReadsWhatNotesHoldAndNothingElse) {
  const auto blocks = read_markdown("# H\n\nA **bold** `code` [link](https://x.org) [bad](javascript:x)\n\n1. one\n2. two\n   - deep\n\n<script>x</script>\n\n![pic](http://y)");
  ASSERT_EQ(blocks.size(), 7u);
  EXPECT_EQ(blocks[0].kind, RichBlock::kHeading);
  EXPECT_TRUE(blocks[1].spans[1].bold);
  EXPECT_TRUE(blocks[1].spans[3].code);
  EXPECT_EQ(blocks[1].spans[5].link, "https://x.org");
  EXPECT_EQ(blocks[1].spans.back().link, "");
  EXPECT_EQ(blocks[2].bullet, "1.");
  EXPECT_EQ(blocks[3].bullet, "2.");
  EXPECT_EQ(blocks[4].level, 2);
  EXPECT_EQ(blocks[5].spans[0].text, "<script>x</script>\n");
  EXPECT_EQ(blocks[6].spans[0].text, "pic");
}

TEST(Palette, PrintAndNightStandOut) {
  for (const ChartColors* colors : {&print_colors(), &night_colors()}) {
    EXPECT_GE(contrast_ratio(colors->text, colors->ground), 4.5);
    EXPECT_GE(contrast_ratio(colors->muted, colors->ground), 4.5);
    EXPECT_GE(contrast_ratio(colors->mark, colors->ground), 4.5);
    for (int i = 0; i < kCategories; ++i) EXPECT_GE(contrast_ratio(series_color(i, colors->ground, colors->text), colors->ground), 3.0) << i;
  }
}

TEST(Palette, ReportsHaveTheColoursOfTheWindow) {
  const auto assets = find_assets();
  ASSERT_TRUE(assets);
  for (const auto& [file, colors] : {std::pair("light.json", &print_colors()), {"dark.json", &night_colors()}}) {
    const std::string path = (*assets / "themes" / file).string();
    std::FILE* in = std::fopen(path.c_str(), "rb");
    ASSERT_NE(in, nullptr);
    std::string text(4096, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), in));
    std::fclose(in);
    const Json theme = Json::parse(text);
    const auto hex = [](Rgb c) {
      char out[8];
      std::snprintf(out, sizeof out, "#%02x%02x%02x", c.r, c.g, c.b);
      return std::string(out);
    };
    EXPECT_EQ(theme["dock"], hex(colors->ground)) << file;
    EXPECT_EQ(theme["text"], hex(colors->text)) << file;
    EXPECT_EQ(theme["muted"], hex(colors->muted)) << file;
    EXPECT_EQ(theme["line"], hex(colors->line)) << file;
    EXPECT_EQ(theme["edit"], hex(colors->mark)) << file;
  }
}

TEST(Table, WideOnesAreSplitWithTheirKeys) {
  ResultTable table{"t", {"layer"}, {{3}}};
  for (int i = 0; i < 30; ++i) table.columns.push_back("quantity_" + std::to_string(i)), table.rows[0].push_back(i);
  const auto parts = split_wide(table, 8, 400);
  ASSERT_GT(parts.size(), 2u);
  size_t quantities = 0;
  for (const ResultTable& part : parts) {
    EXPECT_EQ(part.columns[0], "layer");
    EXPECT_EQ(part.rows[0][0], 3);
    quantities += part.columns.size() - 1;
  }
  EXPECT_EQ(quantities, 30u);
}

TEST(Table, NumpyAndTsvKeepNumbersExact) {
  const ResultTable table{"t", {"n", "x", "s"}, {{1, 0.1, "a\tb"}, {2, nullptr, "=1"}}};
  EXPECT_EQ(tsv_of(table), "n\tx\ts\n1\t0.1\ta\\tb\n2\t\t=1\n");
  EXPECT_THAT(numpy_of(table), HasSubstr("\"x\": np.array([0.1, np.nan], dtype=np.float64)"));
  EXPECT_THAT(numpy_of(table), HasSubstr("\"s\": np.array([\"a\\tb\", \"=1\"])"));
}

TEST(Request, SurvivesJsonAndRefusesWhatItDoesNotKnow) {
  ReportRequest request;
  request.title = "T", request.trace = "a.moetrace.h5", request.template_name = "model-card";
  for (const ReportTemplate& one : report_templates())
    for (ReportItem& item : one.items({})) request.items.push_back(std::move(item));
  ReportItem view;
  view.source = "view", view.chart = every(ChartKind::kBars);
  view.figures = {{"t", "q"}}, view.tables = {"t"};
  request.items.push_back(std::move(view));
  const Document json = to_json(request);
  const Json parsed = Json::parse(json.dump());
  const auto again = request_from_json(JsonView(parsed, "request"));
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(to_json(*again), json);
  Json bad = parsed;
  bad["items"][0]["source"] = "rm -rf";
  EXPECT_FALSE(request_from_json(JsonView(bad, "request")));
}

TEST(Request, EveryTemplateNamesSourcesThatExist) {
  for (const ReportTemplate& one : report_templates())
    for (const ReportItem& item : one.items({})) EXPECT_TRUE(is_report_source(item.source)) << one.name << " " << item.source;
}

TEST(Request, ShellLinesQuoteWhatAShellWouldRead) {
  const std::string words[] = {"switchyard", "a b", "$(x)", "it's", "--n=1"};
  EXPECT_EQ(shell_line(words), "switchyard 'a b' '$(x)' 'it'\\''s' --n=1");
}

TEST(Html, HoldsNoScriptAndNoAddress) {
  Report report;
  report.title = "</title><script>x</script>";
  report.sections.push_back({"s", "<img src=http://x>", {{every(ChartKind::kBars), "c", "cmd"}}});
  const std::string html = html_of(report);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
}

}  // namespace
}  // namespace switchyard::testing
