// Plugins whose gating schemes were in force while a trace was recorded, as its epochs name them ("plugins" of
// name_makers()). Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/trace/trace.h"

namespace switchyard {

struct TracePlugin {
  std::string id, version, sha256;   // of its library
  std::vector<std::string> schemes;  // that were in force
};

// Each once, in the order of their first use. What is no such list is left out: a trace may hold anything.
std::vector<TracePlugin> plugins_of(const std::vector<TraceReader::EpochRow>& epochs);
// Reads header and epochs alone.
Result<std::vector<TracePlugin>> read_trace_plugins(const std::filesystem::path& path);
// "noisy-gate 1.0.0, SHA-256 …: noisy-gate.noisy_top_k"
std::string describe(const TracePlugin& plugin);

}  // namespace switchyard
