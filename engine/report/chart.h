// What a picture shows, without how: the one source of the numbers from which it is drawn (draw_chart), written as a table
// (chart_table) and kept in a report (to_json). Values; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/analysis/result_table.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/base/text.h"
#include "engine/report/drawing.h"

namespace switchyard {

using Document = nlohmann::ordered_json;  // members stay in the order they are written

enum class ChartKind : uint8_t {
  kHeatMap,  // rows × columns, each value a colour
  kMatrix,   // the same with square cells: both axes are of one kind
  kBars,     // columns across, a bar for each row (series) beside the others
  kLines,    // columns across, a line for each row, with a band where low and high are given
  kRidge,    // a row is a distribution over the columns (bins), drawn over the one before
  kStrip,    // columns are tokens in reading order, coloured by the first row
  kFlow,     // links between experts of neighbouring layers (columns)
  kPoints,   // an effect across, -log10 of its corrected p up
};
const char* name(ChartKind kind);

struct ChartLink {
  int column = 0;        // it runs from this column (layer) to the next
  int from = 0, to = 0;  // experts
  double value = 0;
};

struct ChartPoint {
  std::string name;
  double effect = 0, q = 1;
};

struct ChartSpec {
  ChartKind kind = ChartKind::kHeatMap;
  std::string name;      // of its files: letters, digits, - and _
  std::string title;     // one line
  std::string quantity;  // what the values are, with the unit where there is one
  std::string row_title, column_title;
  std::vector<std::string> rows, columns;
  std::vector<std::optional<double>> values;     // [rows, columns]; nothing: not defined
  std::vector<std::optional<double>> low, high;  // of bands and error bars, [rows, columns]; empty: none
  std::vector<uint8_t> marked;                   // [rows, columns]: hatched; empty: none
  std::string mark_title;                        // what the hatching means: "pruned"
  std::optional<double> middle;                  // a diverging map with this in its middle
  bool categories = false;                       // values are whole numbers that name something
  std::optional<double> baseline;                // a dashed line across
  std::string baseline_title;
  std::vector<ChartLink> links;                  // kFlow
  std::vector<ChartPoint> points;                // kPoints
  std::string side_a, side_b;                    // kPoints: who has more where the effect is above and below 0
  size_t left_out = 0;                           // cells, links or tokens that the picture does not show, and says so

  bool empty() const { return values.empty() && links.empty() && points.empty(); }
};

// Checks that what belongs together has one length and that numbers are finite; of charts from files.
Result<void> check(const ChartSpec& chart);
Document to_json(const ChartSpec& chart);
Result<ChartSpec> chart_from_json(const JsonView& json);

// A row for each number shown: keys first, then the value and what goes with it. Column names do not depend on the data.
ResultTable chart_table(const ChartSpec& chart);
// A Python script (matplotlib) that draws the chart from the CSV of chart_table(). data: the CSV's name, beside it.
std::string chart_script(const ChartSpec& chart, std::string_view data);

struct FigureSize {
  double width = 234;  // points: 3.25 in, one column; two: 486
};
inline constexpr FigureSize kOneColumn{234}, kTwoColumns{486};
Drawing draw_chart(const ChartSpec& chart, FigureSize size);

// What of a table can be drawn: "effect against q" of a test of many experts, "flow" of pairs of experts, then each of its
// quantities. Empty: nothing.
std::vector<std::string> chart_choices(const ResultTable& table);
// The picture of one of them. Several quantities of a table without series are joined by '+': a line each. Empty spec: the
// table has no such picture.
ChartSpec chart_of(const ResultTable& table, std::string_view choice);

}  // namespace switchyard
