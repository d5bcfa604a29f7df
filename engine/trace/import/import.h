// Opens what other programs wrote of their routing: any known dump becomes a complete trace of ours.
// The dump is read in a child process with limits; a parser that dies is "this file is damaged". Called from jobs and
// the command line, any thread. Formats: formats.md section 4; names and what each holds: formats() in dump.h.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/trace.h"

namespace switchyard {

struct ImportRequest {
  std::string format = "auto";     // a name of formats(), or told by looking
  std::filesystem::path source;    // a file, or a folder of one dump
  std::filesystem::path target;    // ends in .h5
  dumps::ImportOptions options;
  bool overwrite = false;
};

// What the dump does not hold, and which analyses refuse for that.
struct Lack {
  std::string field;     // "/routing/weight"
  std::string analyses;  // "A15 pruning by weight, ESFT gate scores"
};

struct ImportReport {
  TraceInfo trace;
  std::string format;
  std::vector<Lack> lacks;
  std::vector<std::string> notes;
};

// On any error nothing is left at the target. kUsage: options that cannot fit; kNotFound; kMalformed, with file and line
// or byte; kOutput; kCancelled. /meta/run of the trace tells format, files with SHA-256, notes and lacks.
Result<ImportReport> import_trace(const ImportRequest& request, Task* task = nullptr);

}  // namespace switchyard
