// switchyard trace: everything about trace files that needs no model; import and export have files of their own.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/trace_files.h"
#include "engine/trace/trace_json.h"
#include "engine/base/text.h"
#include "engine/studies/compare_study.h"
#include "engine/trace/trace.h"
#include "engine/trace/trace_plugins.h"

namespace switchyard {
namespace {

std::string_view name(CaptureLevel level) {
  switch (level) {
    case CaptureLevel::kIds:
      return "ids";
    case CaptureLevel::kWeights:
      return "weights";
    case CaptureLevel::kLogits:
      return "logits";
    case CaptureLevel::kOff:
      break;
  }
  return "off";
}

Document parsed_or_null(const std::string& json) {
  const Document parsed = Document::parse(json, nullptr, false);
  return parsed.is_discarded() ? Document() : parsed;
}

Document result_json(const std::string& command, const TraceInfo& info, const std::vector<std::string>& problems) {
  return {{"command", command},
          {"schema", kSchema},
          {"trace", trace_json(info)},
          {"complete", info.complete},
          {"committed_tokens", info.tokens},
          {"problems", problems},
          {"capture", name(info.capture)},
          {"dropped", info.dropped},
          {"fields", info.fields},
          {"notes", info.notes},
          {"run", parsed_or_null(info.run_json)}};
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + printable(word);
  return text;
}

void show(Output& out, const TraceInfo& info, const std::vector<std::string>& problems, bool checked) {
  std::vector<std::vector<std::string>> rows = {
      {"trace", printable(info.path.string(), 4096)},
      {"tokens", fmt::format("{} in {} sequence{}", info.tokens, info.sequences, info.sequences == 1 ? "" : "s")},
      {"routing", fmt::format("{} MoE layers, {} experts, {} slots", info.layers, info.experts, info.top_k)},
      {"capture", std::string(name(info.capture))},
      {"closed", info.complete ? "cleanly" : "no: partial or still recording"},
      {"dropped", fmt::format("{}", info.dropped)},
      {"fields", joined(info.fields)}};
  for (const std::string& note : info.notes) rows.push_back({"note", printable(note, 400)});
  for (const std::string& problem : problems) rows.push_back({"problem", printable(problem, 400)});
  if (checked && problems.empty()) rows.push_back({"verdict", "every committed block matches its checksum"});
  out.table(rows);
}

Result<int> info(Cli& cli, const std::string& file) {
  SY_TRY(const TraceInfo info, read_trace_info(file));
  SY_TRY(const std::vector<TracePlugin> plugins, read_trace_plugins(file));
  if (cli.output.json()) {
    Document out = result_json("trace info", info, {});
    for (const TracePlugin& one : plugins)
      out["plugins"].push_back({{"id", one.id}, {"version", one.version}, {"sha256", one.sha256}, {"schemes", one.schemes}});
    cli.output.json(out);
    return 0;
  }
  show(cli.output, info, {}, false);
  for (const TracePlugin& one : plugins) cli.output.data("routed by the plugin " + describe(one) + "\n");
  return 0;
}

// The two below read the whole file; both can be stopped and show their progress.
Result<int> report(Cli& cli, const std::string& command, const Result<VerifyReport>& done, int code_when_sound) {
  if (!done) return tl::unexpected<Error>(done.error());
  if (cli.output.json())
    cli.output.json(result_json(command, done->info, done->problems));
  else
    show(cli.output, done->info, done->problems, true);
  return done->problems.empty() ? code_when_sound : static_cast<int>(ErrorCode::kCheckFailed);
}

Result<int> verify(Cli& cli, const std::string& file) {
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  return report(cli, "trace verify", verify_trace(file, &task), 0);
}

Result<int> recover(Cli& cli, const std::string& source, const std::string& target) {
  if (!target.ends_with(".moetrace.h5"))
    return fail(ErrorCode::kUsage, "needs to end in .moetrace.h5.", "-o " + target);
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  return report(cli, "trace recover", recover_trace(source, target, cli.output.options.force, &task),
                static_cast<int>(ErrorCode::kPartial));
}

Result<int> pack(Cli& cli, const std::string& source, const std::string& target, bool half) {
  if (!target.ends_with(".moetrace.h5"))
    return fail(ErrorCode::kUsage, "needs to end in .moetrace.h5.", "-o " + target);
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  return report(cli, "trace pack", pack_trace(source, target, half, cli.output.options.force, &task), 0);
}

Result<int> compare(Cli& cli, const std::string& base, const std::string& other) {
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  SY_TRY(const auto first, TraceReader::open(base, &task));
  SY_TRY(const auto second, TraceReader::open(other, &task));
  SY_TRY(const TraceComparison found, compare_traces(*first, *second, &task));
  const double chance = double(found.k) / double(found.experts);
  if (cli.output.json()) {
    Document out = {{"command", "trace compare"}, {"schema", kSchema}, {"base", trace_json(first->info())}, {"other", trace_json(second->info())}};
    out.update(comparison_fields(found));
    cli.output.json(out);
    return 0;
  }
  cli.output.data(fmt::format("{} tokens on both sides, {} routed alike in every layer; by chance {:.4g} of an expert set is shared\n", found.tokens,
                              found.equal_tokens, chance));
  std::vector<std::vector<std::string>> rows{{"layer", "same first", "same set", "jaccard", "first to differ"}};
  for (size_t row = 0; row < found.rows.size(); ++row)
    rows.push_back({std::to_string(found.layers[row]), fmt::format("{:.4f}", found.rows[row].overlap.front()), fmt::format("{:.4f}", found.rows[row].overlap.back()),
                    fmt::format("{:.4f}", found.rows[row].jaccard), std::to_string(found.first_difference[row])});
  cli.output.table(rows);
  return 0;
}

void add_file_command(CLI::App& parent, Cli& cli, const std::string& name, const std::string& description,
                      const std::string& examples, Result<int> (*action)(Cli&, const std::string&)) {
  auto* command = add_command(parent, name, description, examples);
  const auto file = std::make_shared<std::string>();
  command->add_option("TRACE", *file, "A *.moetrace.h5 file, or the .part of a run")->required();
  command->callback([&cli, file, action] { cli.action = [&cli, file, action] { return action(cli, *file); }; });
}

}  // namespace

void add_trace(CLI::App& app, Cli& cli) {
  auto* noun = add_command(app, "trace", "Trace files: what they hold, whether they are sound, rescue, and dumps of other programs.",
                           "  switchyard trace info run.moetrace.h5\n"
                           "  switchyard trace verify run.moetrace.h5 --json\n"
                           "  switchyard trace recover run.moetrace.h5.part -o rescued.moetrace.h5\n"
                           "  switchyard trace import --from esft logs/intent -o intent.moetrace.h5");
  noun->require_subcommand(1);
  add_trace_import(*noun, cli);
  add_trace_export(*noun, cli);
  add_file_command(*noun, cli, "info", "What a trace holds.", "  switchyard trace info run.moetrace.h5", info);
  add_file_command(*noun, cli, "verify", "Checks every committed block; exit 9 when one is damaged.",
                   "  switchyard trace verify run.moetrace.h5", verify);
  auto* command = add_command(*noun, "recover", "Copies the committed tokens of a killed or damaged trace; exit 10.",
                              "  switchyard trace recover run.moetrace.h5.part -o rescued.moetrace.h5");
  const auto files = std::make_shared<std::pair<std::string, std::string>>();
  command->add_option("TRACE", files->first, "The damaged trace; it stays as it is")->required();
  command->add_option("-o,--output", files->second, "The new trace (*.moetrace.h5)")->required()->type_name("FILE");
  command->callback(
      [&cli, files] { cli.action = [&cli, files] { return recover(cli, files->first, files->second); }; });

  auto* packing = add_command(*noun, "pack", "Copies a trace to a smaller, compressed file.",
                              "  switchyard trace pack run.moetrace.h5 -o small.moetrace.h5\n"
                              "  switchyard trace pack run.moetrace.h5 -o smaller.moetrace.h5 --half");
  struct Packing {
    std::string source, target;
    bool half = false;
  };
  const auto chosen = std::make_shared<Packing>();
  packing->add_option("TRACE", chosen->source, "The trace; it stays as it is")->required();
  packing->add_option("-o,--output", chosen->target, "The new trace (*.moetrace.h5)")->required()->type_name("FILE");
  packing->add_flag("--half", chosen->half, "Weights, entropies, margins and logits as 16-bit floats (lse stays)");
  packing->callback([&cli, chosen] { cli.action = [&cli, chosen] { return pack(cli, chosen->source, chosen->target, chosen->half); }; });
  auto* side_by_side = add_command(*noun, "compare", "How much of the routing two traces of the same tokens share.",
                                   "  switchyard trace compare base.moetrace.h5 edited.moetrace.h5 --json");
  const auto pair = std::make_shared<std::pair<std::string, std::string>>();
  side_by_side->add_option("BASE", pair->first, "A trace")->required();
  side_by_side->add_option("OTHER", pair->second, "Another of the same tokens")->required();
  side_by_side->callback([&cli, pair] { cli.action = [&cli, pair] { return compare(cli, pair->first, pair->second); }; });
}

}  // namespace switchyard
