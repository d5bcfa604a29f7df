// See trace_analysis.h.
#include "app/session/trace_analysis.h"

namespace switchyard {
namespace {

constexpr int kThreads = 1;  // the engine has the others

Result<TraceWalk> open_walk(const std::filesystem::path& trace, const WalkFilter& filter, Task* task, TraceAnalysis& out) {
  std::vector<std::unique_ptr<TraceReader>> readers(1);
  SY_TRY(readers[0], TraceReader::open(trace, task));
  out.notes = readers[0]->info().notes;
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(readers), filter));
  out.shape = walk.shape();
  return walk;
}

}  // namespace

Result<TraceAnalysis> analyze_trace(const std::filesystem::path& trace, const std::string& name, const AnalysisOptions& options,
                                    const WalkFilter& filter, Task* task) {
  const AnalysisInfo* info = find_analysis(name);
  if (info == nullptr) return fail(ErrorCode::kInternal, "there is no analysis named " + name + ".");
  TraceAnalysis out;
  out.name = name;
  SY_TRY(TraceWalk walk, open_walk(trace, filter, task, out));
  std::vector<std::unique_ptr<Analysis>> made(1);
  SY_TRY(made[0], make_analysis(*info, walk.shape(), options));
  const AnalysisInfo* const only[] = {info};
  walk.carry(fields_of(only));
  SY_CHECK(run_analyses(walk, made, kThreads, task));
  SY_CHECK(made[0]->finish());
  out.object = made[0]->result();
  out.tables = result_tables(out.object);
  return out;
}

Result<TraceAnalysis> study_trace(const std::filesystem::path& trace, const StudyInfo& info, const StudyOptions& options,
                                  const std::shared_ptr<const KeptPlacement>& placement, Task& task) {
  TraceAnalysis out;
  out.name = command_of(info);
  out.study = &info;
  SY_TRY(TraceWalk walk, open_walk(trace, {}, &task, out));
  StudyInput input;
  input.walk = &walk;
  input.threads = kThreads;
  if (placement) {
    input.placement = &placement->json;
    input.placement_name = placement->name;
  }
  SY_TRY(StudyResult result, run_study(info, options, input, task));
  for (StudyNote& note : result.notes) out.notes.push_back(std::move(note.text));
  out.object = std::move(result.document);
  out.tables = study_tables(out.object);
  return out;
}

}  // namespace switchyard
