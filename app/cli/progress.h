// Progress of long work on stderr: a bar on a terminal within 100 ms, one line per 10 s elsewhere, one JSON
// line per second with --progress=json. Shows until it is destroyed; polls from its own thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "app/cli/output.h"

namespace switchyard {

struct ProgressState {
  std::string step;      // "prefill"
  double fraction = -1;  // 0..1; negative: unknown
  uint64_t tokens = 0;
  double tokens_per_s = 0;        // 0: not known yet
  std::optional<uint64_t> bytes;  // written to the trace
  uint64_t dropped = 0;
};

enum class ProgressMode { kAuto, kPlain, kJson, kNone };
std::optional<ProgressMode> parse_progress_mode(const std::string& name);

class Progress {
 public:
  // silent_terminal: no bar, because text is being written to the same terminal.
  Progress(Output& output, ProgressMode mode, std::function<ProgressState()> poll, bool silent_terminal = false);
  ~Progress();
  Progress(const Progress&) = delete;

 private:
  void run();
  void show(const ProgressState& state);

  Output& output_;
  ProgressMode mode_;
  std::function<ProgressState()> poll_;
  bool bar_ = false;
  double seconds_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace switchyard
