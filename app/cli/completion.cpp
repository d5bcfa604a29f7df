// switchyard completion, see completion.h.
#include "app/cli/completion.h"

#include <algorithm>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/completion_shells.h"

namespace switchyard {
namespace {

using completion::Command;
using completion::Option;
using completion::Value;

// CLI11 keeps what IsMember allows in the type name: "NAME:{a,b}".
std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find(":{");
  if (open == std::string::npos || type.find('}', open) == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 2, type.find('}', open) - open - 2), ',');
}

Value value_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::string name = option.get_positional() ? option.get_name(true) : type.substr(0, type.find(':'));
  const auto is = [&](std::initializer_list<std::string_view> names) { return std::find(names.begin(), names.end(), name) != names.end(); };
  const std::vector<std::string> choices = choices_of(option);
  if (!choices.empty()) return {Value::kWords, choices, name};
  if (is({"MODEL", "MODEL|TRACE", "OTHER", "BASE"})) return {Value::kModel, {"demo"}, name};
  if (is({"TRACE"})) return {Value::kTrace, {}, name};
  if (is({"FILE", "FILES", "PATH", "DIR", "FOLDER", "JSONL", "PNG"})) return {Value::kFile, {}, name};
  return {Value::kText, {}, name};
}

Command command_of(const CLI::App& app, const std::string& path) {
  Command out{.path = path, .name = app.get_name(), .description = app.get_description()};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      out.positionals.push_back(value_of(*option));
      continue;
    }
    Option one{.description = option->get_description()};
    for (const std::string& name : option->get_snames()) one.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) one.names.push_back("--" + name);
    if (option->get_type_size() != 0) one.value = value_of(*option);
    out.options.push_back(std::move(one));
  }
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    out.commands.push_back(command_of(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name()));
  return out;
}

}  // namespace

CLI::Validator suggested(const std::vector<std::string>& words) {
  return CLI::Validator([](std::string&) { return std::string(); }, CLI::detail::generate_set(words));
}

std::string completion_script(const CLI::App& root, std::string_view shell) {
  const Command tree = command_of(root, "");
  if (shell == "bash") return completion::bash(tree);
  if (shell == "zsh") return completion::zsh(tree);
  if (shell == "fish") return completion::fish(tree);
  return {};
}

void add_completion(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "completion", "The completion script of a shell; packages install it.",
                              "  switchyard completion bash > ~/.local/share/bash-completion/completions/switchyard\n"
                              "  switchyard completion zsh > ~/.zfunc/_switchyard        # a folder of $fpath\n"
                              "  switchyard completion fish > ~/.config/fish/completions/switchyard.fish");
  const auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback([&app, &cli, shell] {
    cli.action = [&app, &cli, shell]() -> Result<int> {
      const std::string script = completion_script(app, *shell);
      if (cli.output.json())
        cli.output.json({{"schema", kSchema}, {"shell", *shell}, {"script", script}});
      else
        cli.output.data(script);
      return 0;
    };
  });
}

}  // namespace switchyard
