// What the writers share. Any thread.
#include "engine/report/report.h"

#include <algorithm>
#include <set>

namespace switchyard {

namespace {

Document json_of(const ReportBlock& block) {
  Document out;
  if (const auto* text = std::get_if<ReportText>(&block.content)) {
    out["text"] = text->markdown;
  } else if (const auto* table = std::get_if<ReportTable>(&block.content)) {
    out["caption"] = block.caption;
    out["table"] = {{"name", table->table.name}, {"columns", table->table.columns}, {"rows", table->table.rows}};
    if (table->left_out > 0) out["table"]["left_out"] = table->left_out;
  } else {
    out["caption"] = block.caption;
    out["chart"] = to_json(std::get<ChartSpec>(block.content));
  }
  if (!block.command.empty()) out["command"] = block.command;
  return out;
}

}  // namespace

Document to_json(const Report& report) {
  Document out = {{"schema", kReportSchema}, {"type", "report"}, {"title", report.title}, {"subtitle", report.subtitle}};
  if (!report.command.empty()) out["command"] = report.command;
  out["inputs"] = Document::array();
  for (const ReportInput& input : report.inputs) out["inputs"].push_back({{"path", input.path}, {"sha256", input.sha256}, {"bytes", input.bytes}});
  out["provenance"] = Document::array();
  for (const auto& [what, value] : report.provenance) out["provenance"].push_back({what, value});
  out["request"] = report.request;
  out["sections"] = Document::array();
  for (const ReportSection& section : report.sections) {
    Document blocks = Document::array();
    for (const ReportBlock& block : section.blocks) blocks.push_back(json_of(block));
    out["sections"].push_back({{"id", section.id}, {"heading", section.heading}, {"blocks", std::move(blocks)}});
  }
  if (!report.notes.empty()) out["notes"] = report.notes;
  return out;
}

BlockNumbers number_blocks(const Report& report) {
  BlockNumbers numbers;
  int tables = 0, figures = 0;
  for (const ReportSection& section : report.sections) {
    auto& of = numbers.of.emplace_back();
    for (const ReportBlock& block : section.blocks)
      of.push_back(std::holds_alternative<ReportText>(block.content) ? 0 : std::holds_alternative<ReportTable>(block.content) ? ++tables : ++figures);
  }
  return numbers;
}

bool is_wide(const ChartSpec& chart) { return chart.kind == ChartKind::kStrip || chart.kind == ChartKind::kFlow || chart.columns.size() > 40; }

std::string block_stem(const Report& report, size_t section, size_t block) {
  const auto stem = [&](size_t s, size_t b) {
    const ReportBlock& one = report.sections[s].blocks[b];
    std::string out = report.sections[s].id + "-";
    if (const auto* table = std::get_if<ReportTable>(&one.content)) out += "table-" + table->table.name;
    else if (const auto* chart = std::get_if<ChartSpec>(&one.content)) out += chart->name;
    std::replace_if(out.begin(), out.end(), [](char c) { return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'); }, '_');
    return out.substr(0, 80);
  };
  const std::string own = stem(section, block);
  int same = 1;
  for (size_t s = 0; s <= section; ++s)
    for (size_t b = 0; b < (s == section ? block : report.sections[s].blocks.size()); ++b) same += stem(s, b) == own;
  return same == 1 ? own : own + "-" + std::to_string(same);
}

std::vector<ResultTable> split_wide(const ResultTable& table, double size, double width) {
  std::vector<double> wide;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    double most = text_width(shown_text(table.columns[c]), size);
    for (const auto& row : table.rows) most = std::max(most, text_width(shown_text(cell_text(row[c], 6)), size));
    wide.push_back(std::min(most, width / 2) + size);
  }
  std::vector<size_t> keys;
  double of_keys = 0;
  for (size_t c = 0; c < table.columns.size() && is_key(table.columns[c]) && of_keys + wide[c] < width / 2; ++c) keys.push_back(c), of_keys += wide[c];
  std::vector<std::vector<size_t>> parts{keys};
  double used = of_keys;
  for (size_t c = keys.size(); c < table.columns.size(); ++c) {
    if (used + wide[c] > width && parts.back().size() > keys.size()) parts.push_back(keys), used = of_keys;
    parts.back().push_back(c);
    used += wide[c];
  }
  if (parts.size() == 1) return {table};
  std::vector<ResultTable> out;
  for (const auto& part : parts) {
    ResultTable& one = out.emplace_back();
    one.name = table.name;
    for (const size_t c : part) one.columns.push_back(table.columns[c]);
    for (const auto& row : table.rows) {
      auto& cells = one.rows.emplace_back();
      for (const size_t c : part) cells.push_back(row[c]);
    }
  }
  return out;
}

}  // namespace switchyard
