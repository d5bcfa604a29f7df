// What people decided about plugins on this machine: which code is trusted (by SHA-256), which plugins are off and why,
// and their settings; and where plugins are looked for. $XDG_CONFIG_HOME/switchyard/plugins.json, saved whole. One
// thread.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace switchyard {

struct PluginChoices {
  std::set<std::string> trusted;                   // lower-case hex
  std::map<std::string, std::string> off;          // by id: why
  std::map<std::string, nlohmann::json> settings;  // by id: an object of values
};

std::filesystem::path plugin_choices_file();
// A missing file: none. A file that cannot be read is said to be so; nothing of it is then trusted.
Result<PluginChoices> read_plugin_choices();
Result<void> write_plugin_choices(const PluginChoices& choices);

// $XDG_DATA_HOME/switchyard/plugins, ../lib/switchyard/plugins of the program, SWITCHYARD_PLUGIN_PATH (split at ':'),
// then `more` (--plugin-path). Each holds folders of plugins, or is one.
std::vector<std::filesystem::path> plugin_search_path(const std::vector<std::string>& more);
// Folders with a plugin.json in them, in that order; those that cannot be opened are left out.
std::vector<std::filesystem::path> find_plugin_folders(const std::vector<std::filesystem::path>& path);

// $XDG_STATE_HOME/switchyard/plugins: breadcrumbs. Made when missing.
Result<std::filesystem::path> plugin_state_folder();

// kMalformed: folder or file can be written by others than their owner, or are neither the user's nor root's.
Result<void> check_owner(const std::filesystem::path& file);

}  // namespace switchyard
