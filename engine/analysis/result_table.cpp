// See result_table.h.
#include "engine/analysis/result_table.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "engine/base/sinks.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::pair<std::string, Json>>;

constexpr int kExact = 17, kShown = 6;

class Tables {
 public:
  std::vector<ResultTable> take() && { return std::move(tables_); }

  void object(const Json& object, const std::string& path, const Cells& parents) {
    Cells scalars, ids = parents, lists;
    for (const auto& [name, value] : object.items()) {
      if (value.is_primitive()) {
        scalars.emplace_back(name, value);
        if (is_key(name)) ids.emplace_back(name, value);
      }
    }
    // {"top1": {"mi_bits": …}} inside a row: its scalars are columns of the row.
    for (const auto& [name, value] : object.items()) {
      if (!value.is_object() || path.empty()) continue;
      for (const auto& [inner, scalar] : value.items())
        if (scalar.is_primitive()) scalars.emplace_back(name + "." + inner, scalar);
    }
    if (!scalars.empty() && (scalars.size() > ids.size() - parents.size() || path.empty())) {
      Cells row = parents;
      row.insert(row.end(), scalars.begin(), scalars.end());
      add(path.empty() ? "summary" : path, row);
    }
    for (const auto& [name, value] : object.items()) {
      const std::string inner = path.empty() ? name : path + "." + name;
      if (value.is_object()) {
        if (path.empty()) this->object(value, inner, ids);
        else nested_lists(value, inner, ids);
      } else if (value.is_array() && !value.empty()) {
        if (value[0].is_object()) {
          for (const Json& one : value) this->object(one, inner, ids);
        } else if (value[0].is_array()) {
          matrix(value, inner, ids);
        } else {
          lists.emplace_back(name, value);
        }
      }
    }
    columns(lists, path, ids);
  }

 private:
  void nested_lists(const Json& object, const std::string& path, const Cells& ids) {
    Cells lists;
    for (const auto& [name, value] : object.items()) {
      if (!value.is_array() || value.empty()) continue;
      if (value[0].is_object()) {
        for (const Json& one : value) this->object(one, path + "." + name, ids);
      } else if (value[0].is_array()) {
        matrix(value, path + "." + name, ids);
      } else {
        lists.emplace_back(name, value);
      }
    }
    columns(lists, path, ids);
  }

  // Lists of one length side by side.
  void columns(const Cells& lists, const std::string& path, const Cells& ids) {
    std::vector<bool> done(lists.size());
    for (size_t first = 0; first < lists.size(); ++first) {
      if (done[first]) continue;
      const size_t length = lists[first].second.size();
      std::vector<size_t> together;
      for (size_t other = first; other < lists.size(); ++other) {
        if (done[other] || lists[other].second.size() != length) continue;
        together.push_back(other);
        done[other] = true;
      }
      const std::string name = together.size() == 1 ? lists[first].first : "values";
      for (size_t i = 0; i < length; ++i) {
        Cells row = ids;
        row.emplace_back("index", i);
        for (const size_t list : together) row.emplace_back(lists[list].first, lists[list].second[i]);
        add(path.empty() ? name : path + "." + name, row);
      }
    }
  }

  void matrix(const Json& rows, const std::string& path, const Cells& ids) {
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t j = 0; j < rows[i].size(); ++j) {
        Cells row = ids;
        row.emplace_back("i", i), row.emplace_back("j", j), row.emplace_back("value", rows[i][j].is_primitive() ? rows[i][j] : Json(rows[i][j].dump()));
        add(path, row);
      }
    }
  }

  void add(const std::string& name, const Cells& cells) {
    auto table = std::find_if(tables_.begin(), tables_.end(), [&](const ResultTable& one) { return one.name == name; });
    if (table == tables_.end()) table = tables_.insert(tables_.end(), ResultTable{name, {}, {}});
    std::vector<Json> row(table->columns.size());
    for (const auto& [column, value] : cells) {
      const auto at = size_t(std::find(table->columns.begin(), table->columns.end(), column) - table->columns.begin());
      if (at == table->columns.size()) {
        table->columns.push_back(column);
        row.emplace_back();
        for (auto& earlier : table->rows) earlier.emplace_back();
      }
      row[at] = value;
    }
    table->rows.push_back(std::move(row));
  }

  std::vector<ResultTable> tables_;
};

}  // namespace

bool is_key(std::string_view column) {
  for (const char* one : {"layer", "router", "from", "to", "from_router", "to_router", "m", "expert", "gpus", "domain", "policy", "criterion", "slots", "capacity_factor", "position", "copy", "window", "index", "i", "j"})
    if (column == one) return true;
  return false;
}

bool is_series(std::string_view column) { return column == "policy" || column == "capacity_factor"; }

std::optional<TestColumns> test_columns(const ResultTable& table) {
  const auto find = [&](const char* name) { return size_t(std::find(table.columns.begin(), table.columns.end(), name) - table.columns.begin()); };
  const TestColumns found{find("delta"), find("q")};
  const size_t experts = std::min(find("index"), find("expert")), none = table.columns.size();
  if (found.effect == none || found.q == none || find("layer") == none || experts == none) return std::nullopt;
  return found;
}

std::vector<ResultTable> result_tables(const Json& object) {
  Tables tables;
  tables.object(object, "", {});
  return std::move(tables).take();
}

std::string cell_text(const Json& cell, int digits) {
  if (cell.is_null()) return "";
  if (cell.is_string()) return cell.get<std::string>();
  if (cell.is_boolean()) return cell.get<bool>() ? "true" : "false";
  if (!cell.is_number_float()) return cell.dump();
  return digits >= kExact ? fmt::format("{}", cell.get<double>()) : fmt::format("{:.{}g}", cell.get<double>(), digits);
}

std::string csv_of(const ResultTable& table) {
  std::string out;
  const auto line = [&](const auto& cells, const auto& text) {
    for (size_t i = 0; i < cells.size(); ++i) out += (i > 0 ? "," : "") + text(cells[i]);
    out += "\r\n";
  };
  line(table.columns, [](const std::string& name) { return csv_text(name, true); });
  for (const auto& row : table.rows) line(row, [](const Json& cell) { return csv_text(cell_text(cell, kExact), cell.is_string()); });
  return out;
}

std::string markdown_of(const ResultTable& table) {
  std::string out = "|", rule = "|";
  for (const std::string& name : table.columns) {
    out += " " + markdown_text(name) + " |";
    rule += " --- |";
  }
  out += "\n" + rule + "\n";
  for (const auto& row : table.rows) {
    out += "|";
    for (const Json& cell : row) out += " " + markdown_text(cell_text(cell, kShown)) + " |";
    out += "\n";
  }
  return out;
}

std::string latex_of(const ResultTable& table, std::string_view caption) {
  std::string out = "\\begin{table}\n\\centering\n\\caption{" + latex_text(caption) + "}\n\\begin{tabular}{";
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const bool text = std::any_of(table.rows.begin(), table.rows.end(), [c](const auto& row) { return row[c].is_string(); });
    out += text ? 'l' : 'r';
  }
  out += "}\n\\toprule\n";
  const auto line = [&](const auto& cells, const auto& text) {
    for (size_t i = 0; i < cells.size(); ++i) out += (i > 0 ? " & " : "") + latex_text(text(cells[i]));
    out += " \\\\\n";
  };
  line(table.columns, [](const std::string& name) { return name; });
  out += "\\midrule\n";
  for (const auto& row : table.rows) line(row, [](const Json& cell) { return cell_text(cell, kShown); });
  return out + "\\bottomrule\n\\end{tabular}\n\\end{table}\n";
}

}  // namespace switchyard
