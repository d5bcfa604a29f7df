// How a command shows one result: the JSON document, or tables made from it (CSV, Markdown, LaTeX, or for people).
// Main thread.
#pragma once

#include <string>

#include "app/cli/cli.h"

namespace switchyard {

struct TableOptions {
  bool csv = false, markdown = false, latex = false;
  std::string table;  // only this one; empty: all

  void add_options(CLI::App& app);
};

// document: what --json prints. Tables leave out "schema", "trace" and the command's own name.
void show_result(Cli& cli, const TableOptions& options, const std::string& title, Document document);
// Tables of an object, as the options ask.
void show_tables(Cli& cli, const TableOptions& options, const std::string& title, const Document& object);

}  // namespace switchyard
