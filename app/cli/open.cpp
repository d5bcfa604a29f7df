// switchyard open: starts the window program beside this one and becomes it.
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <unistd.h>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/help.h"

namespace switchyard {
namespace {

constexpr const char* kWindowProgram = "switchyard-gui";

struct OpenOptions {
  std::string what, workspace, screenshot, after_tokens;
  bool safe_mode = false;
};

std::vector<std::string> window_arguments(const std::string& program, const OpenOptions& options) {
  std::vector<std::string> arguments = {program};
  const auto pass = [&](const char* name, const std::string& value) {
    if (value.empty()) return;
    arguments.push_back(name);
    arguments.push_back(value);
  };
  pass("--workspace", options.workspace);
  pass("--screenshot", options.screenshot);
  pass("--after-tokens", options.after_tokens);
  if (options.safe_mode) arguments.push_back("--safe-mode");
  if (!options.what.empty()) arguments.push_back(options.what);
  return arguments;
}

Result<int> open_window(const OpenOptions& options) {
  std::error_code problem;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", problem);
  const std::string program = (self.parent_path() / kWindowProgram).string();
  if (problem || ::access(program.c_str(), X_OK) != 0)
    return fail(ErrorCode::kUsage, "the window program is not installed.", program,
                "Build or install switchyard-gui, or use switchyard run.");
  std::vector<std::string> arguments = window_arguments(program, options);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  Interrupts::restore_defaults();
  ::execv(program.c_str(), argv.data());
  return fail(ErrorCode::kInternal, fmt::format("could not be started: {}.", std::strerror(errno)), program);
}

}  // namespace

void add_open(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "open", "Opens the window on a model or a trace.",
                              "  switchyard open demo\n"
                              "  switchyard open run.moetrace.h5\n"
                              "  switchyard open demo --screenshot demo.png --after-tokens 64");
  const auto options = std::make_shared<OpenOptions>();
  command->add_option("MODEL|TRACE", options->what, "What to open; nothing: the start page");
  command->add_option("--workspace", options->workspace, "A workspace file")->type_name("FILE");
  command->add_flag("--safe-mode", options->safe_mode, "No plugins, default layout");
  auto* screenshot =
      command->add_option("--screenshot", options->screenshot, "Draw, save this picture, exit")->type_name("PNG");
  command->add_option("--after-tokens", options->after_tokens, "Generate so many tokens before the picture")
      ->check(whole_number(0, 1 << 24))
      ->needs(screenshot)
      ->type_name("N");
  command->callback([&cli, options] { cli.action = [options] { return open_window(*options); }; });
}

}  // namespace switchyard
