// What the processes of plugins read of a trace, field by field: exporters and report sections. Any thread, one at a
// time.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "engine/plugin_host/wire.h"
#include "engine/trace/trace.h"

namespace switchyard {

// Adds what a process is told before it reads: rows, experts, k, tokens, sequences, layers, holds.
void describe_trace(const TraceInfo& info, nlohmann::json& head);
// The answer to {"field", "row", "first", "count"}; "none": the trace does not hold it. An error: the file cannot be
// read.
Result<Message> trace_values(const TraceReader& trace, const Message& asked);

}  // namespace switchyard
