// Walks a trace and feeds it to analyses: slabs of all rows, in order, memory bounded whatever the trace's length.
// Several traces of one model are walked as one. One thread calls; rows are shared out over a pool.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "engine/analysis/analysis.h"
#include "engine/analysis/slab.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/sides.h"
#include "engine/trace/trace.h"

namespace switchyard {

// What of the traces is walked. A token that is filtered out stays in its place (windows and positions count it) and
// has no experts; its mask is 0.
struct WalkFilter {
  std::vector<int> layers;               // model layers; empty: all
  std::string domain;                    // empty: all
  std::optional<uint8_t> phase;          // 0 prefill, 1 decode
};

class TraceWalk {
 public:
  // All of one shape: rows, experts and layers. The widest k is taken. Refused otherwise, naming the file.
  static Result<TraceWalk> of(std::vector<std::unique_ptr<TraceReader>> traces, const WalkFilter& filter = {});

  const TraceShape& shape() const { return shape_; }
  const TraceReader& trace(size_t index) const { return *traces_[index]; }
  // Which datasets the slabs carry beside ids, sequences and positions; unknown or unrecorded ones are left empty.
  void carry(std::set<std::string> fields) { fields_ = std::move(fields); }
  // Calls `take` with consecutive slabs. A cancelled task ends the walk with kCancelled.
  Result<void> run(const std::function<Result<void>(const RoutingSlab&)>& take, Task* task = nullptr, double from = 0, double to = 1) const;

  // Of traces that hold counts only: what the walk is for the others.
  Result<void> give_counts(std::span<const std::unique_ptr<Analysis>> analyses) const;

 private:
  std::vector<std::unique_ptr<TraceReader>> traces_;
  std::vector<std::vector<uint32_t>> domain_of_;  // [trace][sequence]: index into shape_.domains
  std::vector<int> rows_;                         // walked rows
  Sides sides_;                                   // of all rows
  WalkFilter filter_;
  std::set<std::string> fields_;
  TraceShape shape_;
};

// What slabs must carry for these analyses.
std::set<std::string> fields_of(std::span<const AnalysisInfo* const> analyses);

// Runs analyses together over as many walks as the longest needs. Rows are fed from `threads` threads (0: one per core).
Result<void> run_analyses(TraceWalk& walk, std::span<const std::unique_ptr<Analysis>> analyses, int threads = 0, Task* task = nullptr);

}  // namespace switchyard
