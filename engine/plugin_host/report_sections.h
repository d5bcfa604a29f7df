// A report section of a plugin: its parts come from a process of its own, are looked at, and become blocks of a report.
// Any thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/plugin_host/child.h"
#include "engine/plugin_host/manifest.h"
#include "engine/report/given_sections.h"

namespace switchyard {

// What the process reads of the trace: the answer to one of its questions (trace_fields.h).
using ReadTrace = std::function<Result<Message>(const Message& asked)>;

// Runs the section that `child` was started for. kPlugin: it failed, died, or a part of it cannot be shown. changed:
// what it changed of its process, in words; may be null.
Result<SectionParts> section_of(PluginChild& child, const std::string& plugin, const TraceInfo& info,
                                const std::vector<double>& parameters, const ReadTrace& read, Task* task,
                                std::vector<std::string>* changed = nullptr);

// The values of parameters, as given or by default; kUsage: an option that is none of them, or a value out of range.
Result<std::vector<double>> parameter_values(const std::vector<PluginField>& fields,
                                             const std::map<std::string, std::string>& given);

}  // namespace switchyard
