// switchyard analyze: one analysis over a trace, or all of them, as JSON or as tables.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/help.h"
#include "app/cli/table_output.h"
#include "app/cli/trace_json.h"
#include "engine/analysis/analysis.h"
#include "engine/trace/walk.h"

namespace switchyard {
namespace {

struct AnalyzeOptions {
  std::string trace, name;
  std::vector<std::string> more;  // further traces of the same model
  std::string layers, domain, phase;
  std::string gpus, windows;      // comma lists
  bool no_renormalise = false;
  TableOptions tables;
  int threads = 0;
  AnalysisOptions analysis;
  std::vector<std::string> given;  // options of single analyses that the command line names
};

// "3", "2-5", "1,4-6".
Result<std::vector<int>> numbers(const std::string& text, const char* option) {
  std::vector<int> out;
  size_t at = 0;
  const auto bad = [&] { return fail(ErrorCode::kUsage, fmt::format("is \"{}\", needs numbers and ranges like 1,4-6.", text), option); };
  while (at < text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    at = end + 1;
    int first = 0, last = 0, used = 0;
    if (std::sscanf(part.c_str(), "%d-%d%n", &first, &last, &used) == 2 && size_t(used) == part.size()) {
    } else if (std::sscanf(part.c_str(), "%d%n", &first, &used) == 1 && size_t(used) == part.size()) {
      last = first;
    } else {
      return bad();
    }
    if (first < 0 || last < first || last > 1'000'000 || last - first > 65'535) return bad();
    for (int value = first; value <= last; ++value) out.push_back(value);
  }
  if (out.empty()) return bad();
  return out;
}

std::string names_of_analyses() {
  std::string names;
  for (const AnalysisInfo& info : analyses()) names += (names.empty() ? "" : ", ") + std::string(info.name);
  return names;
}

Result<void> check_options(const AnalysisInfo* info, const AnalyzeOptions& options) {
  for (const std::string& name : options.given) {
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
    return fail(ErrorCode::kUsage, "there is no analysis of this name.", options.name, "There are " + names_of_analyses() + ", and all.");
  SY_CHECK(check_options(chosen, options));
  AnalysisOptions settings = options.analysis;
  settings.renormalise = !options.no_renormalise;
  if (!options.gpus.empty()) {
    SY_TRY(settings.gpus, numbers(options.gpus, "--gpus"));
  }
  if (!options.windows.empty()) {
    SY_TRY(settings.windows, numbers(options.windows, "--windows"));
  }
  WalkFilter filter;
  if (!options.layers.empty()) {
    SY_TRY(filter.layers, numbers(options.layers, "--layers"));
  }
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
    show_tables(cli, options.tables, name, object);
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
  command->add_option("NAME", o.name, "all, or one of: " + names_of_analyses())->required();
  command->add_option("--with", o.more, "Further traces of the same model, analysed as one")->type_name("TRACE");
  command->add_option("--layers", o.layers, "Model layers: 3, 2-5 or 1,4-6 (all)")->type_name("LIST");
  command->add_option("--domain", o.domain, "Tokens of this domain only");
  command->add_option("--phase", o.phase, "Tokens of prefill or decode only")->check(CLI::IsMember({"prefill", "decode"}));
  o.tables.add_options(*command);
  command->add_option("--threads", o.threads, "Threads (one per core)")->check(CLI::Range(0, 256));
  std::map<std::string, CLI::Option*> of_one;
  AnalysisOptions& a = o.analysis;
  of_one["top"] = command->add_option("--top", a.top, "Entries of a list (10)")->check(CLI::Range(0, 1'000'000));
  of_one["gpus"] = command->add_option("--gpus", o.gpus, "affinity: share of hops that stay on a GPU, for so many GPUs")->type_name("LIST");
  of_one["windows"] = command->add_option("--windows", o.windows, "srp: window lengths (4,16,64)")->type_name("LIST");
  of_one["resamples"] = command->add_option("--resamples", a.resamples, "srp, cohort: bootstrap resamples (1000; 0: no intervals)")->check(CLI::Range(0, 100'000));
  of_one["seed"] = command->add_option("--seed", a.seed, "Of resampling (0)");
  of_one["threshold"] = command->add_option("--threshold", a.threshold, "esft: share that the experts of a layer must reach (0.2)")->check(CLI::Range(0.0, 1.0));
  of_one["score"] = command->add_option("--score", a.score, "esft: token or gate")->check(CLI::IsMember({"token", "gate"}));
  of_one["decimals"] = command->add_option("--decimals", a.decimals, "esft: scores are rounded before they are sorted (4)")->check(CLI::Range(0, 15));
  of_one["min-count"] = command->add_option("--min-count", a.min_count, "vocabulary: occurrences that a token id needs (8)")->check(CLI::Range(1, 1'000'000'000));
  of_one["batch-tokens"] = command->add_option("--batch-tokens", a.batch_tokens, "load: also the mean MaxVio of batches of so many tokens")->check(CLI::Range(0, 1'000'000'000));
  of_one["neighbours"] = command->add_flag("--neighbours", a.neighbours, "coactivation: pairs of neighbouring ranks only, as a published script counts");
  of_one["matrices"] = command->add_flag("--matrices", a.matrices, "coactivation: all pairs with rates, Jaccard and PMI");
  of_one["keep"] = command->add_option("--keep", a.keep, "saliency: experts that stay in each layer, for pruned sets")->check(CLI::Range(0, 65'535));
  of_one["no-renormalise"] = command->add_flag("--no-renormalise", o.no_renormalise, "saliency: weights as applied, not divided by their sum");
  of_one["a"] = command->add_option("--a", a.domain_a, "cohort: the domain on the left side")->type_name("DOMAIN");
  of_one["b"] = command->add_option("--b", a.domain_b, "cohort: the domain on the right side")->type_name("DOMAIN");
  command->callback([&cli, options, of_one] {
    for (const auto& [name, option] : of_one)
      if (option->count() > 0) options->given.push_back(name);
    cli.action = [&cli, options] { return analyze(cli, *options); };
  });
}

}  // namespace switchyard
