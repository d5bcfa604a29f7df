// Charts as JSON and as tables. Any thread.
#include "engine/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace switchyard {
namespace {

constexpr std::array<const char*, 8> kNames = {"heat_map", "matrix", "bars", "lines", "ridge", "strip", "flow", "points"};
constexpr int64_t kMostCells = 4'000'000;

Document list(const std::vector<std::optional<double>>& values) {
  Document out = Document::array();
  for (const auto& value : values) out.push_back(value && std::isfinite(*value) ? Document(*value) : Document());
  return out;
}

Result<void> read_list(const JsonView& json, const char* key, std::vector<std::optional<double>>& out) {
  if (!json.has(key)) return {};
  SY_TRY(const JsonView member, json.at(key));
  if (!member.json().is_array()) return member.fail("is no list of numbers");
  for (const Json& one : member.json()) {
    if (!one.is_null() && !one.is_number()) return member.fail("holds something else than numbers");
    out.push_back(one.is_null() ? std::nullopt : std::optional(one.get<double>()));
  }
  return {};
}

Result<void> read_names(const JsonView& json, const char* key, std::vector<std::string>& out) {
  if (!json.has(key)) return {};
  SY_TRY(const auto members, json.array(key));
  for (const JsonView& one : members) {
    SY_TRY(out.emplace_back(), one.as_text());
  }
  return {};
}

bool plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 120 && std::all_of(name.begin(), name.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; });
}

}  // namespace

const char* name(ChartKind kind) { return kNames[size_t(kind)]; }

Result<void> check(const ChartSpec& chart) {
  const auto refuse = [&](const char* what) { return fail(ErrorCode::kMalformed, what, "chart " + quote(chart.name, 60)); };
  if (!plain_name(chart.name)) return refuse("needs a name of letters, digits, - and _.");
  const size_t cells = chart.rows.size() * chart.columns.size();
  if (chart.kind != ChartKind::kFlow && chart.kind != ChartKind::kPoints && chart.values.size() != cells) return refuse("has another number of values than rows times columns.");
  for (const auto* more : {&chart.low, &chart.high})
    if (!more->empty() && more->size() != cells) return refuse("has a band of another length than its values.");
  if (!chart.marked.empty() && chart.marked.size() != cells) return refuse("has marks for another number of cells.");
  for (const auto* all : {&chart.values, &chart.low, &chart.high})
    for (const auto& value : *all)
      if (value && !std::isfinite(*value)) return refuse("holds a number that is not finite.");
  for (const ChartLink& link : chart.links)
    if (link.column < 0 || size_t(link.column) + 1 >= chart.columns.size() || link.from < 0 || link.to < 0 || link.from > 65'535 || link.to > 65'535 || !std::isfinite(link.value))
      return refuse("has a link that leads nowhere.");
  for (const ChartPoint& point : chart.points)
    if (!std::isfinite(point.effect) || !(point.q >= 0 && point.q <= 1)) return refuse("has a point that lies nowhere.");
  return {};
}

Document to_json(const ChartSpec& c) {
  Document out = {{"kind", name(c.kind)}, {"name", c.name}, {"title", c.title}, {"quantity", c.quantity}};
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  text("row_title", c.row_title), text("column_title", c.column_title), text("mark_title", c.mark_title);
  text("baseline_title", c.baseline_title), text("side_a", c.side_a), text("side_b", c.side_b);
  if (!c.rows.empty()) out["rows"] = c.rows;
  if (!c.columns.empty()) out["columns"] = c.columns;
  if (!c.values.empty()) out["values"] = list(c.values);
  if (!c.low.empty()) out["low"] = list(c.low);
  if (!c.high.empty()) out["high"] = list(c.high);
  if (!c.marked.empty()) out["marked"] = c.marked;
  if (c.middle) out["middle"] = *c.middle;
  if (c.baseline) out["baseline"] = *c.baseline;
  if (c.categories) out["categories"] = true;
  if (c.left_out > 0) out["left_out"] = c.left_out;
  for (const ChartLink& link : c.links) out["links"].push_back({link.column, link.from, link.to, link.value});
  for (const ChartPoint& point : c.points) out["points"].push_back({point.name, point.effect, point.q});
  return out;
}

Result<ChartSpec> chart_from_json(const JsonView& json) {
  ChartSpec c;
  SY_TRY(const std::string kind, json.text("kind"));
  const auto found = std::find(kNames.begin(), kNames.end(), kind);
  if (found == kNames.end()) return json.fail("has a kind of chart that this version does not know: " + quote(kind, 40));
  c.kind = ChartKind(found - kNames.begin());
  for (const auto& [key, member] : std::initializer_list<std::pair<const char*, std::string*>>{{"name", &c.name}, {"title", &c.title}, {"quantity", &c.quantity}, {"row_title", &c.row_title}, {"column_title", &c.column_title}, {"mark_title", &c.mark_title}, {"baseline_title", &c.baseline_title}, {"side_a", &c.side_a}, {"side_b", &c.side_b}}) {
    SY_TRY(*member, json.text_or(key, ""));
  }
  SY_CHECK(read_names(json, "rows", c.rows));
  SY_CHECK(read_names(json, "columns", c.columns));
  SY_CHECK(read_list(json, "values", c.values));
  SY_CHECK(read_list(json, "low", c.low));
  SY_CHECK(read_list(json, "high", c.high));
  if (json.has("marked")) {
    SY_TRY(const auto marks, json.integers("marked", 0, 1));
    c.marked.assign(marks.begin(), marks.end());
  }
  if (json.has("middle")) {
    SY_TRY(c.middle, json.number("middle"));
  }
  if (json.has("baseline")) {
    SY_TRY(c.baseline, json.number("baseline"));
  }
  SY_TRY(c.categories, json.boolean_or("categories", false));
  SY_TRY(const int64_t left_out, json.integer_or("left_out", 0, 0, kMostCells * 1000));
  c.left_out = size_t(left_out);
  const auto entries = [&](const char* key, size_t length, const auto& take) -> Result<void> {
    if (!json.has(key)) return {};
    SY_TRY(const auto members, json.array(key));
    for (const JsonView& one : members) {
      SY_TRY(const auto cells, one.as_array());
      if (cells.size() != length) return one.fail("has another number of entries than it needs");
      SY_CHECK(take(cells));
    }
    return {};
  };
  SY_CHECK(entries("links", 4, [&](const std::vector<JsonView>& cells) -> Result<void> {
    SY_TRY(const int64_t column, cells[0].as_integer(0, 65'535));
    SY_TRY(const int64_t from, cells[1].as_integer(0, 65'535));
    SY_TRY(const int64_t to, cells[2].as_integer(0, 65'535));
    SY_TRY(const double value, cells[3].as_number());
    c.links.push_back({int(column), int(from), int(to), value});
    return {};
  }));
  SY_CHECK(entries("points", 3, [&](const std::vector<JsonView>& cells) -> Result<void> {
    SY_TRY(std::string name, cells[0].as_text());
    SY_TRY(const double effect, cells[1].as_number());
    SY_TRY(const double q, cells[2].as_number());
    c.points.push_back({std::move(name), effect, q});
    return {};
  }));
  SY_CHECK(check(c));
  return c;
}

ResultTable chart_table(const ChartSpec& c) {
  ResultTable table{c.name, {}, {}};
  const auto cell = [](const std::optional<double>& value) { return value ? Document(*value) : Document(); };
  if (c.kind == ChartKind::kFlow) {
    table.columns = {"from_layer", "to_layer", "from_expert", "to_expert", "value"};
    for (const ChartLink& link : c.links) table.rows.push_back({c.columns[size_t(link.column)], c.columns[size_t(link.column) + 1], link.from, link.to, link.value});
    return table;
  }
  if (c.kind == ChartKind::kPoints) {
    table.columns = {"point", "effect", "q"};
    for (const ChartPoint& point : c.points) table.rows.push_back({point.name, point.effect, point.q});
    return table;
  }
  table.columns = {"row", "column", "value"};
  if (!c.low.empty()) table.columns.insert(table.columns.end(), {"low", "high"});
  if (!c.marked.empty()) table.columns.push_back("marked");
  for (size_t r = 0; r < c.rows.size(); ++r) {
    for (size_t k = 0; k < c.columns.size(); ++k) {
      const size_t at = r * c.columns.size() + k;
      auto& row = table.rows.emplace_back(std::vector<Document>{c.rows[r], c.columns[k], cell(c.values[at])});
      if (!c.low.empty()) row.push_back(cell(c.low[at])), row.push_back(cell(c.high[at]));
      if (!c.marked.empty()) row.push_back(int(c.marked[at]));
    }
  }
  return table;
}

}  // namespace switchyard
