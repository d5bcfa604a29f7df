// One analysis of one trace, as a job of the window runs it. Any thread; a value afterwards.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/analysis/analysis.h"
#include "engine/analysis/result_table.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/walk.h"

namespace switchyard {

struct TraceAnalysis {
  std::string name;
  TraceShape shape;                  // of what was walked
  nlohmann::ordered_json object;     // as `analyze --json` prints it, without "trace"
  std::vector<ResultTable> tables;   // of the object
  std::vector<std::string> notes;    // of the file: unfinished, reduced
};

// trace: a *.moetrace.h5, or the .part of a recording that goes on (what is committed so far).
Result<TraceAnalysis> analyze_trace(const std::filesystem::path& trace, const std::string& name, const AnalysisOptions& options,
                                    const WalkFilter& filter, Task* task = nullptr);

}  // namespace switchyard
