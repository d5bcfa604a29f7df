// Tables made of an analysis' JSON object, so that a number has one source whatever it is shown as: CSV (RFC 4180),
// Markdown, LaTeX (booktabs). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard {

// A rectangle of scalars. Columns that identify a row (layer, transition, window) come first.
struct ResultTable {
  std::string name;                       // "layers", "layers.values", "transitions.top1.top_pairs"; "summary" for the object itself
  std::vector<std::string> columns;
  std::vector<std::vector<nlohmann::ordered_json>> rows;  // null: an empty cell
};

// Whether a column of this name says which row it is, and is no quantity.
bool is_key(std::string_view column);
// Whether it is a key whose values are variants to compare: each is a line of one picture.
bool is_series(std::string_view column);

// Columns of a test of many experts, a row each: the effect, and its p corrected for their number.
struct TestColumns {
  size_t effect = 0, q = 0;
};
std::optional<TestColumns> test_columns(const ResultTable& table);  // none: no such table

// The object's own scalars; a table for each list of objects in it; its lists of numbers as (index, values); matrices
// as (i, j, value). Names are the path through the object.
std::vector<ResultTable> result_tables(const nlohmann::ordered_json& object);

std::string csv_of(const ResultTable& table);       // \r\n lines; text that a spreadsheet would run is quoted with '
std::string markdown_of(const ResultTable& table);
std::string latex_of(const ResultTable& table, std::string_view caption);
// A cell as text: integers and texts as they are, reals with `digits` significant ones.
std::string cell_text(const nlohmann::ordered_json& cell, int digits);

}  // namespace switchyard
