// Requests as JSON, sources by name. Any thread.
#include "engine/report/request.h"

#include <algorithm>

#include "engine/report/given_sections.h"
#include "engine/studies/study.h"

namespace switchyard {
namespace {

constexpr std::pair<const char*, const char*> kOwn[] = {{"note", "Note"}, {"facts", "What was traced"}, {"edits", "Edits in force"}, {"text", "The text"}, {"view", "Picture"}};

Document json_of(const ReportItem& item) {
  Document out = {{"source", item.source}};
  if (!item.heading.empty()) out["heading"] = item.heading;
  if (!item.note.empty()) out["note"] = item.note;
  if (item.other) out["other"] = true;
  for (const auto& [name, value] : item.options) out["options"][name] = value;
  for (const FigureChoice& figure : item.figures) out["figures"].push_back({{"table", figure.table}, {"show", figure.show}});
  if (!item.tables.empty()) out["tables"] = item.tables;
  if (item.chart) out["chart"] = to_json(*item.chart);
  if (item.table) out["table"] = {{"name", item.table->name}, {"columns", item.table->columns}, {"rows", item.table->rows}};
  return out;
}

Result<ResultTable> table_from_json(const JsonView& json) {
  ResultTable out;
  SY_TRY(out.name, json.text("name"));
  SY_TRY(const auto columns, json.array("columns"));
  for (const JsonView& one : columns) {
    SY_TRY(out.columns.emplace_back(), one.as_text());
  }
  SY_TRY(const auto rows, json.array("rows"));
  for (const JsonView& row : rows) {
    if (!row.json().is_array() || row.json().size() != out.columns.size()) return row.fail("has another number of cells than the table has columns");
    auto& cells = out.rows.emplace_back();
    for (const Json& cell : row.json()) {
      if (!cell.is_primitive()) return row.fail("holds something else than numbers and texts");
      cells.push_back(Document(cell));
    }
  }
  return out;
}

Result<ReportItem> item_from_json(const JsonView& json) {
  ReportItem item;
  SY_TRY(item.source, json.text("source"));
  if (!is_report_source(item.source)) return json.fail("names a source that is unknown here: " + quote(item.source, 60) + ". Is it of a later version, or of a plugin that is not on this machine?");
  SY_TRY(item.heading, json.text_or("heading", ""));
  SY_TRY(item.note, json.text_or("note", ""));
  SY_TRY(item.other, json.boolean_or("other", false));
  if (const auto options = json.find("options")) {
    SY_TRY(const auto members, options->as_object());
    for (const auto& [name, value] : members) {
      SY_TRY(item.options[name], value.as_text());
    }
  }
  if (json.has("figures")) {
    SY_TRY(const auto figures, json.array("figures"));
    for (const JsonView& one : figures) {
      FigureChoice choice;
      SY_TRY(choice.table, one.text("table"));
      SY_TRY(choice.show, one.text("show"));
      item.figures.push_back(std::move(choice));
    }
  }
  if (json.has("tables")) {
    SY_TRY(const auto tables, json.array("tables"));
    for (const JsonView& one : tables) {
      SY_TRY(item.tables.emplace_back(), one.as_text());
    }
  }
  if (const auto chart = json.find("chart")) {
    SY_TRY(item.chart, chart_from_json(*chart));
  }
  if (const auto table = json.find("table")) {
    SY_TRY(item.table, table_from_json(*table));
  }
  return item;
}

const StudyInfo* study_of(std::string_view source) {
  for (const StudyInfo& info : studies())
    if (command_of(info) == source) return &info;
  return nullptr;
}

bool needs_quotes(const std::string& word) {
  return word.empty() || !std::all_of(word.begin(), word.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::string_view("-_./,:=+@%").find(c) != std::string_view::npos; });
}

}  // namespace

bool is_report_source(std::string_view source) {
  return std::any_of(std::begin(kOwn), std::end(kOwn), [&](const auto& one) { return source == one.first; }) || find_analysis(source) != nullptr || study_of(source) != nullptr ||
         find_given_section(source) != nullptr;
}

std::string source_title(std::string_view source) {
  for (const auto& [name, title] : kOwn)
    if (source == name) return title;
  if (const AnalysisInfo* info = find_analysis(source)) return info->title;
  if (const GivenSection* given = find_given_section(source)) return given->title;
  const StudyInfo* study = study_of(source);
  return study != nullptr ? study->title : std::string(source);
}

Document to_json(const ReportRequest& request) {
  Document out = {{"schema", 1}, {"title", request.title}, {"template", request.template_name}, {"trace", request.trace}};
  if (!request.other.empty()) out["other"] = request.other;
  out["items"] = Document::array();
  for (const ReportItem& item : request.items) out["items"].push_back(json_of(item));
  return out;
}

Result<ReportRequest> request_from_json(const JsonView& json) {
  ReportRequest out;
  SY_TRY(const int64_t schema, json.integer("schema", 1, 1));
  static_cast<void>(schema);
  SY_TRY(out.title, json.text_or("title", ""));
  SY_TRY(out.template_name, json.text_or("template", ""));
  SY_TRY(out.trace, json.text_or("trace", ""));
  SY_TRY(out.other, json.text_or("other", ""));
  SY_TRY(const auto items, json.array("items"));
  for (const JsonView& one : items) {
    SY_TRY(out.items.emplace_back(), item_from_json(one));
  }
  return out;
}

std::string shell_line(std::span<const std::string> arguments) {
  std::string out;
  for (const std::string& word : arguments) {
    if (!out.empty()) out += ' ';
    if (!needs_quotes(word)) {
      out += word;
      continue;
    }
    out += '\'';
    for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
    out += '\'';
  }
  return out;
}

}  // namespace switchyard
