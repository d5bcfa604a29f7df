// The one list of studies, and what all of them share.
#include <algorithm>
#include <limits>

#include "engine/studies/placement_document.h"
#include "engine/studies/study_list.h"

namespace switchyard {
namespace {

constexpr int kDocumentSchema = 1;

// Expert by expert, copy by copy, beside the placement of contiguous experts.
ResultTable experts_table(const PlacedExperts& placed) {
  const ExpertPlaces& places = placed.places;
  ResultTable table{"experts", {"layer", "expert", "copy", "gpu", "contiguous_gpu"}, {}};
  for (int row = 0; row < places.layers(); ++row) {
    for (int expert = 0; expert < places.experts(); ++expert) {
      int copy = 0;
      for (const int gpu : places.of(row, expert))
        table.rows.push_back({placed.layers[size_t(row)], expert, copy++, gpu,
                              placed.contiguous.empty() ? Document() : Document(placed.contiguous[size_t(expert)])});
    }
  }
  return table;
}

ResultTable positions_table(const Document& factors) {
  ResultTable table{"positions", {"capacity_factor", "position", "drop_ratio"}, {}};
  for (const Document& factor : factors) {
    const auto drops = factor["drops_by_position"].get<std::vector<uint64_t>>();
    const auto demands = factor["demands_by_position"].get<std::vector<uint64_t>>();
    for (size_t position = 0; position < demands.size(); ++position)
      table.rows.push_back({factor["capacity_factor"], position,
                            demands[position] > 0 ? Document(share(drops[position], demands[position])) : Document()});
  }
  return table;
}

}  // namespace

StudyOption whole_option(const char* name, const char* standard, const char* help, double least, double most) {
  return {name, OptionKind::kWhole, standard, help, least, most};
}

StudyOption real_option(const char* name, const char* standard, const char* help, double least, double most) {
  return {name, OptionKind::kReal, standard, help, least, most};
}

StudyOption choice_option(const char* name, std::vector<const char*> choices, const char* help) {
  const char* first = choices.front();
  return {name, OptionKind::kChoice, first, help, 0, 0, std::move(choices)};
}

StudyOption list_option(const char* name, const char* standard, const char* help, double least, double most) {
  return {name, OptionKind::kList, standard, help, least, most};
}

StudyOption switch_option(const char* name, const char* help) {
  return {name, OptionKind::kSwitch, "", help};
}

StudyOption file_option(const char* name, const char* help) {
  return {name, OptionKind::kFile, "", help};
}

StudyOption seed_option(const char* help) {
  return whole_option("seed", "0", help, 0, double(std::numeric_limits<uint64_t>::max()));
}

StudyOption gpus_option(double most) {
  StudyOption option = whole_option("gpus", "", "GPUs, all nodes together", 1, most);
  option.required = true;
  option.suggested = "4";
  return option;
}

Result<void> StudyRun::walk(std::set<std::string> fields, const std::function<Result<void>(const RoutingSlab&)>& take,
                            double from, double to) {
  input.walk->carry(std::move(fields));
  return input.walk->run(take, &task, from, to);
}

std::span<const StudyInfo> studies() {
  static const std::vector<StudyInfo> list = [] {
    std::vector<StudyInfo> all = {compare_study(), cache_study(), capacity_study(), traffic_study(), schedule_study()};
    for (StudyInfo& info : placement_studies()) all.push_back(std::move(info));
    return all;
  }();
  return list;
}

const StudyInfo* find_study(std::string_view name) {
  for (const StudyInfo& info : studies())
    if (info.name == name) return &info;
  return nullptr;
}

std::string command_of(const StudyInfo& info) {
  constexpr const char* kNouns[] = {"trace ", "simulate ", "place "};
  return kNouns[size_t(info.kind)] + std::string(info.name);
}

std::string why_not(const StudyInfo& info, const TraceShape& shape) {
  if (shape.counts_only)
    return info.needs_tokens ? std::string("holds counts only, and ") + info.name + " needs tokens." : std::string();
  const char* ids = "/routing/expert_id";
  if (std::find(shape.fields.begin(), shape.fields.end(), ids) != shape.fields.end()) return {};
  return std::string("holds no ") + ids + ".";
}

Result<StudyResult> run_study(const StudyInfo& info, const StudyOptions& options, const StudyInput& input, Task& task) {
  SY_CHECK(options.complete());
  if (info.check != nullptr) SY_CHECK(info.check(options));
  StudyRun run{input, options, task};
  StudyResult result;
  constexpr const char* kKeys[] = {"comparison", "simulation", "method"};
  result.document = {{kKeys[size_t(info.kind)], info.name},
                     {"schema", kDocumentSchema}};
  if (input.walk != nullptr) {
    if (std::string reason = why_not(info, run.shape()); !reason.empty())
      return fail(ErrorCode::kUsage, std::move(reason), run.trace_path());
    result.document["trace"] = trace_json(input.walk->trace(0).info());
  } else if (info.kind != StudyKind::kPlacement) {
    return fail(ErrorCode::kInternal, "a study of a trace was started without one.");
  }
  SY_TRY(const Document fields, info.run(run));
  result.document.update(fields);
  result.notes = std::move(run.notes);
  return result;
}

std::vector<ResultTable> study_tables(const Document& document) {
  Document shown = document;
  for (const char* key : {"schema", "trace", "other", "method", "simulation", "comparison"}) shown.erase(key);
  std::vector<ResultTable> tables = result_tables(shown);
  if (document.contains("method")) {
    if (const auto placed = placed_experts(document)) tables.push_back(experts_table(*placed));
  } else if (document.contains("factors")) {
    tables.push_back(positions_table(document["factors"]));
  }
  return tables;
}

}  // namespace switchyard
