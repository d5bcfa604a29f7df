// switchyard plugin: lists plugins without running them, checks one, makes a new one from a template, and says which
// are trusted, on, and how they are set.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "app/cli/help.h"
#include "app/cli/plugins.h"
#include "engine/base/text.h"
#include "engine/plugin_host/check.h"
#include "engine/plugin_host/host.h"
#include "engine/plugin_host/template.h"

namespace switchyard {
namespace {

Document field_json(const PluginField& field) {
  Document out = {
      {"name", field.name}, {"title", field.title}, {"type", name(field.type)}, {"default", field.standard}};
  if (field.type == PluginField::Type::kReal || field.type == PluginField::Type::kInteger)
    out["min"] = field.min, out["max"] = field.max;
  if (!field.choices.empty()) out["choices"] = field.choices;
  if (!field.unit.empty()) out["unit"] = field.unit;
  return out;
}

Document contribution_json(const Contribution& one) {
  Document out = {{"kind", name(one.kind)}, {"id", one.id}, {"title", one.title}};
  if (!one.description.empty()) out["description"] = one.description;
  if (!one.parameters.empty()) {
    out["parameters"] = Document::array();
    for (const PluginField& field : one.parameters) out["parameters"].push_back(field_json(field));
  }
  if (!one.patterns.empty()) out["patterns"] = one.patterns;
  if (!one.needs.empty()) out["needs"] = one.needs;
  return out;
}

Document plugin_json(const Plugin& plugin) {
  const Manifest& manifest = plugin.manifest();
  const PluginStatus status = plugin.status();
  Document contributions = Document::array(), settings = Document::array();
  for (const Contribution& one : manifest.contributions) contributions.push_back(contribution_json(one));
  for (const PluginField& field : manifest.settings) {
    Document one = field_json(field);
    std::string value;
    plugin.setting(field.name, value);
    one["value"] = value;
    settings.push_back(std::move(one));
  }
  Document out = {
      {"id", plugin.id()},
      {"version", manifest.version},
      {"title", manifest.title},
      {"state", name(status.state)},
      {"why", status.why},
      {"folder", plugin.folder().string()},
      {"contract",
       {{"core", {manifest.core.least, manifest.core.most}}, {"view", {manifest.view.least, manifest.view.most}}}},
      {"sha256", plugin.sha256()},
      {"contributes", std::move(contributions)},
      {"settings", std::move(settings)},
      {"notes", manifest.notes}};
  return out;
}

Result<int> list(Cli& cli) {
  const PluginHost& host = PluginHost::instance();
  if (cli.output.json()) {
    Document plugins = Document::array(), path = Document::array();
    for (const auto& plugin : host.plugins()) plugins.push_back(plugin_json(*plugin));
    for (const auto& folder : host.search_path()) path.push_back(folder.string());
    cli.output.json({{"schema", kSchema},
                     {"contracts", {{"core", SY_CORE_CONTRACT}, {"view", SY_VIEW_CONTRACT}}},
                     {"path", path},
                     {"plugins", plugins}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& plugin : host.plugins()) {
    const PluginStatus status = plugin->status();
    rows.push_back(
        {plugin->id(), plugin->manifest().version, std::string(name(status.state)), plugin->manifest().title});
    if (!status.why.empty()) rows.push_back({"", "", "", printable(status.why, 600)});
    if (plugin->manifest().has_code() && !plugin->sha256().empty())
      rows.push_back({"", "", "", "sha256:" + plugin->sha256()});
    for (const Contribution& one : plugin->manifest().contributions)
      rows.push_back({"", "", std::string(words(one.kind)), fmt::format("{}: {}", one.id, one.title)});
    for (const std::string& note : plugin->manifest().notes) rows.push_back({"", "", "note", note});
  }
  if (!rows.empty())
    cli.output.table(rows);
  else
    cli.output.data("No plugin is found.\n");
  cli.output.data(rows.empty() ? "Looked for in\n" : "\nLooked for in\n");
  for (const auto& folder : host.search_path()) cli.output.data("  " + printable(folder.string(), 400) + "\n");
  return 0;
}

Result<int> check(Cli& cli, const std::string& folder) {
  SY_TRY(const PluginCheck report, check_plugin(folder));
  if (cli.output.json()) {
    Document lines = Document::array();
    for (const PluginCheckLine& line : report.lines)
      lines.push_back({{"what", line.what}, {"passed", line.passed}, {"found", line.found}});
    cli.output.json({{"schema", kSchema},
                     {"id", report.manifest.id},
                     {"version", report.manifest.version},
                     {"sha256", report.sha256},
                     {"passed", report.passed()},
                     {"checks", lines}});
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const PluginCheckLine& line : report.lines)
      rows.push_back({line.passed ? "passed" : "FAILED", line.what, printable(line.found, 1000)});
    cli.output.table(rows);
    if (!report.sha256.empty()) cli.output.data("sha256:" + report.sha256 + "\n");
  }
  return report.passed() ? 0 : int(ErrorCode::kCheckFailed);
}

struct NewArguments {
  std::string kind, name, folder;
};

Result<int> make_new(Cli& cli, const NewArguments& arguments) {
  SY_TRY(const PluginKind kind, plugin_kind(arguments.kind));
  const std::string folder = arguments.folder.empty() ? arguments.name : arguments.folder;
  SY_TRY(const std::vector<std::string> files, new_plugin(kind, arguments.name, folder));
  if (cli.output.json()) {
    cli.output.json(
        {{"schema", kSchema}, {"kind", name(kind)}, {"id", arguments.name}, {"folder", folder}, {"files", files}});
    return 0;
  }
  for (const std::string& file : files) cli.output.data(fmt::format("Wrote {}/{}\n", printable(folder, 400), file));
  cli.output.data(is_code(kind) ? fmt::format("Build it with: cmake -B {0}/build {0} && cmake --build {0}/build && "
                                              "switchyard plugin check {0}/build\n",
                                              printable(folder, 400))
                                : fmt::format("Look at it with: switchyard plugin check {}\n", printable(folder, 400)));
  return 0;
}

Result<int> trust(Cli& cli, const std::string& id, bool trusted) {
  PluginHost& host = PluginHost::instance();
  SY_CHECK(host.trust(id, trusted));
  const auto plugin = host.find(id);
  if (cli.output.json()) {
    cli.output.json(plugin_json(*plugin));
    return 0;
  }
  cli.output.data(trusted ? fmt::format("{} is trusted from now on: {}\nsha256:{}\nIts native code has your rights. A "
                                        "library with another hash asks anew.\n",
                                        id, printable(plugin->library().string(), 400), plugin->sha256())
                          : fmt::format("{} is not trusted any more.\n", id));
  return 0;
}

Result<int> set_off(Cli& cli, const std::string& id, bool off) {
  SY_CHECK(PluginHost::instance().set_off(id, off));
  if (cli.output.json())
    cli.output.json(plugin_json(*PluginHost::instance().find(id)));
  else
    cli.output.data(fmt::format("{} is {}.\n", id, off ? "off" : "on"));
  return 0;
}

Result<int> set(Cli& cli, const std::vector<std::string>& words) {
  PluginHost& host = PluginHost::instance();
  SY_CHECK(host.set_setting(words[0], words[1], words[2]));
  if (cli.output.json())
    cli.output.json(plugin_json(*host.find(words[0])));
  else
    cli.output.data(fmt::format("{} of {} is {}.\n", words[1], words[0], printable(words[2], 400)));
  return 0;
}

// The value behind `flag` at argv[i], "--flag=value" or "--flag value"; nullptr: this is another argument.
const char* value_of(int argc, char** argv, int& i, std::string_view flag) {
  const std::string_view argument = argv[i];
  if (argument == flag && i + 1 < argc) return argv[++i];
  if (argument.starts_with(flag) && argument.size() > flag.size() && argument[flag.size()] == '=')
    return argv[i] + flag.size() + 1;
  return nullptr;
}

}  // namespace

void start_plugins(int argc, char** argv) {
  PluginOptions options;
  for (int i = 1; i < argc; ++i) {
    if (const char* folder = value_of(argc, argv, i, "--plugin-path"))
      options.path.emplace_back(folder);
    else if (const char* hash = value_of(argc, argv, i, "--trust-plugin"))
      options.trust.emplace_back(hash);
    else if (std::string_view(argv[i]) == "--safe-mode")
      options.safe_mode = true;
    else if (std::string_view(argv[i]) == "--")
      break;
  }
  options.before_code = Output::keep_stdout;
  if (const char* seconds = std::getenv("SWITCHYARD_PLUGIN_HANG"))
    options.patience = std::max(1L, std::strtol(seconds, nullptr, 10));
  options.hung = [](const std::string& line) {
    Output().error({ErrorCode::kPlugin, line, {}, "The program ends; what was recorded so far is in its .part file."});
    ::_exit(int(ErrorCode::kPlugin));
  };
  PluginHost::instance().start(options);
}

void tell_of_plugins(Output& output) {
  for (const std::string& line : PluginHost::instance().take_lines()) output.warn(printable(line, 2000));
}

void add_plugin_options(CLI::App& app) {
  // Read by start_plugins(), before the commands are known.
  static std::vector<std::string> path, trusted;
  app.add_option("--plugin-path", path, "A further folder of plugins")
      ->group("Everywhere")
      ->type_name("FOLDER")
      ->allow_extra_args(false);
  app.add_option("--trust-plugin", trusted, "Trust a plugin's library by its hash for this run")
      ->group("Everywhere")
      ->type_name("sha256:HASH")
      ->allow_extra_args(false);
  app.add_flag_callback(
         "--safe-mode", [] {}, "Open no plugin")
      ->group("Everywhere");
}

void add_plugin(CLI::App& app, Cli& cli) {
  auto* noun = add_command(app, "plugin", "Other people's schemes, metrics, views, importers and exporters.",
                           "  switchyard plugin list\n"
                           "  switchyard plugin new scheme my-gate\n"
                           "  switchyard plugin check my-gate/build\n"
                           "  switchyard plugin trust my-gate");
  noun->require_subcommand(1);
  auto* listed = add_command(*noun, "list", "What is found, what it adds and whether it may run; runs nothing.",
                             "  switchyard plugin list --json");
  listed->callback([&cli] { cli.action = [&cli] { return list(cli); }; });

  auto* checked = add_command(*noun, "check", "Tries everything that a plugin declares, in a process with limits.",
                              "  switchyard plugin check my-gate/build");
  const auto folder = std::make_shared<std::string>();
  checked->add_option("FOLDER", *folder, "With plugin.json and the library in it")->required();
  checked->callback([&cli, folder] { cli.action = [&cli, folder] { return check(cli, *folder); }; });

  auto* made = add_command(
      *noun, "new", "Writes a plugin that builds, from a template.",
      "  switchyard plugin new scheme my-gate\n  switchyard plugin new metric my-metric --folder somewhere");
  const auto arguments = std::make_shared<NewArguments>();
  made->add_option("KIND", arguments->kind, "scheme, edit, metric, view, reader, writer, report, section, command or theme")
      ->required();
  made->add_option("NAME", arguments->name, "Its id: lower-case letters, digits and dashes")->required();
  made->add_option("--folder", arguments->folder, "Where to (NAME)")->type_name("FOLDER");
  made->callback([&cli, arguments] { cli.action = [&cli, arguments] { return make_new(cli, *arguments); }; });

  const auto about = [&](const char* word, const char* help, Result<int> (*run)(Cli&, const std::string&, bool),
                         bool flag) {
    auto* command = add_command(*noun, word, help, fmt::format("  switchyard plugin {} my-gate", word));
    const auto id = std::make_shared<std::string>();
    command->add_option("ID", *id, "As plugin list shows it")->required();
    command->callback([&cli, id, run, flag] { cli.action = [&cli, id, run, flag] { return run(cli, *id, flag); }; });
  };
  about("trust", "Lets the library as it is now run with your rights.", trust, true);
  about("untrust", "Takes that back.", trust, false);
  about("on", "Switches a plugin on that was switched off, by hand or by a crash.", set_off, false);
  about("off", "Switches a plugin off.", set_off, true);

  auto* setting = add_command(*noun, "set", "Sets a setting that the plugin's manifest declares.",
                              "  switchyard plugin set my-gate strength 0.5");
  const auto words = std::make_shared<std::vector<std::string>>();
  setting->add_option("ID KEY VALUE", *words, "Plugin, setting and its value")->required()->expected(3);
  setting->callback([&cli, words] { cli.action = [&cli, words] { return set(cli, *words); }; });
}

}  // namespace switchyard
