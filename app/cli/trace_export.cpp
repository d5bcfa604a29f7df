// switchyard trace export: what other programs read, out of a trace.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/cli/completion.h"
#include "app/cli/help.h"
#include "app/cli/trace_files.h"
#include "engine/base/text.h"
#include "engine/trace/export/export.h"

namespace switchyard {
namespace {

struct ExportArguments {
  ExportRequest request;
  std::string trace, target, placement;
};

Document result_json(const ExportRequest& request, const ExportReport& report) {
  Document files = Document::array();
  for (const WrittenFile& file : report.files) files.push_back({{"path", file.path.string()}, {"bytes", file.bytes}});
  return {{"command", "trace export"}, {"schema", kSchema}, {"format", request.format}, {"written", !request.dry_run}, {"files", files}, {"notes", report.notes}};
}

Result<int> run_export(Cli& cli, ExportArguments arguments) {
  ExportRequest& request = arguments.request;
  request.trace = arguments.trace;
  request.target = arguments.target;
  request.options.placement = arguments.placement;
  request.overwrite = cli.output.options.force;
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  SY_TRY(const ExportReport report, export_trace(request, &task));
  if (cli.output.json()) {
    cli.output.json(result_json(request, report));
    return 0;
  }
  for (const WrittenFile& file : report.files)
    cli.output.data(fmt::format("{} {} ({})\n", request.dry_run ? "Would write" : "Wrote", printable(file.path.string(), 4096), bytes_text(file.bytes)));
  for (const std::string& note : report.notes) cli.output.data(printable(note, 400) + "\n");
  return 0;
}

std::vector<std::string> format_names() {
  std::vector<std::string> out;
  for (const ExportFormat& format : export_formats()) out.push_back(format.name);
  return out;
}

}  // namespace

void add_trace_export(CLI::App& noun, Cli& cli) {
  auto* command = add_command(noun, "export", "Writes what other programs read, out of a trace.",
                              "  switchyard trace export run.moetrace.h5 --to npy -o arrays\n"
                              "  switchyard trace export run.moetrace.h5 --to sglang-location -o location.json\n"
                              "  switchyard trace export run.moetrace.h5 --to vllm-eplb --placement placement.json -o eplb");
  const auto arguments = std::make_shared<ExportArguments>();
  ExportOptions& options = arguments->request.options;
  command->add_option("TRACE", arguments->trace, "A *.moetrace.h5 file")->required();
  command->add_option("--to", arguments->request.format, fmt::format("The format: {}", fmt::join(format_names(), ", ")))->required()->type_name("FORMAT")->check(suggested(format_names()));
  command->add_option("-o,--output", arguments->target, "The new file; a folder for npy and vllm-eplb")->required()->type_name("FILE");
  command->add_flag("--dry-run", arguments->request.dry_run, "Lists the files and their sizes");
  command->add_option("--placement", arguments->placement, "What switchyard place --json wrote")->type_name("FILE");
  command->add_option("--layers", options.layers, "Layers of the model, dense ones too (sglang-location)")->check(whole_number(1, 2048))->type_name("L");
  command->add_option("--threshold", options.threshold, "Share of the scores that is kept (esft)")->check(CLI::Range(0.0, 1.0))->type_name("P");
  command->add_option("--score", options.score, "token or gate (esft)")->check(CLI::IsMember({"token", "gate"}))->type_name("KIND");
  command->add_option("--decimals", options.decimals, "Digits that scores are rounded to (esft)")->check(whole_number(0, 15))->type_name("N");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return run_export(cli, *arguments); }; });
}

}  // namespace switchyard
