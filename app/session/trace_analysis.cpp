// See trace_analysis.h.
#include "app/session/trace_analysis.h"

namespace switchyard {

Result<TraceAnalysis> analyze_trace(const std::filesystem::path& trace, const std::string& name, const AnalysisOptions& options,
                                    const WalkFilter& filter, Task* task) {
  const AnalysisInfo* info = find_analysis(name);
  if (info == nullptr) return fail(ErrorCode::kInternal, "there is no analysis named " + name + ".");
  std::vector<std::unique_ptr<TraceReader>> readers(1);
  SY_TRY(readers[0], TraceReader::open(trace, task));
  TraceAnalysis out;
  out.name = name;
  out.notes = readers[0]->info().notes;
  SY_TRY(TraceWalk walk, TraceWalk::of(std::move(readers), filter));
  out.shape = walk.shape();
  std::vector<std::unique_ptr<Analysis>> made(1);
  SY_TRY(made[0], make_analysis(*info, walk.shape(), options));
  const AnalysisInfo* const only[] = {info};
  walk.carry(fields_of(only));
  SY_CHECK(run_analyses(walk, made, 1, task));  // one thread: the engine has the others
  out.object = made[0]->result();
  out.tables = result_tables(out.object);
  return out;
}

}  // namespace switchyard
