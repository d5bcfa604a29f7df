// How a command shows one result: the JSON document, or tables made from it (CSV, Markdown, LaTeX, or for people).
// Main thread.
#pragma once

#include <string>
#include <vector>

#include "app/cli/cli.h"
#include "engine/analysis/result_table.h"

namespace switchyard {

struct TableOptions {
  bool csv = false, markdown = false, latex = false;
  std::string table;  // only this one; empty: all

  void add_options(CLI::App& app);
};

// document: of a study, printed as it is with --json, else as study_tables().
void show_study(Cli& cli, const TableOptions& options, const std::string& title, const Document& document);
// Tables, as the options ask.
void show_tables(Cli& cli, const TableOptions& options, const std::string& title,
                 const std::vector<ResultTable>& tables);

}  // namespace switchyard
