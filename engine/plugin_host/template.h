// `switchyard plugin new KIND NAME`: a plugin that builds, checks and runs, to be changed into one's own. Any thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/plugin_host/manifest.h"

namespace switchyard {

// Writes target (a folder that is not there yet) with plugin.json, source, CMakeLists.txt and README.md, from
// assets/plugins/KIND; gives the names. name: as a plugin's id. kUsage, kOutput, kNotFound.
Result<std::vector<std::string>> new_plugin(PluginKind kind, const std::string& name,
                                            const std::filesystem::path& target);

// Kinds that there is a template of.
Result<PluginKind> plugin_kind(std::string_view name);

}  // namespace switchyard
