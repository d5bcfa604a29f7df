// See view_chart.h. Columns are found by the titles that views/<id>/table.cpp gives them.
#include "app/gui/view_chart.h"

#include <algorithm>
#include <charconv>
#include <map>

namespace switchyard {
namespace {

using Row = std::vector<Document>;

struct Columns {
  const ResultTable& table;
  std::optional<size_t> operator()(std::string_view title) const {
    const auto found = std::find_if(table.columns.begin(), table.columns.end(), [&](const std::string& one) {
      return one == title || (title.back() == ' ' && one.starts_with(title));
    });
    return found == table.columns.end() ? std::nullopt : std::optional(size_t(found - table.columns.begin()));
  }
};

std::optional<double> number_of(const Document& cell) {
  return cell.is_number() ? std::optional(cell.get<double>()) : std::nullopt;
}

int setting(View& view, std::string_view id) {
  for (const ViewSetting& one : view.settings())
    if (one.id == id) return one.value;
  return 0;
}

// Rows against columns of the table, in rising order of their numbers.
ChartSpec grid(const ResultTable& table, std::string_view down, std::string_view across, std::string_view value) {
  ChartSpec out;
  const Columns column{table};
  const auto y = column(down), x = column(across), v = column(value);
  if (!y || !x || !v) return out;
  const auto key = [](const Document& cell) { return cell_text(cell, 6); };
  const auto names = [&](size_t c) {
    std::vector<Document> all;
    for (const Row& row : table.rows)
      if (std::find(all.begin(), all.end(), row[c]) == all.end()) all.push_back(row[c]);
    std::sort(all.begin(), all.end());
    std::vector<std::string> out;
    for (const Document& one : all) out.push_back(key(one));
    return out;
  };
  out.rows = names(*y), out.columns = names(*x);
  std::map<std::string, size_t> row_of, column_of;
  for (size_t i = 0; i < out.rows.size(); ++i) row_of[out.rows[i]] = i;
  for (size_t i = 0; i < out.columns.size(); ++i) column_of[out.columns[i]] = i;
  out.values.resize(out.rows.size() * out.columns.size());
  for (const Row& row : table.rows)
    out.values[row_of[key(row[*y])] * out.columns.size() + column_of[key(row[*x])]] = number_of(row[*v]);
  out.row_title = down, out.column_title = across, out.quantity = table.columns[*v];
  return out;
}

ChartSpec routing(View& view, const ResultTable& table) {
  constexpr const char* kShown[] = {"load, all", "load, last ", "weight", "change"};
  const int shown = std::clamp(setting(view, "quantity"), 0, 3);
  ChartSpec out = grid(table, "layer", "expert", kShown[shown]);
  if (shown < 2) out.middle = 1, out.quantity += " (× uniform)";
  if (shown == 3) out.middle = 0;
  return out;
}

ChartSpec bars(const ResultTable& table, std::string_view key, std::initializer_list<const char*> values) {
  ChartSpec out;
  out.kind = ChartKind::kBars;
  const Columns column{table};
  const auto k = column(key);
  if (!k) return out;
  for (const Row& row : table.rows) out.columns.push_back(cell_text(row[*k], 6));
  for (const char* name : values) {
    const auto v = column(name);
    if (!v) continue;
    out.rows.emplace_back(name);
    for (const Row& row : table.rows) out.values.push_back(number_of(row[*v]));
  }
  out.column_title = key;
  return out;
}

ChartSpec strip(View& view, const ResultTable& table) {
  constexpr const char* kShown[] = {"entropy", "margin", "experts"};
  const int tint = std::clamp(setting(view, "tint"), 0, 2);
  ChartSpec out;
  out.kind = ChartKind::kStrip;
  const Columns column{table};
  const auto text = column("text"), value = column(kShown[tint]);
  if (!text || !value) return out;
  constexpr size_t kMost = 512;
  for (const Row& row : table.rows) {
    if (out.columns.size() == kMost) break;
    out.columns.push_back(cell_text(row[*text], 6));
    if (tint < 2) {
      out.values.push_back(number_of(row[*value]));
      continue;
    }
    const std::string words = cell_text(row[*value], 6);  // "5 12 30": the first
    int first = 0;
    const auto [end, problem] = std::from_chars(words.data(), words.data() + words.size(), first);
    static_cast<void>(end);
    out.values.push_back(problem == std::errc() ? std::optional(double(first)) : std::nullopt);
  }
  out.left_out = table.rows.size() - out.columns.size();
  out.rows = {kShown[tint]};
  out.row_title = "quantity", out.column_title = "token", out.quantity = tint == 2 ? "first expert" : kShown[tint];
  out.categories = tint == 2;
  return out;
}

ChartSpec comparison(View& view, const ResultTable& table) {
  constexpr const char* kShown[] = {"KL", "JS", "Jaccard"};
  ChartSpec out = grid(table, "recipe", "layer", kShown[std::clamp(setting(view, "strip"), 0, 2)]);
  out.kind = ChartKind::kLines;
  return out;
}

}  // namespace

ChartSpec chart_of_view(View& view, const ResultTable& table) {
  const std::string_view id = view.id();
  ChartSpec out;
  if (table.rows.empty()) return out;
  if (id == "routing_heatmap")
    out = routing(view, table);
  else if (id == "token_strip")
    out = strip(view, table);
  else if (id == "compare")
    out = comparison(view, table);
  else if (id == "affinity")
    out = grid(table, "from", "to",
               setting(view, "quantity") == 1 ? "P(next | this)"
               : setting(view, "pairs") == 1  ? "first choices"
                                              : "pairs");
  else if (id == "gate_inspector")
    out = bars(table, "expert", {"score", "weight"});
  else if (id == "expert_load")
    out = bars(table, "expert", {"load"});
  if (id == "expert_load") out.baseline = 1, out.baseline_title = "uniform", out.quantity = "load (× uniform)";
  if (id == "gate_inspector") out.quantity = "score, weight as applied";
  out.name = std::string(id);
  return out;
}

}  // namespace switchyard
