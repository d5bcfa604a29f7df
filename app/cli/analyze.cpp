// switchyard analyze: one analysis over a trace, or all of them, as JSON or as tables.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/cli/cli.h"
#include "app/cli/completion.h"
#include "app/cli/help.h"
#include "app/cli/table_output.h"
#include "engine/trace/trace_json.h"
#include "engine/analysis/analysis.h"
#include "engine/base/number_list.h"
#include "engine/trace/walk.h"

namespace switchyard {
namespace {

struct AnalyzeOptions {
  std::string trace, name;
  std::vector<std::string> more;  // further traces of the same model
  std::string layers, domain, phase;
  TableOptions tables;
  int threads = 0;
  std::map<std::string, std::string> given;  // options of single analyses that the command line names
};

// For the end of the help: name, place in the specs, title.
std::string table_of_analyses() {
  std::string out = "Analyses:";
  for (const AnalysisInfo& info : analyses()) out += fmt::format("\n  {:<22} {:<5} {}", info.name, info.section, info.title);
  return out;
}

std::vector<std::string> names_of_analyses() {  // and "all"
  std::vector<std::string> names;
  for (const AnalysisInfo& info : analyses()) names.emplace_back(info.name);
  names.push_back("all");
  return names;
}

Result<void> check_options(const AnalysisInfo* info, const AnalyzeOptions& options) {
  for (const auto& [name, value] : options.given) {
    const bool taken = info != nullptr && std::any_of(info->options.begin(), info->options.end(), [&](const char* one) { return name == one; });
    if (taken) continue;
    if (info == nullptr) return fail(ErrorCode::kUsage, "analyze all runs with default options.", "--" + name, "Name the analysis.");
    std::string others;
    for (const char* one : info->options) others += (others.empty() ? "--" : ", --") + std::string(one);
    return fail(ErrorCode::kUsage, fmt::format("{} does not take this option.", info->name), "--" + name,
                others.empty() ? "" : "It takes " + others + ".");
  }
  return {};
}

Result<int> analyze(Cli& cli, const AnalyzeOptions& options) {
  const bool all = options.name == "all";
  const AnalysisInfo* chosen = find_analysis(options.name);
  if (!all && chosen == nullptr)
    return fail(ErrorCode::kUsage, "there is no analysis of this name.", options.name, fmt::format("There are {}.", fmt::join(names_of_analyses(), ", ")));
  SY_CHECK(check_options(chosen, options));
  AnalysisOptions settings;
  for (const auto& [name, value] : options.given) SY_CHECK(set_option(settings, name, value));
  WalkFilter filter;
  SY_TRY(filter.layers, number_list(options.layers, "--layers"));
  filter.domain = options.domain;
  if (!options.phase.empty()) filter.phase = options.phase == "decode" ? 1 : 0;

  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  std::vector<std::unique_ptr<TraceReader>> readers;
  std::vector<std::string> paths{options.trace};
  paths.insert(paths.end(), options.more.begin(), options.more.end());
  for (const std::string& path : paths) {
    SY_TRY(auto reader, TraceReader::open(path, &task));
    for (const std::string& note : reader->info().notes) cli.output.warn(path + ": " + note + ".");
    readers.push_back(std::move(reader));
  }
  Document trace = trace_json(readers[0]->info());
  if (!options.more.empty()) trace["more"] = options.more;
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(readers), filter));

  std::vector<const AnalysisInfo*> running;
  std::vector<std::unique_ptr<Analysis>> made;
  Document refused = Document::array();
  for (const AnalysisInfo& info : analyses()) {
    if (!all && &info != chosen) continue;
    auto analysis = make_analysis(info, walk.shape(), settings);
    if (!analysis && !all) {
      if (analysis.error().where.empty()) analysis.error().where = options.trace;
      return tl::unexpected(std::move(analysis).error());
    }
    if (!analysis) {
      refused.push_back({{"analysis", info.name}, {"missing", missing_fields(info, walk.shape())}, {"why", analysis.error().message()}});
      continue;
    }
    running.push_back(&info);
    made.push_back(std::move(*analysis));
  }
  walk.carry(fields_of(running));
  SY_CHECK(run_analyses(walk, made, options.threads, &task));

  Document results = Document::array();
  for (size_t i = 0; i < made.size(); ++i) {
    if (const auto done = made[i]->finish(); !done) {
      if (!all) return tl::unexpected(done.error());
      refused.push_back({{"analysis", running[i]->name}, {"missing", Document::array()}, {"why", done.error().message()}});
      continue;
    }
    Document object = {{"analysis", running[i]->name}, {"schema", kSchema}};
    object.update(made[i]->result());
    results.push_back(std::move(object));
  }
  if (cli.output.json()) {
    if (all) {
      cli.output.json({{"analysis", "all"}, {"schema", kSchema}, {"trace", std::move(trace)}, {"results", std::move(results)}, {"refused", std::move(refused)}});
    } else {
      results[0]["trace"] = std::move(trace);
      cli.output.json(results[0]);
    }
    return 0;
  }
  for (Document& object : results) {
    const std::string name = object["analysis"];
    object.erase("analysis");
    object.erase("schema");
    show_tables(cli, options.tables, name, result_tables(object));
  }
  for (const Document& one : refused) cli.output.info("Not run: " + one["why"].get<std::string>());
  return 0;
}

}  // namespace

void add_analyze(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "analyze", "One analysis over a trace, or all of them.",
                              "  switchyard analyze run.moetrace.h5 load\n"
                              "  switchyard analyze run.moetrace.h5 affinity --gpus 4,8 --json\n"
                              "  switchyard analyze run.moetrace.h5 srp --windows 4,16,64 --layers 0-3\n"
                              "  switchyard analyze part1.moetrace.h5 vocabulary --with part2.moetrace.h5 --csv -o vocabulary.csv\n"
                              "  switchyard analyze run.moetrace.h5 all --json");
  const auto options = std::make_shared<AnalyzeOptions>();
  AnalyzeOptions& o = *options;
  command->add_option("TRACE", o.trace, "A *.moetrace.h5 file")->required();
  command->add_option("NAME", o.name, "One of those above, or all")->required()->check(suggested(names_of_analyses()));
  command->footer(command->get_footer() + "\n\n" + table_of_analyses());
  command->add_option("--with", o.more, "Further traces of the same model, analysed as one")->type_name("TRACE");
  command->add_option("--layers", o.layers, "Model layers: 3, 2-5 or 1,4-6 (all)")->type_name("LIST");
  command->add_option("--domain", o.domain, "Tokens of this domain only");
  command->add_option("--phase", o.phase, "Tokens of prefill or decode only")->check(CLI::IsMember({"prefill", "decode"}));
  o.tables.add_options(*command);
  command->add_option("--threads", o.threads, "Threads (one per core)")->check(CLI::Range(0, 256));
  // Options of single analyses, from their table; only those that are named reach `given`.
  std::vector<std::pair<CLI::Option*, std::shared_ptr<std::string>>> of_one;
  for (const AnalysisOption& option : analysis_options()) {
    const std::string name = std::string("--") + option.name, help = option.help;
    const auto value = std::make_shared<std::string>();
    if (option.standard == nullptr) of_one.emplace_back(command->add_flag(name, help), value);
    else of_one.emplace_back(command->add_option(name, *value, *option.standard ? help + " (" + option.standard + ")" : help)->type_name("VALUE"), value);
  }
  command->callback([&cli, options, of_one] {
    for (const auto& [option, value] : of_one)
      if (option->count() > 0) options->given[option->get_name().substr(2)] = *value;
    cli.action = [&cli, options] { return analyze(cli, *options); };
  });
}

}  // namespace switchyard
