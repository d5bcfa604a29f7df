// Runs the items of a request over its traces and sets their results one under the other. Any thread.
#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "engine/base/build_info.h"
#include "engine/base/json.h"
#include "engine/base/sinks.h"
#include "engine/report/given_sections.h"
#include "engine/report/shown.h"
#include "engine/report/trace_items.h"
#include "engine/studies/study.h"

namespace switchyard {
namespace {

using reports::Side;

constexpr size_t kMostRows = 64;  // of a table; the command beside it gives the rest

struct Outcome {
  Document object;
  std::vector<ResultTable> tables;
};

const StudyInfo* study_of(std::string_view source) {
  for (const StudyInfo& info : studies())
    if (command_of(info) == source) return &info;
  return nullptr;
}

class Composer {
 public:
  Composer(const ReportRequest& request, const ComposeOptions& options, Task* task) : request_(request), options_(options), task_(task), items_(request.items) {
    for (ReportItem& one : items_) prepare(one);
  }

  Result<Report> run() {
    for (const std::string* path : {&request_.trace, &request_.other}) {
      if (path->empty()) continue;
      SY_TRY(sides_.emplace_back(), reports::open_side(*path, task_));
    }
    SY_CHECK(check_items());
    SY_CHECK(run_all_analyses());
    outcomes_.resize(items_.size());
    for (size_t i = 0; i < items_.size(); ++i) SY_CHECK(run_study_item(i));
    for (size_t i = 0; i < items_.size(); ++i) SY_CHECK(run_given_item(i));
    begin();
    for (size_t i = 0; i < items_.size(); ++i) SY_CHECK(add_item(i));
    return std::move(report_);
  }

 private:
  // A ready-made section is an analysis with a note.
  static void prepare(ReportItem& one) {
    const GivenSection* given = find_given_section(one.source);
    if (given == nullptr || given->analysis.empty() || !given->why_not().empty()) return;
    if (one.heading.empty()) one.heading = given->title;
    one.note = given->note + (given->note.empty() || one.note.empty() ? "" : "\n\n") + one.note;
    one.source = given->analysis;
  }

  const ReportItem& item(size_t i) const { return items_[i]; }
  Side* side(const ReportItem& item) { return sides_.size() > size_t(item.other) ? &sides_[size_t(item.other)] : nullptr; }
  static bool reads_trace(const ReportItem& item) { return item.source != "note" && item.source != "view"; }

  Result<void> check_items() {
    if (request_.items.empty()) return fail(ErrorCode::kUsage, "a report needs something to show.", {}, "Choose a template or sections.");
    for (const ReportItem& one : items_) {
      if (!is_report_source(one.source)) return fail(ErrorCode::kUsage, "is neither an analysis nor a study.", one.source, "`switchyard analyze --help` lists the analyses.");
      if (reads_trace(one) && side(one) == nullptr) return fail(ErrorCode::kUsage, one.other ? "needs a second trace." : "needs a trace.", one.source, one.other ? "Name it with --against." : "Open a trace, or record the run.");
      if (const GivenSection* given = find_given_section(one.source)) SY_CHECK(given->check(one.options));
      if (one.source == "view" && !one.chart && !one.table) return fail(ErrorCode::kMalformed, "is a picture of the moment without its numbers.", one.source);
    }
    return {};
  }

  // The value of an option as the trace makes it: half of the experts.
  std::string value_of(const ReportItem& one, const std::string& given) const {
    return given == "half" ? std::to_string(std::max(1, sides_[size_t(one.other)].info.experts / 2)) : given;
  }

  Result<void> run_all_analyses() {
    for (size_t s = 0; s < sides_.size(); ++s) {
      std::vector<const AnalysisInfo*> running;
      std::vector<std::unique_ptr<Analysis>> made;
      std::vector<size_t> of;
      for (size_t i = 0; i < items_.size(); ++i) {
        const AnalysisInfo* info = find_analysis(item(i).source);
        if (info == nullptr || size_t(item(i).other) != s) continue;
        AnalysisOptions chosen;
        for (const auto& [name, value] : item(i).options) SY_CHECK(set_option(chosen, name, value_of(item(i), value)));
        auto analysis = make_analysis(*info, sides_[s].walk->shape(), chosen);
        if (!analysis) {
          leave_out(i, analysis.error());
          continue;
        }
        running.push_back(info), made.push_back(std::move(*analysis)), of.push_back(i);
      }
      if (made.empty()) continue;
      sides_[s].walk->carry(fields_of(running));
      SY_CHECK(run_analyses(*sides_[s].walk, made, options_.threads, task_));
      for (size_t m = 0; m < made.size(); ++m) {
        if (const auto done = made[m]->finish(); !done && done.error().code == ErrorCode::kPlugin) {
          leave_out(of[m], done.error());
          continue;
        } else {
          SY_CHECK(done);
        }
        results_[of[m]] = made[m]->result();
      }
    }
    return {};
  }

  Result<void> run_study_item(size_t i) {
    if (const auto found = results_.find(i); found != results_.end()) {
      outcomes_[i] = {found->second, result_tables(found->second)};
      return {};
    }
    const StudyInfo* info = study_of(item(i).source);
    if (info == nullptr) return {};
    StudyOptions chosen(info->options);
    for (const auto& [name, value] : item(i).options) SY_CHECK(chosen.set(name, value_of(item(i), value)));
    if (info->kind == StudyKind::kComparison && !request_.other.empty() && chosen.text("other").empty()) SY_CHECK(chosen.set("other", request_.other));
    StudyInput input;
    input.walk = side(item(i))->walk.get();
    input.threads = options_.threads;
    Task own;
    Task& task = task_ != nullptr ? *task_ : own;
    auto result = run_study(*info, chosen, input, task);
    if (!result && result.error().code == ErrorCode::kUsage) {
      leave_out(i, result.error());
      return {};
    }
    if (!result) return tl::unexpected(std::move(result).error());
    outcomes_[i] = {result->document, study_tables(result->document)};
    for (const StudyNote& note : result->notes) report_.notes.push_back(item(i).source + ": " + note.text);
    return {};
  }

  // What goes wrong in code of others is said in its section; the rest of the report is not the less for it.
  Result<void> run_given_item(size_t i) {
    const GivenSection* given = find_given_section(item(i).source);
    if (given == nullptr) return {};
    const std::string why_not = given->why_not();
    auto parts = why_not.empty() ? given->make(side(item(i))->walk->trace(0), item(i).options, task_) : Result<SectionParts>(fail(ErrorCode::kPlugin, why_not));
    if (!parts && parts.error().code == ErrorCode::kCancelled) return tl::unexpected(std::move(parts).error());
    if (parts) {
      given_[i] = std::move(*parts);
      return {};
    }
    const std::string why = parts.error().what;  // without the library's path
    report_.notes.push_back(item(i).source + ": " + why);
    given_[i].blocks.push_back({ReportText{"**This section is missing:** " + markdown_text(why)}, {}, {}});
    return {};
  }

  void add_given(size_t i, const Side& from, ReportSection& to) {
    const ReportItem& one = item(i);
    const GivenSection& given = *find_given_section(one.source);
    SectionParts& parts = given_[i];
    if (one.heading.empty() && !parts.heading.empty()) to.heading = parts.heading;
    const std::string whose = given.maker + (given.sha256.empty() ? "" : ", SHA-256 " + given.sha256);
    to.blocks.push_back({ReportText{"*Text and numbers of this section are those of the " + markdown_text(whose) + ", not of Switchyard.*"}, {}, {}});
    for (ReportBlock& block : parts.blocks) {
      if (!std::holds_alternative<ReportText>(block.content)) {
        block.caption += (block.caption.empty() ? "" : " ") + std::string("Numbers of the ") + given.maker + ".";
        block.command = figure_command(one, from);
      }
      to.blocks.push_back(std::move(block));
    }
    if (makers_.insert(whose).second) report_.provenance.emplace_back("sections by", whose);
  }

  void leave_out(size_t i, const Error& error) {
    // Of a plugin without its path on this machine.
    report_.notes.push_back(item(i).source + ": " + (error.code == ErrorCode::kPlugin ? error.what : error.message()));
    left_out_.insert(i);
  }

  void begin() {
    const ReportTemplate* shape = find_template(request_.template_name);
    const std::string of = request_.trace.empty() ? std::string() : std::filesystem::path(request_.trace).filename().string();
    report_.title = !request_.title.empty() ? request_.title : (shape != nullptr ? shape->title : "Routing report") + (of.empty() ? std::string() : ": " + of);
    report_.command = options_.command;
    report_.request = to_json(request_);
    report_.provenance.emplace_back("made by", std::string("Switchyard ") + build_info().version);
    report_.provenance.emplace_back("commit", build_info().commit);
    for (const Side& one : sides_) {
      report_.inputs.push_back(one.input);
      reports::add_provenance(one, sides_.size() > 1 ? std::filesystem::path(one.input.path).filename().string() + ": " : std::string(), report_.provenance);
      for (const std::string& note : one.info.notes) report_.notes.push_back(one.input.path + ": " + note);
    }
    if (!sides_.empty()) {
      const TraceInfo& info = sides_[0].info;
      report_.subtitle = fmt::format("{} tokens in {} sequence{}, {} routing layers of {} experts, {} a token", info.tokens, info.sequences, info.sequences == 1 ? "" : "s", info.layers, info.experts, info.top_k);
    }
  }

  ReportSection& section(const ReportItem& one) {
    std::string id = one.source;
    std::replace_if(id.begin(), id.end(), [](char c) { return !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')); }, '-');
    int count = ++ids_[id];
    ReportSection& out = report_.sections.emplace_back();
    out.id = count == 1 ? id : fmt::format("{}-{}", id, count);
    out.heading = !one.heading.empty() || one.source == "note" ? one.heading : source_title(one.source);
    if (out.heading.empty()) out.heading = source_title(one.source);
    if (!one.note.empty()) out.blocks.push_back({ReportText{one.note}, {}, {}});
    return out;
  }

  Result<void> add_item(size_t i) {
    const ReportItem& one = item(i);
    if (left_out_.contains(i)) return {};
    ReportSection& to = section(one);
    if (one.source == "note") return {};
    if (one.source == "view") {
      if (one.chart) to.blocks.push_back({*one.chart, one.chart->title + ". As the window showed it; the numbers are of that moment.", {}});
      if (one.table) add_table(to, *one.table, (one.heading.empty() ? one.table->name : one.heading) + ". As the window showed it; the numbers are of that moment.", {});
      return {};
    }
    Side& from = *side(one);
    if (one.source == "facts") return reports::add_facts(from, to);
    if (one.source == "edits") return reports::add_edits(from, to);
    if (one.source == "text") return reports::add_text(from, one, to, report_.notes);
    if (given_.contains(i))
      add_given(i, from, to);
    else
      add_results(i, from, to);
    return {};
  }

  void add_results(size_t i, const Side& from, ReportSection& to) {
    const ReportItem& one = item(i);
    const Outcome& outcome = outcomes_[i];
    std::vector<FigureChoice> figures = one.figures;
    std::vector<std::string> tables = one.tables;
    const reports::Usual* usual = reports::usual_of(one.source);
    if (figures.empty() && tables.empty()) {
      if (usual != nullptr) {
        for (const reports::UsualFigure& figure : usual->figures) figures.push_back({figure.table, figure.show});
        tables.assign(usual->tables.begin(), usual->tables.end());
      } else {
        choose(one, outcome, figures, tables);
      }
    }
    for (const FigureChoice& choice : figures) {
      ChartSpec chart = reports::figure_of(one.source, outcome.tables, choice, outcome.object);
      if (chart.empty()) continue;
      std::string caption = chart.title + ".";
      if (chart.quantity != chart.title && !chart.quantity.empty() && chart.kind != ChartKind::kFlow) caption += " Shown: " + chart.quantity + (chart.column_title.empty() ? "" : " by " + chart.column_title) + ".";
      to.blocks.push_back({std::move(chart), std::move(caption), figure_command(one, from)});
    }
    for (const std::string& name : tables) {
      const auto table = std::find_if(outcome.tables.begin(), outcome.tables.end(), [&](const ResultTable& t) { return t.name == name; });
      if (table != outcome.tables.end()) add_table(to, *table, source_title(one.source) + ": " + table->name + ".", table_command(one, from, table->name));
    }
    if (to.blocks.empty()) to.blocks.push_back({ReportText{"The result has neither a table nor a picture."}, {}, {}});
  }

  // Of what has no list of its own: the study's own first picture, else the first there is; tables of few rows.
  static void choose(const ReportItem& one, const Outcome& outcome, std::vector<FigureChoice>& figures, std::vector<std::string>& tables) {
    if (const StudyInfo* study = study_of(one.source)) figures.push_back({study->table, study->quantity});
    for (const ResultTable& table : outcome.tables) {
      const auto choices = chart_choices(table);
      if (figures.empty() && !choices.empty() && table.name != "summary") figures.push_back({table.name, choices[0]});
      if (table.rows.size() <= kMostRows) tables.push_back(table.name);
    }
  }

  static void add_table(ReportSection& to, ResultTable table, std::string caption, std::string command) {
    ReportTable out{std::move(table), 0};
    if (out.table.rows.size() > kMostRows) {
      out.left_out = out.table.rows.size() - kMostRows;
      out.table.rows.resize(kMostRows);
    }
    to.blocks.push_back({std::move(out), std::move(caption), std::move(command)});
  }

  std::string figure_command(const ReportItem& one, const Side& from) const {
    std::string spec = one.source;
    const auto add = [&](const std::string& name, const std::string& value) { spec += (spec == one.source ? ":" : ";") + name + "=" + value; };
    for (const auto& [name, value] : one.options) add(name, value_of(one, value));
    if (one.source == "trace compare" && !request_.other.empty() && !one.options.contains("other")) add("other", request_.other);
    const std::string words[] = {"switchyard", "report", from.input.path, "--section", spec, "-o", "figures.html", "--figures", "figures"};
    return shell_line(words);
  }

  std::string table_command(const ReportItem& one, const Side& from, const std::string& table) const {
    const StudyInfo* study = study_of(one.source);
    std::vector<std::string> words{"switchyard"};
    const auto add = [&](std::initializer_list<std::string> more) { words.insert(words.end(), more); };
    if (study == nullptr) add({"analyze", from.input.path, one.source});
    else if (study->kind == StudyKind::kComparison) add({"trace", "compare", from.input.path, request_.other, "--json"});
    else if (study->kind == StudyKind::kSimulation) add({"simulate", from.input.path, study->name});
    else add({"place", "--method", study->name, "--trace", from.input.path});
    if (study != nullptr && study->kind == StudyKind::kComparison) return shell_line(words);
    for (const auto& [name, value] : one.options) {
      words.push_back("--" + name);
      if (!is_switch(study, name)) words.push_back(value_of(one, value));
    }
    add({"--csv", "--table", table});
    return shell_line(words);
  }

  static bool is_switch(const StudyInfo* study, const std::string& name) {
    if (study != nullptr) return std::any_of(study->options.begin(), study->options.end(), [&](const StudyOption& one) { return name == one.name && one.kind == OptionKind::kSwitch; });
    const auto all = analysis_options();
    return std::any_of(all.begin(), all.end(), [&](const AnalysisOption& one) { return name == one.name && one.standard == nullptr; });
  }

  const ReportRequest& request_;
  const ComposeOptions& options_;
  Task* task_;
  std::vector<ReportItem> items_;  // of the request, prepared
  std::vector<Side> sides_;
  std::map<size_t, Document> results_;  // of items that are analyses
  std::vector<Outcome> outcomes_;       // [items]
  std::map<size_t, SectionParts> given_;  // of items that others give
  std::set<std::string> makers_;
  std::set<size_t> left_out_;
  std::map<std::string, int> ids_;
  Report report_;
};

}  // namespace

Result<Report> compose_report(const ReportRequest& request, const ComposeOptions& options, Task* task) { return Composer(request, options, task).run(); }

}  // namespace switchyard
