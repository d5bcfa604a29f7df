// What a report is made of: a list of items, of which templates are ready-made ones; kept in workspaces and inside reports,
// so that one is rebuilt from what it says of itself. Values; any thread.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/task.h"
#include "engine/report/report.h"

namespace switchyard {

struct FigureChoice {
  std::string table, show;  // see chart_choices()
  bool operator==(const FigureChoice&) const = default;
};

struct ReportItem {
  // "note", "facts" (what was traced), "edits" (in force, epoch by epoch), "text" (tokens coloured by a quantity), "view" (a
  // picture of the moment), an analysis ("load"), a study ("simulate cache", "place eplb", "trace compare") or a section that
  // a plugin gives (given_sections.h).
  std::string source;
  std::string heading;                         // empty: the source's own; of a note none
  std::string note;                            // Markdown, before the results
  std::map<std::string, std::string> options;  // of the source; of "text" quantity and tokens
  bool other = false;                          // of the second trace
  // Both empty: what is usual for the source. Of "view": the picture itself.
  std::vector<FigureChoice> figures;
  std::vector<std::string> tables;
  std::optional<ChartSpec> chart;
  std::optional<ResultTable> table;
};

struct ReportRequest {
  std::string title;  // empty: made of the template and the trace
  std::string template_name;
  std::string trace;  // as it was named; empty: notes and pictures of the moment only
  std::string other;  // a second trace, of an edit; empty: none
  std::vector<ReportItem> items;
};
Document to_json(const ReportRequest& request);
Result<ReportRequest> request_from_json(const JsonView& json);

struct TemplateOptions {
  int gpus = 4;  // placement-study
  int keep = 0;  // pruning-study: experts that stay in each layer; 0: half of them
};
struct ReportTemplate {
  const char* name;   // "model-card"
  const char* title;  // "Model card of routing"
  const char* about;  // one line
  bool needs_other;
  std::vector<ReportItem> (*items)(const TemplateOptions&);
};
std::span<const ReportTemplate> report_templates();
const ReportTemplate* find_template(std::string_view name);
// Whether items of this source exist; and its title in words.
bool is_report_source(std::string_view source);
std::string source_title(std::string_view source);

struct ComposeOptions {
  std::string command;  // for the reader: what remakes the whole report
  int threads = 0;      // results do not depend on it
};
// Runs what the items ask for. What one trace cannot give becomes a note of the report; a name, an option or a file that is
// wrong is an error. Reads and hashes the traces.
Result<Report> compose_report(const ReportRequest& request, const ComposeOptions& options, Task* task);

// A line for a shell: arguments that need it in single quotes.
std::string shell_line(std::span<const std::string> arguments);

}  // namespace switchyard
