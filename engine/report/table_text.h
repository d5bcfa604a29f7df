// Tables for pasting, beside CSV, Markdown and LaTeX of engine/analysis/result_table.h. Pure; any thread.
#pragma once

#include <string>

#include "engine/analysis/result_table.h"

namespace switchyard {

std::string tsv_of(const ResultTable& table);    // tabs, line feeds and backslashes of texts as \t, \n and backslash twice
std::string json_of(const ResultTable& table);   // {"schema", "name", "columns", "rows"}; what is not finite is null
// A NumPy array a column, in a dict: numbers exact, empty cells nan, texts as str.
std::string numpy_of(const ResultTable& table);

}  // namespace switchyard
