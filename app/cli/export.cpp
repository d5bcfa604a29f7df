// switchyard export: the edited model as a checkpoint folder.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/edits_input.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/surgery/checkpoint_writer.h"

namespace switchyard {
namespace {

struct ExportArguments {
  std::string model, folder;
  EditsInput edits;
  bool dry_run = false;
};

Document result_json(const ExportArguments& arguments, const Checkpoint& checkpoint, const ExportSummary& summary) {
  Document rows = Document::array();
  for (size_t row = 0; row < summary.kept.size(); ++row)
    rows.push_back({{"layer", checkpoint.plan.moe_layers[row]},
                    {"row", checkpoint.plan.row_name(int(row))},
                    {"experts_before", checkpoint.plan.routed(int(row)).router.experts},
                    {"experts", summary.kept[row].size()},
                    {"experts_per_token", summary.experts_per_token[row]},
                    {"old_ids", summary.kept[row]}});
  return {{"schema", kSchema},
          {"model", checkpoint.name},
          {"folder", arguments.folder},
          {"written", !arguments.dry_run},
          {"changes", summary.changes},
          {"notes", summary.notes},
          {"bytes_before", summary.bytes_before},
          {"bytes_after", summary.bytes_after},
          {"rows", std::move(rows)}};
}

void show(Output& out, const ExportArguments& arguments, const ExportSummary& summary) {
  for (const std::string& change : summary.changes) out.data(change + "\n");
  for (const std::string& note : summary.notes) out.data(note + "\n");
  out.data(fmt::format("{}: {:.2f} MB, the original has {:.2f} MB\n",
                       arguments.dry_run ? "Would write " + printable(arguments.folder) : "Wrote " + printable(arguments.folder),
                       double(summary.bytes_after) / 1e6, double(summary.bytes_before) / 1e6));
}

Result<int> run_export(Cli& cli, const ExportArguments& arguments) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(arguments.model));
  SY_TRY(const std::vector<EditCommand> script, arguments.edits.read(checkpoint.plan));
  SY_TRY(const CheckpointWriter writer, CheckpointWriter::plan(checkpoint, script));
  if (!arguments.dry_run) {
    Task task;
    const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
    const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
    SY_CHECK(writer.write(arguments.folder, &task));
  }
  if (cli.output.json())
    cli.output.json(result_json(arguments, checkpoint, writer.summary()));
  else
    show(cli.output, arguments, writer.summary());
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "export", "Writes the edited model as a folder that transformers loads.",
                              "  switchyard export demo --edits pruned.json --out demo-pruned\n"
                              "  switchyard export org/name --edits merged.json --out merged --dry-run");
  const auto arguments = std::make_shared<ExportArguments>();
  command->add_option("MODEL", arguments->model, "A folder, org/name of the HF cache, or demo")->required();
  arguments->edits.add_options(*command);
  command->get_option("--edits")->required();
  command->add_option("--out", arguments->folder, "The new folder")->required()->type_name("DIR");
  command->add_flag("--dry-run", arguments->dry_run, "Says what would be written, and why something could not be");
  command->callback([&cli, arguments] { cli.action = [&cli, arguments] { return run_export(cli, *arguments); }; });
}

}  // namespace switchyard
