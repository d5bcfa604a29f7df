// See table_text.h.
#include "engine/report/table_text.h"

#include <algorithm>
#include <cmath>

#include "engine/base/sinks.h"

namespace switchyard {

using Document = nlohmann::ordered_json;

std::string tsv_of(const ResultTable& table) {
  std::string out;
  const auto line = [&](const auto& cells, const auto& text) {
    for (size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) out += '\t';
      for (const char c : text(cells[i])) {
        switch (c) {
          case '\\': out += "\\\\"; break;
          case '\t': out += "\\t"; break;
          case '\n': out += "\\n"; break;
          case '\r': out += "\\r"; break;
          default: out += c;
        }
      }
    }
    out += '\n';
  };
  line(table.columns, [](const std::string& name) { return name; });
  for (const auto& row : table.rows) line(row, [](const Document& cell) { return cell_text(cell, 17); });
  return out;
}

std::string json_of(const ResultTable& table) {
  return Document{{"schema", 1}, {"name", table.name}, {"columns", table.columns}, {"rows", table.rows}}.dump(1, ' ', false, Document::error_handler_t::replace) + "\n";
}

std::string numpy_of(const ResultTable& table) {
  const auto literal = [](const std::string& text) { return Document(shown_text(text)).dump(); };  // JSON's is a Python literal
  std::string out = "import numpy as np\n\n" + std::string("table = {\n");
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const auto all = [&](const auto& fits) { return std::all_of(table.rows.begin(), table.rows.end(), [&](const auto& row) { return fits(row[c]); }); };
    const bool whole = all([](const Document& cell) { return cell.is_number_integer(); });
    const bool numbers = all([](const Document& cell) { return cell.is_number() || cell.is_null(); });
    out += "    " + literal(table.columns[c]) + ": np.array([";
    for (size_t r = 0; r < table.rows.size(); ++r) {
      const Document& cell = table.rows[r][c];
      if (r > 0) out += ", ";
      if (!numbers) out += literal(cell_text(cell, 17));
      else if (cell.is_null()) out += "np.nan";
      else if (cell.is_number_float() && !std::isfinite(cell.get<double>())) out += std::isnan(cell.get<double>()) ? "np.nan" : cell.get<double>() < 0 ? "-np.inf" : "np.inf";
      else out += cell_text(cell, 17);
    }
    out += whole ? "], dtype=np.int64),\n" : numbers ? "], dtype=np.float64),\n" : "]),\n";
  }
  return out + "}\n";
}

}  // namespace switchyard
