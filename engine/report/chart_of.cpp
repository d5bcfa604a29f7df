// Charts of the tables of analyses and studies: keys against keys as a heat map, a quantity over the last key as lines or
// bars, an effect against its corrected p as points, pairs of experts in neighbouring layers as a flow. Any thread.
#include <algorithm>
#include <map>
#include <tuple>

#include "engine/report/chart.h"

namespace switchyard {
namespace {

constexpr size_t kMostLines = 8;  // more are a heat map
constexpr size_t kMostBars = 64;  // more are a line

using Row = std::vector<Document>;

std::string text_of(const Document& cell) { return cell_text(cell, 6); }

std::optional<size_t> find(const ResultTable& table, std::string_view column) {
  const auto found = std::find(table.columns.begin(), table.columns.end(), column);
  return found == table.columns.end() ? std::nullopt : std::optional(size_t(found - table.columns.begin()));
}

// Columns that say which row it is. One that is the same in all of them (the GPUs of a placement) says nothing.
std::vector<size_t> keys_of(const ResultTable& table) {
  std::vector<size_t> keys, varying;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    if (!is_key(table.columns[c])) continue;
    keys.push_back(c);
    const bool same = std::all_of(table.rows.begin(), table.rows.end(), [&](const Row& row) { return row[c] == table.rows[0][c]; });
    if (!same || is_series(table.columns[c])) varying.push_back(c);
  }
  return varying.empty() ? keys : varying;
}

std::string joined(const Row& row, const std::vector<size_t>& keys, size_t count) {
  std::string out;
  for (size_t k = 0; k < count; ++k) out += (k == 0 ? "" : " · ") + text_of(row[keys[k]]);
  return out;
}

std::optional<double> value_of(const Row& row, size_t column) {
  return row[column].is_number() ? std::optional(row[column].get<double>()) : std::nullopt;
}

std::string test_name(const ResultTable& table) {
  const auto test = test_columns(table);
  return test ? table.columns[test->effect] + " against " + table.columns[test->q] : std::string();
}

bool has_pairs(const ResultTable& table) {
  return !table.rows.empty() && find(table, "from") && find(table, "to") && find(table, "i") && find(table, "j") && find(table, "count");
}

ChartSpec points_of(const ResultTable& table) {
  ChartSpec out;
  out.kind = ChartKind::kPoints;
  const TestColumns test = *test_columns(table);
  const size_t layer = *find(table, "layer"), expert = find(table, "expert").value_or(find(table, "index").value_or(0));
  out.quantity = table.columns[test.effect];
  for (const Row& row : table.rows) {
    const auto effect = value_of(row, test.effect), q = value_of(row, test.q);
    if (effect && q) out.points.push_back({"L" + text_of(row[layer]) + " E" + text_of(row[expert]), *effect, *q});
  }
  return out;
}

bool has_numbers(const ResultTable& table, size_t column) {
  return std::any_of(table.rows.begin(), table.rows.end(), [column](const Row& row) { return row[column].is_number(); });
}

ChartSpec flow_of(const ResultTable& table) {
  ChartSpec out;
  out.kind = ChartKind::kFlow;
  out.quantity = "tokens", out.column_title = "layer", out.row_title = "expert";
  const size_t from = *find(table, "from"), to = *find(table, "to"), i = *find(table, "i"), j = *find(table, "j"), count = *find(table, "count");
  const auto from_router = find(table, "from_router"), to_router = find(table, "to_router");
  std::string left, right;
  for (const Row& row : table.rows) {
    const auto named = [&](size_t layer, const std::optional<size_t>& router) { return text_of(row[router && row[*router].is_string() ? *router : layer]); };
    const std::string a = named(from, from_router), b = named(to, to_router);
    if (out.columns.empty() || a != left || b != right) {  // the next transition: it begins where the one before ended, or apart
      if (out.columns.empty() || out.columns.back() != a) out.columns.push_back(a);
      out.columns.push_back(b);
      left = a, right = b;
    }
    if (!row[i].is_number() || !row[j].is_number() || !row[count].is_number()) continue;
    out.links.push_back({int(out.columns.size()) - 2, row[i].get<int>(), row[j].get<int>(), row[count].get<double>()});
  }
  return out;
}

// Rows × columns where at least half of the cells are there: a list of pairs is no grid.
bool place_grid(const ResultTable& table, const std::vector<size_t>& keys, size_t value, ChartSpec& out) {
  std::map<std::string, size_t> row_of, column_of;
  const auto place = [](std::map<std::string, size_t>& places, std::vector<std::string>& names, const std::string& name) {
    const auto [at, fresh] = places.emplace(name, names.size());
    if (fresh) names.push_back(name);
    return at->second;
  };
  std::vector<std::pair<size_t, size_t>> places;
  for (const Row& row : table.rows)
    places.emplace_back(place(row_of, out.rows, joined(row, keys, keys.size() - 1)), place(column_of, out.columns, text_of(row[keys.back()])));
  if (places.size() * 2 < out.rows.size() * out.columns.size()) {
    out.rows.clear(), out.columns.clear();
    return false;
  }
  const auto pruned = find(table, "pruned");
  out.values.resize(out.rows.size() * out.columns.size());
  if (pruned) out.marked.resize(out.values.size()), out.mark_title = "pruned";
  for (size_t r = 0; r < places.size(); ++r) {
    const size_t at = places[r].first * out.columns.size() + places[r].second;
    out.values[at] = value_of(table.rows[r], value);
    if (pruned && table.rows[r][*pruned] == 1) out.marked[at] = 1;
  }
  out.column_title = table.columns[keys.back()];
  for (size_t k = 0; k + 1 < keys.size(); ++k) out.row_title += (k == 0 ? "" : " · ") + table.columns[keys[k]];
  out.kind = !is_series(table.columns[keys[0]]) || out.rows.size() > kMostLines ? ChartKind::kHeatMap : ChartKind::kLines;
  if (out.kind == ChartKind::kHeatMap && out.column_title == "j" && out.row_title == "i") out.kind = ChartKind::kMatrix;
  if (!pruned || out.kind != ChartKind::kHeatMap) out.marked.clear(), out.mark_title.clear();
  return true;
}

// One line over the rows of the table for each quantity; another where the table holds the same of contiguous experts.
void place_lines(const ResultTable& table, const std::vector<size_t>& keys, const std::vector<size_t>& quantities, ChartSpec& out) {
  out.column_title = keys.empty() ? "row" : table.columns[keys[0]];
  for (size_t k = 1; k < keys.size(); ++k) out.column_title += " · " + table.columns[keys[k]];
  for (const Row& row : table.rows) out.columns.push_back(keys.empty() ? std::to_string(&row - table.rows.data()) : joined(row, keys, keys.size()));
  const auto add = [&](const std::string& name, size_t column) {
    out.rows.push_back(name);
    for (const Row& row : table.rows) out.values.push_back(value_of(row, column));
  };
  for (const size_t column : quantities) add(table.columns[column], column);
  if (quantities.size() == 1)
    if (const auto other = find(table, "contiguous_" + table.columns[quantities[0]])) add("contiguous", *other);
  const auto low = find(table, "low"), high = find(table, "high");
  if (low && high && out.rows.size() == 1)
    for (const Row& row : table.rows) out.low.push_back(value_of(row, *low)), out.high.push_back(value_of(row, *high));
  // What has no order between its entries is bars; so is a short list of one quantity.
  const bool ordered = out.column_title != "policy" && out.column_title != "criterion" && out.column_title != "domain";
  out.kind = out.columns.size() <= kMostBars && (out.rows.size() == 1 || !ordered) ? ChartKind::kBars : ChartKind::kLines;
}

}  // namespace

std::vector<std::string> chart_choices(const ResultTable& table) {
  std::vector<std::string> names;
  if (table.rows.size() < 2) return names;
  if (std::string test = test_name(table); !test.empty()) names.push_back(std::move(test));
  if (has_pairs(table)) names.emplace_back("flow");
  for (size_t c = 0; c < table.columns.size(); ++c) {
    if (has_numbers(table, c) && !is_key(table.columns[c])) names.push_back(table.columns[c]);
  }
  return names;
}

ChartSpec chart_of(const ResultTable& table, std::string_view choice) {
  ChartSpec out;
  if (table.rows.empty() || choice.empty()) return out;
  if (choice == test_name(table)) {
    out = points_of(table);
  } else if (choice == "flow" && has_pairs(table)) {
    out = flow_of(table);
  } else {
    std::vector<size_t> quantities;
    for (size_t from = 0; from <= choice.size();) {
      const size_t to = std::min(choice.find('+', from), choice.size());
      const auto column = find(table, choice.substr(from, to - from));
      if (!column) return out;
      quantities.push_back(*column);
      from = to + 1;
    }
    // Of several, those that this trace can tell.
    if (std::any_of(quantities.begin(), quantities.end(), [&](size_t c) { return has_numbers(table, c); }))
      std::erase_if(quantities, [&](size_t c) { return !has_numbers(table, c); });
    const auto keys = keys_of(table);
    if (keys.size() < 2 || quantities.size() > 1 || !place_grid(table, keys, quantities[0], out)) place_lines(table, keys, quantities, out);
    for (const size_t column : quantities) out.quantity += (out.quantity.empty() ? "" : ", ") + table.columns[column];
  }
  out.name = table.name + "-" + std::string(choice);
  std::replace_if(out.name.begin(), out.name.end(), [](char c) { return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'); }, '_');
  out.title = out.kind == ChartKind::kFlow ? "Pairs of experts in neighbouring layers" : out.quantity;
  return out;
}

}  // namespace switchyard
