#include "engine/trace/trace_plugins.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/trace/file.h"
#include "engine/trace/rehearsal.h"

namespace switchyard {
namespace {

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? printable(found->get<std::string>(), 100) : std::string();
}

void add(const Json& entry, std::vector<TracePlugin>& out) {
  if (!entry.is_object()) return;
  TracePlugin plugin{text_of(entry, "id"), text_of(entry, "version"), text_of(entry, "sha256"), {}};
  if (plugin.id.empty()) return;
  auto known = std::find_if(out.begin(), out.end(),
                            [&](const TracePlugin& one) { return one.id == plugin.id && one.sha256 == plugin.sha256; });
  if (known == out.end()) known = out.insert(out.end(), std::move(plugin));
  const auto schemes = entry.find("schemes");
  if (schemes == entry.end() || !schemes->is_array()) return;
  for (const auto& one : *schemes) {
    const std::string name = one.is_string() ? printable(one.get<std::string>(), 100) : std::string();
    if (!name.empty() && std::find(known->schemes.begin(), known->schemes.end(), name) == known->schemes.end())
      known->schemes.push_back(name);
  }
}

}  // namespace

std::vector<TracePlugin> plugins_of(const std::vector<TraceReader::EpochRow>& epochs) {
  std::vector<TracePlugin> out;
  for (const TraceReader::EpochRow& epoch : epochs) {
    const auto json = parse_json(epoch.json, "epoch");
    if (!json || !json->is_object() || !json->contains("plugins")) continue;
    if (const Json& list = (*json)["plugins"]; list.is_array())
      for (const Json& entry : list) add(entry, out);
  }
  return out;
}

Result<std::vector<TracePlugin>> read_trace_plugins(const std::filesystem::path& path) {
  const auto read = [&path]() -> Result<std::vector<TracePlugin>> {
    SY_TRY(const auto file, TraceFile::open(path));
    SY_TRY(const auto epochs, file->epochs());
    return plugins_of(epochs);
  };
  SY_CHECK(rehearse(path, [&read] { return read().map([](const auto&) {}); }));
  return read();
}

std::string describe(const TracePlugin& plugin) {
  return fmt::format("{} {}, SHA-256 {}: {}", plugin.id, plugin.version, plugin.sha256,
                     fmt::join(plugin.schemes, ", "));
}

}  // namespace switchyard
