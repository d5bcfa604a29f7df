// switchyard trace import: a trace out of what another program wrote.
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/cli/completion.h"
#include "app/cli/help.h"
#include "app/cli/trace_files.h"
#include "engine/trace/trace_json.h"
#include "engine/base/text.h"
#include "engine/trace/import/import.h"

namespace switchyard {
namespace {

struct ImportArguments {
  ImportRequest request;
  std::string source, target, moe_layers, router_output;
};

// "1-26" or "1,3,5-7"
Result<std::vector<int>> parse_layers(const std::string& text) {
  std::vector<int> layers;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size()), dash = std::min(text.find('-', at), end);
    const auto number = [&](size_t from, size_t to) {
      int value = -1;
      const auto [stop, problem] = std::from_chars(text.data() + from, text.data() + to, value);
      return problem == std::errc() && stop == text.data() + to ? value : -1;
    };
    const int first = number(at, dash), last = dash == end ? first : number(dash + 1, end);
    if (first < 0 || last < first || last > 65'535 || layers.size() + size_t(last - first) >= 2048)
      return fail(ErrorCode::kUsage, quote(text) + " is no list of layers, as 1-26 or 1,3,5.", "--moe-layers");
    for (int layer = first; layer <= last; ++layer) layers.push_back(layer);
    at = end + 1;
  }
  return layers;
}

Document import_json(const ImportReport& report) {
  Document missing = Document::array();
  for (const Lack& lack : report.lacks) missing.push_back({{"field", lack.field}, {"disables", lack.analyses}});
  return {{"command", "trace import"}, {"schema", kSchema},       {"source", report.format},
          {"trace", trace_json(report.trace)}, {"counts_only", report.trace.counts_only},
          {"ranked", report.trace.ranked},     {"missing", missing}, {"notes", report.notes}};
}

void show_import(Output& out, const ImportReport& report) {
  const TraceInfo& trace = report.trace;
  std::vector<std::vector<std::string>> rows = {
      {"trace", printable(trace.path.string(), 4096)},
      {"source", report.format},
      {"holds", trace.counts_only ? fmt::format("counts of {} MoE layers and {} experts, no tokens", trace.layers, trace.experts)
                                  : fmt::format("{} tokens in {} sequence{}, {} MoE layers, {} experts, {} slots", trace.tokens, trace.sequences,
                                                trace.sequences == 1 ? "" : "s", trace.layers, trace.experts, trace.top_k)}};
  for (const Lack& lack : report.lacks) rows.push_back({"missing", printable(lack.field + ": disables " + lack.analyses, 400)});
  for (const std::string& note : report.notes) rows.push_back({"note", printable(note, 400)});
  out.table(rows);
}

Result<int> import(Cli& cli, ImportArguments arguments) {
  ImportRequest& request = arguments.request;
  request.source = arguments.source;
  request.target = arguments.target;
  request.overwrite = cli.output.options.force;
  SY_TRY(request.options.moe_layers, parse_layers(arguments.moe_layers));
  using RouterOutput = dumps::ImportOptions::RouterOutput;
  if (!arguments.router_output.empty())
    request.options.router_output = arguments.router_output == "logits" ? RouterOutput::kLogits : RouterOutput::kProbabilities;
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  SY_TRY(const ImportReport report, import_trace(request, &task));
  if (cli.output.json())
    cli.output.json(import_json(report));
  else
    show_import(cli.output, report);
  return 0;
}

std::vector<std::string> format_names() {
  std::vector<std::string> names = {"auto"};
  for (const dumps::DumpFormat& format : dumps::formats()) names.emplace_back(format.name);
  return names;
}

}  // namespace

void add_trace_import(CLI::App& noun, Cli& cli) {
  auto* command = add_command(noun, "import", "Makes a trace of what another program wrote of its routing.",
                              "  switchyard trace import --from esft logs/intent -o intent.moetrace.h5\n"
                              "  switchyard trace import recorder.pt -o run.moetrace.h5 --top-k 8");
  const auto arguments = std::make_shared<ImportArguments>();
  dumps::ImportOptions& options = arguments->request.options;
  command->add_option("PATH", arguments->source, "The dump: a file, or a folder of files of one recording")->required();
  command->add_option("--from", arguments->request.format, fmt::format("Its format: {}", fmt::join(format_names(), ", ")))->type_name("FORMAT")->check(suggested(format_names()));
  command->add_option("-o,--output", arguments->target, "The new trace (*.moetrace.h5)")->required()->type_name("FILE");
  command->add_option("--experts", options.experts, "Experts of a layer, where the dump does not tell")->check(whole_number(1, 65'534))->type_name("E");
  command->add_option("--top-k", options.top_k, "Experts of a token, where the dump does not tell")->check(whole_number(1, 65'534))->type_name("K");
  command->add_option("--layers", options.layers, "Layers of the model, where a payload has no shape")->check(whole_number(1, 2048))->type_name("L");
  command->add_option("--moe-layers", arguments->moe_layers, "The model's layers of the rows, as 1-26 or 1,3,5")->type_name("LIST");
  command->add_option("--max-line", options.line_bytes, "Longest line of JSONL in bytes")->check(whole_number(1, uint64_t(1) << 30))->type_name("BYTES");
  command->add_option("--router-output", arguments->router_output, "What stands for router logits: logits or probabilities")
      ->check(CLI::IsMember({"logits", "probabilities"}))
      ->type_name("KIND");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return import(cli, *arguments); }; });
}

}  // namespace switchyard
