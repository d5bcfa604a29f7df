// Results as tables, see table_output.h.
#include "app/cli/table_output.h"

#include <fmt/format.h>

#include "engine/studies/study.h"

namespace switchyard {
namespace {

constexpr size_t kRowsForPeople = 128;  // longer tables are for --csv

std::string title_of(const std::string& title, const ResultTable& table) {
  return title + ": " + table.name;
}

std::string shown(const TableOptions& options, const std::string& title, const ResultTable& table, bool titled) {
  if (options.markdown) return (titled ? "## " + title_of(title, table) + "\n\n" : std::string()) + markdown_of(table);
  if (options.latex) return latex_of(table, title_of(title, table));
  return (titled ? "# " + table.name + "\r\n" : std::string()) + csv_of(table);
}

}  // namespace

void TableOptions::add_options(CLI::App& app) {
  app.add_flag("--csv", csv, "Tables as CSV");
  app.add_flag("--markdown", markdown, "Tables as Markdown");
  app.add_flag("--latex", latex, "Tables as LaTeX (booktabs)");
  app.add_option("--table", table, "Only this table")->type_name("NAME");
}

void show_tables(Cli& cli, const TableOptions& options, const std::string& title,
                 const std::vector<ResultTable>& tables) {
  const bool text = options.csv || options.markdown || options.latex;
  std::string left_out;
  size_t count_left_out = 0;
  bool first = true;
  for (const ResultTable& table : tables) {
    if (!options.table.empty() && table.name != options.table) continue;
    if (!text && options.table.empty() && table.rows.size() > kRowsForPeople) {
      left_out += (left_out.empty() ? "" : ", ") + table.name;
      ++count_left_out;
      continue;
    }
    if (!first) cli.output.data(options.csv ? "\r\n" : "\n");
    first = false;
    if (text) {
      cli.output.data(shown(options, title, table, options.table.empty() && tables.size() > 1));
      continue;
    }
    cli.output.data(title_of(title, table) + "\n");
    std::vector<std::vector<std::string>> rows{table.columns};
    for (const auto& row : table.rows) {
      auto& cells = rows.emplace_back();
      for (const auto& cell : row) cells.push_back(cell_text(cell, 6));
    }
    cli.output.table(rows);
  }
  if (count_left_out > 0)
    cli.output.info(fmt::format("{} longer table{} not shown: {}. --table NAME, --csv or --json give them.",
                                count_left_out, count_left_out > 1 ? "s" : "", left_out));
}

void show_study(Cli& cli, const TableOptions& options, const std::string& title, const Document& document) {
  if (cli.output.json())
    cli.output.json(document);
  else
    show_tables(cli, options, title, study_tables(document));
}

}  // namespace switchyard
