// How far two traces agree, what a machine that was not there would have made of one, and where its experts would best lie:
// comparison, simulations and placements in one list (specs/analyses.md A6, A8, A9, A11-A14; JSON: specs/cli-json.md). The command line and the
// window run what stands here. One thread at a time; some share their work out to a pool of their own.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/analysis/result_table.h"
#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/studies/study_options.h"
#include "engine/trace/trace_json.h"
#include "engine/trace/walk.h"

namespace switchyard {

struct StudyNote {  // what a reader of the result should know
  std::string text;
  bool warning = false;
};

struct StudyInput {
  TraceWalk* walk = nullptr;        // of a whole trace; null: a placement that is made from files
  int threads = 0;                  // 0: one per core; results do not depend on it
  const Json* placement = nullptr;  // traffic: a placement in memory, where no file is named
  std::string placement_name;       // how the document calls it
};

// One run of a study: what it reads, and what it has to say beside its document.
struct StudyRun {
  const StudyInput& input;
  const StudyOptions& options;
  Task& task;
  std::vector<StudyNote> notes = {};

  const TraceShape& shape() const { return input.walk->shape(); }
  int layer(int row) const { return shape().layers[size_t(row)]; }  // the model's
  std::string trace_path() const { return input.walk->trace(0).info().path.string(); }
  // Feeds the trace, with these datasets, from its start; from, to: the part of the progress that this is.
  Result<void> walk(std::set<std::string> fields, const std::function<Result<void>(const RoutingSlab&)>& take,
                    double from = 0, double to = 1);
};

enum class StudyKind : uint8_t { kComparison, kSimulation, kPlacement };

struct StudyInfo {
  StudyKind kind;
  const char* name;     // "cache"; of a placement its method, "affinity"
  const char* section;  // of specs/analyses.md
  const char* title;    // one line for lists and help
  std::vector<StudyOption> options;
  std::vector<const char*> examples;  // options of a good first run, as one types them
  bool needs_tokens;                  // counts alone are not enough
  bool threads;                       // heeds StudyInput::threads
  const char *table, *quantity;       // of study_tables(): what a window shows first
  // What can be refused before a trace is opened; null: nothing.
  Result<void> (*check)(const StudyOptions&);
  // The fields of the document beside its name, "schema" and "trace".
  Result<Document> (*run)(StudyRun&);
};
std::span<const StudyInfo> studies();  // by kind
const StudyInfo* find_study(std::string_view name);
std::string command_of(const StudyInfo& info);  // "trace compare", "simulate cache", "place affinity"

// Why traces of this shape cannot feed it, as a sentence; empty: they can.
std::string why_not(const StudyInfo& info, const TraceShape& shape);

struct StudyResult {
  Document document;  // what `simulate --json` and `place --json` print
  std::vector<StudyNote> notes;
};
// kUsage: options that are missing, that do not fit together or do not fit the trace; kNotFound, kMalformed: a file
// that an option names; kCancelled.
Result<StudyResult> run_study(const StudyInfo& info, const StudyOptions& options, const StudyInput& input, Task& task);

// The document as tables, without what names the command and the trace. More than the document's own: "experts" of a
// placement (layer, expert, copy, gpu, contiguous_gpu), "positions" of a capacity (capacity_factor, position,
// drop_ratio).
std::vector<ResultTable> study_tables(const Document& document);

}  // namespace switchyard
