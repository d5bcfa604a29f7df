// switchyard place: which GPU holds which expert (specs/cli-json.md, place). The methods and their options are the
// placements of engine/studies.
#include <algorithm>
#include <memory>
#include <set>

#include <fmt/format.h>

#include "app/cli/placement_commands.h"
#include "app/cli/study_flags.h"
#include "app/cli/table_output.h"

namespace switchyard {
namespace {

struct PlaceOptions {
  std::string method, trace;
  TableOptions tables;
  int threads = 0;
};

std::vector<const StudyInfo*> methods() {
  std::vector<const StudyInfo*> out;
  for (const StudyInfo& info : studies())
    if (info.kind == StudyKind::kPlacement) out.push_back(&info);
  return out;
}

Result<int> place(Cli& cli, const PlaceOptions& options, const std::map<std::string, std::string>& given) {
  const StudyInfo& info = *find_study(options.method);
  SY_TRY(const StudyOptions settings, options_of(info, given));
  if (!options.trace.empty() && (settings.on("loads") || settings.on("transitions")))
    return fail(ErrorCode::kUsage, "--trace gives loads and transitions; leave the files out.");
  SY_TRY(const Document document, run_study_of(cli, info, settings, options.trace, options.threads));
  show_study(cli, options.tables, command_of(info), document);
  return 0;
}

// Every option of any method once; those that not all methods take say whose they are.
void add_flags_of_methods(CLI::App& command, const GivenOptions& given) {
  std::set<std::string> added;
  for (const StudyInfo* info : methods()) {
    for (const StudyOption& option : info->options) {
      if (!added.insert(option.name).second) continue;
      std::string of;
      size_t takers = 0;
      for (const StudyInfo* other : methods()) {
        const bool takes = std::any_of(other->options.begin(), other->options.end(), [&](const StudyOption& one) {
          return std::string_view(one.name) == option.name;
        });
        if (!takes) continue;
        ++takers;
        of += (of.empty() ? "" : ", ") + std::string(other->name);
      }
      add_flag_of(command, option, given, takers == methods().size() ? "" : of);
    }
  }
}

}  // namespace

void add_place(CLI::App& app, Cli& cli) {
  std::string examples, table = "Methods:";
  std::vector<std::string> names;
  for (const StudyInfo* info : methods()) {
    names.emplace_back(info->name);
    table += fmt::format("\n  {:<11} {:<4} {}", info->name, info->section, info->title);
    for (const char* one : info->examples)
      examples += fmt::format("{}  switchyard place --method {} {}", examples.empty() ? "" : "\n", info->name, one);
  }
  auto* command =
      add_command(app, "place", "Which GPU holds which expert: copies of the loaded ones, or few hops between GPUs.",
                  examples + "\n\n" + table);
  const auto options = std::make_shared<PlaceOptions>();
  const auto given = std::make_shared<std::map<std::string, std::string>>();
  command->add_option("--method", options->method, "One of those above")->required()->check(CLI::IsMember(names));
  command->add_option("--trace", options->trace, "A *.moetrace.h5 file: loads and hops are counted in it")
      ->type_name("FILE");
  add_flags_of_methods(*command, given);
  add_threads(*command, options->threads);
  options->tables.add_options(*command);
  command->callback(
      [&cli, options, given] { cli.action = [&cli, options, given] { return place(cli, *options, *given); }; });
}

}  // namespace switchyard
