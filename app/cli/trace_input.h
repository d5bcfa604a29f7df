// A trace that a command walks: opened, its notes told, its TRACE object made. Main thread.
#pragma once

#include <string>

#include "app/cli/cli.h"
#include "engine/base/task.h"
#include "engine/trace/walk.h"

namespace switchyard {

struct TraceInput {
  TraceWalk walk;
  Document document;  // specs/cli-json.md, TRACE
};
Result<TraceInput> open_trace(Cli& cli, const std::string& path, Task* task);

}  // namespace switchyard
