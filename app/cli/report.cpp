// switchyard report: a trace as a document that a paper can use; and the same made again from what it says of itself.
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "app/cli/completion.h"
#include "app/cli/help.h"
#include "app/cli/report_command.h"
#include "app/cli/score_command.h"
#include "engine/analysis/analysis.h"
#include "engine/base/text.h"
#include "engine/report/given_sections.h"
#include "engine/report/report_files.h"

namespace switchyard {
namespace {

constexpr size_t kMostChanges = 20;  // named one by one without --json

struct ReportOptions {
  std::string trace, against, title, template_name = "model-card", sections, figures, rebuild;
  std::string texts;  // of a model, in the place of a trace
  std::vector<std::string> section;
  TemplateOptions shape;
  bool dry_run = false;
  BackendChoice backend;
};

// As people write them: a name with the ending of traces, or a file that is no model's; all else is a model.
bool names_trace(const std::string& subject) {
  std::error_code ignored;
  return subject.ends_with(".h5") || (std::filesystem::is_regular_file(subject, ignored) && !subject.ends_with(".gguf"));
}

// Of a model its own trace, beside the report: the report is made of that, and again from it.
Result<std::string> trace_of(Cli& cli, const ReportOptions& options, const std::filesystem::path& target) {
  if (names_trace(options.trace)) {
    if (!options.texts.empty()) return fail(ErrorCode::kUsage, "are read by a model; this is a trace.", "--texts", "Leave them out, or give a model.");
    return options.trace;
  }
  if (options.dry_run) return fail(ErrorCode::kUsage, "needs a trace: what a model does is not known before it has run.", "--dry-run");
  const std::string trace = std::filesystem::path(target).replace_extension(".moetrace.h5").string();
  SY_CHECK(record_texts(cli, options.trace, options.texts, options.backend, trace));
  cli.output.info(fmt::format("Recorded {} while {} read {}.", printable(trace, 4096), printable(options.trace, 400),
                              options.texts.empty() ? "the prompts that come with the program, few and short: --texts FILE.jsonl gives it more" : printable(options.texts, 400)));
  return trace;
}

// "srp:windows=4,16;resamples=0": a source and what it is told.
Result<ReportItem> item_of(const std::string& spec) {
  ReportItem item;
  const size_t colon = spec.find(':');
  item.source = spec.substr(0, colon);
  if (!is_report_source(item.source) || item.source == "note" || item.source == "view")
    return fail(ErrorCode::kUsage, "is neither an analysis nor a study, nor facts, edits or text, nor a section of a plugin.", printable(item.source), "`switchyard analyze --help`, `switchyard simulate --help` and `switchyard place --help` list them, `switchyard plugin list` what plugins add.");
  const GivenSection* given = find_given_section(item.source);
  if (given != nullptr)
    if (const std::string why_not = given->why_not(); !why_not.empty()) return fail(ErrorCode::kPlugin, why_not, item.source);
  for (size_t at = colon; at != std::string::npos && at + 1 < spec.size();) {
    const size_t end = std::min(spec.find(';', at + 1), spec.size());
    const std::string one = spec.substr(at + 1, end - at - 1);
    const size_t equals = one.find('=');
    item.options[one.substr(0, equals)] = equals == std::string::npos ? "" : one.substr(equals + 1);
    at = end;
  }
  if (given != nullptr && given->analysis.empty()) SY_CHECK(given->check(item.options));
  return item;
}

Result<ReportRequest> request_of(const ReportOptions& options) {
  ReportRequest request;
  request.title = options.title, request.trace = options.trace, request.other = options.against;
  for (size_t at = 0; !options.sections.empty() && at <= options.sections.size();) {
    const size_t end = std::min(options.sections.find(',', at), options.sections.size());
    SY_TRY(request.items.emplace_back(), item_of(options.sections.substr(at, end - at)));
    at = end + 1;
  }
  for (const std::string& spec : options.section) {
    SY_TRY(request.items.emplace_back(), item_of(spec));
  }
  if (!request.items.empty()) return request;
  const ReportTemplate* shape = find_template(options.template_name);
  request.template_name = shape->name;
  if (shape->needs_other && options.against.empty()) return fail(ErrorCode::kUsage, "compares two traces.", std::string("--template ") + shape->name, "Name the second with --against.");
  request.items = shape->items(options.shape);
  return request;
}

// Sections whose names are one word, for completion.
std::vector<std::string> sources() {
  std::vector<std::string> names{"facts", "edits", "text"};
  for (const AnalysisInfo& info : analyses()) names.emplace_back(info.name);
  for (const GivenSection& one : given_sections()) names.push_back(one.name);
  return names;
}

std::string command_of(const ReportOptions& options, const std::string& target) {
  std::vector<std::string> words{"switchyard", "report", options.trace, "-o", target};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {name, value});
  };
  add("--against", options.against), add("--title", options.title), add("--sections", options.sections);
  for (const std::string& one : options.section) add("--section", one);
  if (options.sections.empty() && options.section.empty()) add("--template", options.template_name);
  if (options.template_name == "placement-study") add("--gpus", std::to_string(options.shape.gpus));
  if (options.template_name == "pruning-study" && options.shape.keep > 0) add("--keep", std::to_string(options.shape.keep));
  add("--figures", options.figures);
  return shell_line(words);
}

Document files_json(const std::vector<WrittenFile>& files) {
  Document out = Document::array();
  for (const WrittenFile& file : files) out.push_back({{"path", file.path.string()}, {"bytes", file.bytes}});
  return out;
}

void tell(Cli& cli, const std::vector<WrittenFile>& files, bool dry_run) {
  uint64_t bytes = 0;
  for (const WrittenFile& file : files) bytes += file.bytes;
  if (dry_run)
    for (const WrittenFile& file : files) cli.output.data(fmt::format("Would write {} ({})\n", printable(file.path.string(), 4096), bytes_text(file.bytes)));
  else if (!files.empty())
    cli.output.data(fmt::format("Wrote {} ({}){}\n", printable(files[0].path.string(), 4096), bytes_text(files[0].bytes),
                                files.size() > 1 ? fmt::format(" and {} files beside it, {} in all", files.size() - 1, bytes_text(bytes)) : std::string()));
}

// The target is written by the report's own writers, all files together; -o of other commands keeps their data.
ReportFiles files_of(Cli& cli, const ReportOptions& options) {
  ReportFiles files{cli.output.options.file, options.figures, cli.output.options.force, options.dry_run};
  cli.output.options.file.clear();
  return files;
}

Result<int> make(Cli& cli, ReportOptions options) {
  if (options.trace.empty()) return fail(ErrorCode::kUsage, "report needs a trace or a model, or --rebuild OUT.");
  const ReportFiles files = files_of(cli, options);
  if (files.target.empty()) return fail(ErrorCode::kUsage, "report needs a file to write.", {}, "Name it with -o: r.html, r.pdf, r.tex or r.md.");
  SY_CHECK(check_target(files));
  SY_CHECK(request_of(options));  // before a model runs for it
  SY_TRY(options.trace, trace_of(cli, options, files.target));
  SY_TRY(const ReportRequest request, request_of(options));
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  SY_TRY(const Report report, compose_report(request, {command_of(options, files.target.string()), options.backend.threads}, &task));
  SY_TRY(const auto written, write_report(report, files));
  size_t tables = 0, figures = 0;
  for (const ReportSection& section : report.sections)
    for (const ReportBlock& block : section.blocks) {
      tables += std::holds_alternative<ReportTable>(block.content);
      figures += std::holds_alternative<ChartSpec>(block.content);
    }
  if (cli.output.json()) {
    cli.output.json({{"command", "report"}, {"schema", kSchema}, {"title", report.title}, {"written", !options.dry_run}, {"sections", report.sections.size()},
                     {"tables", tables}, {"figures", figures}, {"files", files_json(written)}, {"notes", report.notes}});
    return 0;
  }
  tell(cli, written, options.dry_run);
  for (const std::string& note : report.notes) cli.output.info("Not in it: " + printable(note, 400));
  return 0;
}

Result<int> rebuild(Cli& cli, const ReportOptions& options) {
  Task task;
  const auto cancel = cli.interrupts.on_interrupt([&task] { task.cancel(); });
  const Progress progress(cli.output, cli.progress(), [&task] { return ProgressState{task.step(), task.fraction()}; });
  const ReportFiles files = files_of(cli, options);
  if (!files.target.empty()) SY_CHECK(check_target(files));
  SY_TRY(const Rebuilt rebuilt, rebuild_report(options.rebuild, options.backend.threads, &task));
  std::vector<WrittenFile> written;
  if (!files.target.empty()) {
    SY_TRY(written, write_report(rebuilt.report, files));
  }
  const bool same = rebuilt.changes.empty();
  if (cli.output.json()) {
    Document changes = Document::array();
    for (const Rebuilt::Change& change : rebuilt.changes) changes.push_back({{"where", change.where}, {"was", change.was}, {"is", change.is}});
    cli.output.json({{"command", "report"}, {"schema", kSchema}, {"rebuilt", options.rebuild}, {"made_by", rebuilt.was_made_by}, {"numbers", rebuilt.numbers}, {"same", same}, {"changes", std::move(changes)}, {"files", files_json(written)}});
    return same ? 0 : 9;
  }
  tell(cli, written, options.dry_run);
  if (same) {
    cli.output.data(fmt::format("The same: {} numbers, made by {}, made again from inputs with the same hashes.\n", rebuilt.numbers, printable(rebuilt.was_made_by, 80)));
    return 0;
  }
  cli.output.data(fmt::format("{} of {} numbers and labels changed (made by {}):\n", rebuilt.changes.size(), rebuilt.numbers, printable(rebuilt.was_made_by, 80)));
  for (size_t i = 0; i < std::min(rebuilt.changes.size(), kMostChanges); ++i)
    cli.output.data(fmt::format("  {}: {} then, {} now\n", printable(rebuilt.changes[i].where, 200), printable(rebuilt.changes[i].was.dump(), 80), printable(rebuilt.changes[i].is.dump(), 80)));
  if (rebuilt.changes.size() > kMostChanges) cli.output.data(fmt::format("  and {} more; --json lists them\n", rebuilt.changes.size() - kMostChanges));
  return 9;
}

}  // namespace

void add_report(CLI::App& app, Cli& cli) {
  auto* command = add_command(app, "report", "A trace as a document: HTML, PDF, LaTeX or Markdown, with figures for papers.",
                              "  switchyard report run.moetrace.h5 -o r.html\n"
                              "  switchyard report run.moetrace.h5 -o r.pdf --template pruning-study --keep 24\n"
                              "  switchyard report base.moetrace.h5 --against edited.moetrace.h5 --template before-after -o r.tex\n"
                              "  switchyard report run.moetrace.h5 --section 'srp:windows=4,16' --sections load,affinity -o r.md --figures figures\n"
                              "  switchyard report demo -o demo.html --texts mine.jsonl   records demo.moetrace.h5 first\n"
                              "  switchyard report --rebuild r.html");
  const auto options = std::make_shared<ReportOptions>();
  ReportOptions& o = *options;
  command->add_option("SUBJECT", o.trace, "A *.moetrace.h5 file; or a model: a folder, org/name of the HF cache, or demo");
  command->add_option("--texts", o.texts, "What a model reads, as score --texts does (the prompts that come with the program)")->type_name("JSONL");
  std::string about;
  std::vector<std::string> names;
  for (const ReportTemplate& one : report_templates()) {
    names.emplace_back(one.name);
    about += fmt::format("\n  {:<16} {}: {}", one.name, one.title, one.about);
  }
  about = "\n\nTemplates:" + about;
  if (!given_sections().empty()) about += "\n\nSections of plugins:";
  for (const GivenSection& one : given_sections()) {
    about += fmt::format("\n  {:<24} {} ({})", one.name, one.title, one.maker);
    for (const GivenOption& option : one.options) about += fmt::format("\n  {:<24}   {}: {}", "", option.name, option.about);
  }
  command->footer(command->get_footer() + about);
  command->add_option("--template", o.template_name, "One of those above (model-card)")->check(CLI::IsMember(names))->type_name("NAME");
  command->add_option("--against", o.against, "A second trace of the same tokens, of an edit")->type_name("TRACE");
  command->add_option("--sections", o.sections, "In the place of a template: analyses, studies, facts, edits, text, sections of plugins; joined by commas")->type_name("LIST");
  command->add_option("--section", o.section, "One more, with options: 'srp:windows=4,16;resamples=0'")->type_name("NAME:OPTION=VALUE")->take_all()->check(suggested(sources()));
  command->add_option("--title", o.title, "Of the document")->type_name("TEXT");
  command->add_option("--figures", o.figures, "A folder for every figure as SVG, PDF and PNG in two widths with CSV, JSON, Parquet and a matplotlib script, and every table")->type_name("DIR");
  command->add_option("--gpus", o.shape.gpus, "placement-study: GPUs (4)")->check(CLI::Range(1, 65'535));
  command->add_option("--keep", o.shape.keep, "pruning-study: experts that stay in each layer (half)")->check(CLI::Range(1, 65'535));
  command->add_option("--rebuild", o.rebuild, "Makes an old report again, and says number by number what changed; -o keeps the new one")->type_name("REPORT");
  command->add_flag("--dry-run", o.dry_run, "Lists the files and their sizes");
  o.backend.add_options(*command);
  command->callback([&cli, options] { cli.action = [&cli, options] { return options->rebuild.empty() ? make(cli, *options) : rebuild(cli, *options); }; });
}

}  // namespace switchyard
