// switchyard simulate: what a cache, an expert capacity, a network or a scheduler would have made of a trace. The
// simulations and their options are those of engine/studies.
#include <memory>

#include "app/cli/placement_commands.h"
#include "app/cli/study_flags.h"
#include "app/cli/table_output.h"

namespace switchyard {
namespace {

struct SimulateOptions {
  std::string trace;
  TableOptions tables;
  int threads = 0;
};

std::string example(const StudyInfo& info, const char* options) {
  return std::string("  switchyard simulate run.moetrace.h5 ") + info.name + " " + options;
}

Result<int> simulate(Cli& cli, const StudyInfo& info, const SimulateOptions& options,
                     const std::map<std::string, std::string>& given) {
  SY_TRY(const StudyOptions settings, options_of(info, given));
  SY_TRY(const Document document, run_study_of(cli, info, settings, options.trace, options.threads));
  show_study(cli, options.tables, command_of(info), document);
  return 0;
}

void add_simulation(CLI::App& noun, Cli& cli, const StudyInfo& info, const std::shared_ptr<SimulateOptions>& options) {
  std::string examples;
  for (const char* one : info.examples) examples += (examples.empty() ? "" : "\n") + example(info, one);
  CLI::App* command = add_command(noun, info.name, info.title + std::string("."), examples);
  options->tables.add_options(*command);
  const auto given = std::make_shared<std::map<std::string, std::string>>();
  for (const StudyOption& option : info.options) add_flag_of(*command, option, given);
  if (info.threads) add_threads(*command, options->threads);
  command->callback([&cli, &info, options, given] {
    cli.action = [&cli, &info, options, given] { return simulate(cli, info, *options, *given); };
  });
}

}  // namespace

void add_simulate(CLI::App& app, Cli& cli) {
  std::string examples;
  for (const StudyInfo& info : studies())
    if (info.kind == StudyKind::kSimulation)
      examples += (examples.empty() ? "" : "\n") + example(info, info.examples[0]);
  auto* noun = add_command(app, "simulate",
                           "What a cache, a capacity, a network or a scheduler would have made of a trace.", examples);
  const auto options = std::make_shared<SimulateOptions>();
  noun->add_option("TRACE", options->trace, "A *.moetrace.h5 file")->required();
  noun->require_subcommand(1);
  for (const StudyInfo& info : studies())
    if (info.kind == StudyKind::kSimulation) add_simulation(*noun, cli, info, options);
}

}  // namespace switchyard
