// Help that leads with examples, and "did you mean" for words that are no command or option. Main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace switchyard {

// Examples (kept in the footer), description, usage, options.
std::shared_ptr<CLI::Formatter> make_help_formatter();

// A check for options that count; says the range.
CLI::Validator whole_number(uint64_t min, uint64_t max);

// The candidate within a third of the word's length in edits (insert, delete, replace, swap); empty: none.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

// What is wrong with the words CLI11 could not place, in one sentence with a suggestion.
std::string explain_unknown(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace switchyard
