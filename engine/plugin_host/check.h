// `switchyard plugin check`: reads the manifest, opens the library in a process with limits and tries everything that
// it declares on random and broken input. For the people who write plugins; asks for no trust, because nothing of it
// runs in the program. Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/plugin_host/manifest.h"

namespace switchyard {

struct PluginCheckLine {
  std::string what;  // "scheme noisy-gate.noisy_top_k"
  bool passed = false;
  std::string found;  // what is wrong, or worth knowing
};

struct PluginCheck {
  Manifest manifest;
  std::string sha256;  // of the library
  std::vector<PluginCheckLine> lines;
  bool passed() const;
};

// folder: with plugin.json and the library. Errors: the manifest cannot be read, or there is no library.
Result<PluginCheck> check_plugin(const std::filesystem::path& folder);

// The values of parameters as a scheme receives them, from their defaults.
std::vector<double> standard_parameters(const std::vector<PluginField>& fields);

}  // namespace switchyard
