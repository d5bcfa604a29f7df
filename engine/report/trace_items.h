// What a report says of a trace itself: facts, edits, text, provenance. Inside engine/report; any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/report/request.h"
#include "engine/trace/walk.h"

namespace switchyard::reports {

struct Side {
  ReportInput input;
  TraceInfo info;
  std::unique_ptr<TraceWalk> walk;
};
Result<Side> open_side(const std::string& path, Task* task);

void add_provenance(const Side& side, const std::string& before, std::vector<std::pair<std::string, std::string>>& out);
Result<void> add_facts(const Side& side, ReportSection& to);
Result<void> add_edits(const Side& side, ReportSection& to);
// Notes: why words are missing.
Result<void> add_text(const Side& side, const ReportItem& item, ReportSection& to, std::vector<std::string>& notes);

}  // namespace switchyard::reports
