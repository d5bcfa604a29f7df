// Shell completion written from the tree of commands that CLI11 parses by: a new command or option completes by itself. Main thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace switchyard {

// Completion offers these words; the parse takes any (the command says what is wrong, in its own words).
CLI::Validator suggested(const std::vector<std::string>& words);

// The script for "bash", "zsh" or "fish"; empty: another shell.
std::string completion_script(const CLI::App& root, std::string_view shell);

struct Cli;
void add_completion(CLI::App& app, Cli& cli);

}  // namespace switchyard
