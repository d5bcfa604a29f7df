// What other programs read, out of a trace (design: formats.md section 8). Called from jobs and the command line, any
// thread. Names and what each writes: export_formats().
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/export/files.h"
#include "engine/trace/trace.h"

namespace switchyard {

struct ExportOptions {
  int layers = 0;                   // layers of the model, dense ones too; 0: as the trace's config says, or the last row + 1
  std::filesystem::path placement;  // what `switchyard place --json` wrote
  double threshold = 0.2;           // ESFT
  std::string score = "token";      // ESFT: token or gate
  int decimals = 4;                 // ESFT
};

struct ExportRequest {
  std::filesystem::path trace;
  std::string format;
  std::filesystem::path target;  // a file, or a folder where the format writes several
  ExportOptions options;
  bool overwrite = false, dry_run = false;
};

struct ExportReport {
  std::vector<WrittenFile> files;
  std::vector<std::string> notes;
};

namespace exports {
struct Job;  // engine/trace/export/writers.h
}
struct ExportFormat {
  const char* name;    // of --to
  const char* writes;  // in words
  bool folder;         // the target is one
  std::function<Result<void>(exports::Job&)> write;
};
std::span<const ExportFormat> export_formats();
// From outside the engine; texts they point to live as long as the program. Once, before threads start.
void add_export_formats(std::vector<ExportFormat> more);

// On any error no file is left that was not there before. kUsage: the trace does not hold what the format needs, by name.
Result<ExportReport> export_trace(const ExportRequest& request, Task* task = nullptr);

}  // namespace switchyard
