// The command line `switchyard`: reads arguments, runs one command, turns its result into an exit code
// (design: interface.md, section 12). The locale is never set, so numbers look the same everywhere.
#include <new>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/completion.h"
#include "app/cli/help.h"
#include "app/cli/placement_commands.h"
#include "app/cli/plugins.h"
#include "app/cli/report_command.h"
#include "app/version.h"
#include "engine/trace/replay.h"

namespace switchyard {
namespace {

void add_common_options(CLI::App& app, Cli& cli) {
  OutputOptions& options = cli.output.options;
  app.add_flag("--json", options.json, "One JSON document on stdout")->group("Everywhere");
  app.add_flag("--plain", options.plain, "Tables as tab-separated values")->group("Everywhere");
  app.add_option("-o,--output", options.file, "Write the data to this file instead of stdout")
      ->group("Everywhere")
      ->type_name("FILE");
  app.add_flag("--force", options.force, "Write over existing files")->group("Everywhere");
  app.add_flag("-q,--quiet", options.quiet, "No messages but errors")->group("Everywhere");
  app.add_flag("--no-color", options.no_color, "No colour (also: NO_COLOR, TERM=dumb)")->group("Everywhere");
  app.add_flag_callback(
         "--no-input", [] {}, "Never ask; this program never does")
      ->group("Everywhere");
  app.add_option("--log-level", options.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->group("Everywhere")
      ->type_name("LEVEL");
  app.add_option("--progress", cli.progress_name, "auto, plain, json or none")
      ->check(CLI::IsMember({"auto", "plain", "json", "none"}))
      ->group("Everywhere")
      ->type_name("KIND");
  add_plugin_options(app);
}

void build(CLI::App& app, Cli& cli) {
  app.name("switchyard");
  app.formatter(make_help_formatter());
  app.footer(
      "  switchyard open demo\n"
      "  switchyard run demo --prompt \"The router\" --max-new-tokens 32\n"
      "  switchyard inspect demo");
  app.set_version_flag("--version", version_text, "What this program is: build, backends, formats");
  app.require_subcommand(1);
  add_common_options(app, cli);
  add_open(app, cli);
  add_inspect(app, cli);
  add_run(app, cli);
  add_score(app, cli);
  add_compare(app, cli);
  add_tokenize(app, cli);
  add_recipe(app, cli);
  add_adapt(app, cli);
  add_calibrate(app, cli);
  add_export(app, cli);
  add_trace(app, cli);
  add_analyze(app, cli);
  add_place(app, cli);
  add_simulate(app, cli);
  add_report(app, cli);
  add_bench(app, cli);
  add_plugin(app, cli);
  add_completion(app, cli);
}

Error usage_error(const CLI::App& app, const CLI::ParseError& problem, int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string what = explain_unknown(app, arguments);
  if (what.empty()) {
    what = problem.what();
    if (!what.empty() && what.back() != '.') what += '.';
  }
  const auto chosen = app.get_subcommands();
  const std::string command = chosen.empty() ? "" : " " + chosen.front()->get_name();
  return {ErrorCode::kUsage, what, {}, fmt::format("Try: switchyard{} --help", command)};
}

int exit_code_of(const Error& error, const Interrupts& interrupts) {
  if (error.code == ErrorCode::kCancelled && interrupts.signal() != 0) return 128 + interrupts.signal();
  return static_cast<int>(error.code);
}

int run(int argc, char** argv, Interrupts& interrupts) {
  Cli cli{interrupts};
  CLI::App app("Route, watch and edit Mixture-of-Experts models.");
  build(app, cli);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& problem) {
    cli.output.error(usage_error(app, problem, argc, argv));
    return static_cast<int>(ErrorCode::kUsage);
  }
  tell_of_plugins(cli.output);
  const auto writable = cli.output.check_file();
  const Result<int> code = writable ? cli.action() : tl::unexpected<Error>(writable.error());
  tell_of_plugins(cli.output);
  if (!code) {
    const bool asked = code.error().code == ErrorCode::kCancelled && interrupts.signal() != 0;
    if (!asked) cli.output.error(code.error());
    return exit_code_of(code.error(), interrupts);
  }
  if (const auto written = cli.output.finish(); !written) {
    cli.output.error(written.error());
    return exit_code_of(written.error(), interrupts);
  }
  return *code;
}

int guarded(int argc, char** argv, Interrupts& interrupts) {
  Output output;
  try {
    return run(argc, argv, interrupts);
  } catch (const std::bad_alloc&) {
    output.error(
        {ErrorCode::kMemory, "out of memory.", {}, "Close other programs or choose a smaller model or context."});
    return static_cast<int>(ErrorCode::kMemory);
  } catch (const std::exception& error) {
    output.error({ErrorCode::kInternal,
                  fmt::format("unexpected failure: {}", error.what()),
                  {},
                  "This is a bug; please report it."});
    return static_cast<int>(ErrorCode::kInternal);
  }
}

}  // namespace

CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& description,
                      const std::string& examples) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->footer(examples);
  command->fallthrough();
  return command;
}

}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::Interrupts interrupts;
  switchyard::read_schemes_from_traces();
  switchyard::start_plugins(argc, argv);
  return switchyard::guarded(argc, argv, interrupts);
}
