// One analysis or study of one trace, as a job of the window runs it. Any thread; a value afterwards.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/analysis/analysis.h"
#include "engine/analysis/result_table.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/studies/study.h"
#include "engine/trace/walk.h"

namespace switchyard {

struct TraceAnalysis {
  std::string name;                  // "load", "simulate cache", "place affinity"
  const StudyInfo* study = nullptr;  // null: an analysis
  TraceShape shape;                  // of what was walked
  nlohmann::ordered_json object;     // as --json prints it; of an analysis without "trace"
  std::vector<ResultTable> tables;   // of the object
  std::vector<std::string> notes;    // of the file (unfinished, reduced) and of the study
};

// trace: a *.moetrace.h5, or the .part of a recording that goes on (what is committed so far).
Result<TraceAnalysis> analyze_trace(const std::filesystem::path& trace, const std::string& name, const AnalysisOptions& options,
                                    const WalkFilter& filter, Task* task = nullptr);

// A placement that was kept for the traffic study.
struct KeptPlacement {
  std::string name;  // "affinity on 4 GPUs"
  Json json;
};
// placement: null: none.
Result<TraceAnalysis> study_trace(const std::filesystem::path& trace, const StudyInfo& info, const StudyOptions& options,
                                  const std::shared_ptr<const KeptPlacement>& placement, Task& task);

}  // namespace switchyard
