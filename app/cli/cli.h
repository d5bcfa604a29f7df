// What the commands share: options of every command, output, signals, and the action that the parsed command
// line chose. One file per noun adds its commands. Main thread.
#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "app/cli/interrupt.h"
#include "app/cli/output.h"
#include "app/cli/progress.h"
#include "engine/base/result.h"

namespace switchyard {

struct Cli {
  Interrupts& interrupts;
  Output output;
  std::string progress_name = "auto";
  // Set by the chosen command; gives the exit code.
  std::function<Result<int>()> action;

  ProgressMode progress() const { return parse_progress_mode(progress_name).value_or(ProgressMode::kAuto); }
};

inline constexpr int kSchema = 1;  // of every JSON document

// examples: whole lines, shown first in the help.
CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& examples);

void add_analyze(CLI::App& app, Cli& cli);
void add_adapt(CLI::App& app, Cli& cli);
void add_calibrate(CLI::App& app, Cli& cli);
void add_calibrate_bank(CLI::App& calibrate, Cli& cli);
void add_calibrate_gradient(CLI::App& calibrate, Cli& cli);
void add_calibrate_lens(CLI::App& calibrate, Cli& cli);
void add_calibrate_prune(CLI::App& calibrate, Cli& cli);
void add_calibrate_paths(CLI::App& calibrate, Cli& cli);  // path-search, path-route, oracle, esft
void add_open(CLI::App& app, Cli& cli);
void add_inspect(CLI::App& app, Cli& cli);
void add_run(CLI::App& app, Cli& cli);
void add_score(CLI::App& app, Cli& cli);
void add_compare(CLI::App& app, Cli& cli);
void add_tokenize(CLI::App& app, Cli& cli);  // and detokenize
void add_recipe(CLI::App& app, Cli& cli);
void add_export(CLI::App& app, Cli& cli);
void add_trace(CLI::App& app, Cli& cli);
void add_bench(CLI::App& app, Cli& cli);

}  // namespace switchyard
