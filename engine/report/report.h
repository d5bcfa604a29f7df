// A report: sections of text, tables and charts with what remakes them, and its writers. One model for HTML, PDF, LaTeX and
// Markdown, so that all show the same numbers. Values; any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/report/chart.h"

namespace switchyard {

struct ReportText {
  std::string markdown;
};

struct ReportTable {
  ResultTable table;
  size_t left_out = 0;  // rows that stand only in the data of `command`
};

struct ReportBlock {
  std::variant<ReportText, ReportTable, ChartSpec> content;
  std::string caption;  // one line; of a text: none
  std::string command;  // makes the numbers again; empty: a text, or numbers of the moment (then the caption says so)
};

struct ReportSection {
  std::string id;  // "load"; unique
  std::string heading;
  std::vector<ReportBlock> blocks;
};

// A file that went in.
struct ReportInput {
  std::string path;  // as it was named
  std::string sha256;
  uint64_t bytes = 0;
};

struct Report {
  std::string title, subtitle;
  std::string command;  // `switchyard report …`; empty: made in the window from a run of the moment
  std::vector<ReportInput> inputs;
  std::vector<std::pair<std::string, std::string>> provenance;  // what, value
  std::vector<ReportSection> sections;
  Document request;                // what was asked for (request.h); null: cannot be rebuilt
  std::vector<std::string> notes;  // what is not in it, and why
};

// Every number that is shown, with provenance: "schema", "type": "report". Kept inside the HTML, and beside other files.
Document to_json(const Report& report);
inline constexpr int kReportSchema = 1;

// One file that needs nothing else: no script, no network, style for paper, dark and light.
std::string html_of(const Report& report);
// figures: folder of the pictures as it is named inside the document, without a slash at its end.
std::string markdown_of(const Report& report, std::string_view figures);
std::string latex_of(const Report& report, std::string_view figures);

// "a" for the first picture or table of all sections, and so on: what captions and files call it ("Figure 2").
struct BlockNumbers {
  std::vector<std::vector<int>> of;  // [sections][blocks]; 0: a text
};
BlockNumbers number_blocks(const Report& report);
// Whether a chart wants the width of two columns.
bool is_wide(const ChartSpec& chart);
// Of a chart or table: the stem of its files, unique in the report. A chart's are STEM.svg and STEM-wide.svg and so on.
std::string block_stem(const Report& report, size_t section, size_t block);

// A table as tables that are at most so wide at this size, its key columns in each.
std::vector<ResultTable> split_wide(const ResultTable& table, double size, double width);

}  // namespace switchyard
