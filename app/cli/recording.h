// Recording a run or a scoring to a trace: the options --capture, --taps and --trace, and the header. Main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/cli/output.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/edit.h"
#include "engine/trace/trace.h"

namespace switchyard {

class RecordingOptions {
 public:
  void add_options(CLI::App& app);
  // Refuses what cannot be: an unknown level, a trace of nothing, an existing file, taps without a trace.
  Result<void> check(bool force) const;

  void record_to(std::string file) { file_ = std::move(file); }  // as --trace
  bool wanted() const { return !file_.empty(); }
  const std::string& file() const { return file_; }
  uint8_t taps() const;        // of Taps
  CaptureLevel level() const;  // weights for a trace unless told otherwise, else off

  // start: the edits in force at the first token. run: what /meta/run says besides the tool's version.
  Result<std::shared_ptr<TraceRecorder>> create(const Checkpoint& checkpoint, const std::vector<EditCommand>& start,
                                                Document run, bool force, int chunk_rows, Task& task,
                                                std::vector<std::string> domains = {}) const;

 private:
  std::string capture_, file_;
  std::vector<std::string> taps_;
  bool routers_ = false;
};

// A recording that a recipe with more rows took to further files: all of them, and a sentence.
Document traces_json(const TraceRecorder& recorder);
std::string several_traces(const TraceRecorder& recorder);

// The entries of a script that hold from token 0 on, without at_token.
std::vector<EditCommand> edits_at_start(const std::vector<EditCommand>& script);

}  // namespace switchyard
