// A report with given strings in every field that shows text, for the tests of the sinks (hostile.py).
// usage: hostile_document OUT_DIR < strings.json; writes r.html, r.md, r.tex, chart-N.svg, r.pdf and expected.json (the strings as
// they must be shown).
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "engine/report/report_files.h"

namespace switchyard {
namespace {

ChartSpec bars(const std::string& text) {
  ChartSpec chart;
  chart.kind = ChartKind::kBars;
  chart.name = "bars";
  chart.title = chart.quantity = chart.column_title = chart.baseline_title = text;
  chart.rows = {text}, chart.columns = {text};
  chart.values = {1.5};
  chart.baseline = 1;
  return chart;
}

ChartSpec map(const std::string& text) {
  ChartSpec chart;
  chart.kind = ChartKind::kHeatMap;
  chart.name = "map";
  chart.title = chart.quantity = chart.row_title = chart.column_title = chart.mark_title = text;
  chart.rows = {text}, chart.columns = {text};
  chart.values = {2.5};
  chart.marked = {1};
  return chart;
}

ChartSpec strip(const std::string& text) {
  ChartSpec chart;
  chart.kind = ChartKind::kStrip;
  chart.name = "strip";
  chart.rows = {text}, chart.columns = {text};
  chart.values = {0.5};
  return chart;
}

ChartSpec points(const std::string& text) {
  ChartSpec chart;
  chart.kind = ChartKind::kPoints;
  chart.name = "points";
  chart.title = chart.quantity = chart.side_a = chart.side_b = text;
  chart.points = {{text, 0.25, 0.001}};
  return chart;
}

Report report_of(const std::vector<std::string>& strings) {
  Report report;
  report.title = report.subtitle = report.command = strings[0];
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::string& text = strings[i];
    ReportSection section{"s" + std::to_string(i), text, {}};
    section.blocks.push_back({ReportText{text}, {}, {}});
    section.blocks.push_back({ReportTable{{text, {text, "n"}, {{text, 1}}}, 1}, text, text});
    for (ChartSpec chart : {bars(text), map(text), strip(text), points(text)}) section.blocks.push_back({std::move(chart), text, text});
    report.sections.push_back(std::move(section));
    report.provenance.emplace_back(text, text);
    report.inputs.push_back({text, text, 1});
    report.notes.push_back(text);
  }
  return report;
}

int write(const std::filesystem::path& folder, const std::vector<std::string>& strings) {
  const Report report = report_of(strings);
  const auto put = [&](const std::string& name, const std::string& bytes) { std::ofstream(folder / name, std::ios::binary) << bytes; };
  put("r.html", html_of(report));
  put("r.md", markdown_of(report, "figures"));
  // Without pictures: they are files of their own.
  Report words = report;
  for (ReportSection& section : words.sections) std::erase_if(section.blocks, [](const ReportBlock& block) { return std::holds_alternative<ChartSpec>(block.content); });
  put("r.tex", latex_of(words, "figures"));
  Document expected = Document::array();
  for (size_t i = 0; i < strings.size(); ++i) {
    expected.push_back(shown_text(strings[i]));
    put("chart-" + std::to_string(i) + ".svg", svg_of(draw_chart(i % 2 == 0 ? bars(strings[i]) : strip(strings[i]), kOneColumn), print_colors()));
    put("chart-" + std::to_string(i) + ".csv", csv_of(chart_table(bars(strings[i]))));
    put("chart-" + std::to_string(i) + ".py", chart_script(bars(strings[i]), "chart-" + std::to_string(i) + ".csv"));
  }
  put("expected.json", expected.dump());
  ReportFiles files{folder / "r.pdf", {}, true, false};
  const auto written = write_report(words, files);
  if (!written) std::fprintf(stderr, "%s\n", written.error().message().c_str());
  return written ? 0 : 1;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  return switchyard::write(argv[1], nlohmann::json::parse(text).get<std::vector<std::string>>());
}
