#include "engine/plugin_host/store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "engine/base/atomic_file.h"
#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// $variable, where it is absolute, else ~/fallback.
fs::path base_folder(const char* variable, const char* fallback) {
  if (const char* set = std::getenv(variable); set && fs::path(set).is_absolute()) return fs::path(set) / "switchyard";
  const char* home = std::getenv("HOME");
  return fs::path(home && *home ? home : "/") / fallback / "switchyard";
}

bool is_hash(const std::string& text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<void> check_mode(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    return fail(ErrorCode::kNotFound, std::string("cannot be looked at: ") + std::strerror(errno) + ".",
                printable(path.string(), 400));
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    return fail(ErrorCode::kMalformed, "belongs to another user.", printable(path.string(), 400),
                "Copy the plugin into your own folder.");
  if (status.st_mode & (S_IWGRP | S_IWOTH))
    return fail(ErrorCode::kMalformed, "can be written by others than its owner.", printable(path.string(), 400),
                "chmod go-w makes it yours alone.");
  return {};
}

}  // namespace

fs::path plugin_choices_file() {
  return base_folder("XDG_CONFIG_HOME", ".config") / "plugins.json";
}

Result<PluginChoices> read_plugin_choices() {
  PluginChoices out;
  const fs::path file = plugin_choices_file();
  std::error_code error;
  if (!fs::exists(file, error)) return out;
  SY_TRY(const Folder folder, Folder::open(file.parent_path()));
  SY_TRY(const std::string text, folder.read_text(file.filename().string(), 4 << 20));
  const std::string document = printable(file.string(), 400);
  SY_TRY(const Json json, parse_json(text, document, {.bytes = 4 << 20, .depth = 8}));
  const JsonView root(json, document);
  if (root.has("trusted")) {
    SY_TRY(const auto trusted, root.array("trusted"));
    for (const JsonView& one : trusted) {
      SY_TRY(const std::string hash, one.as_text());
      if (!is_hash(hash)) return one.fail("is no SHA-256");
      out.trusted.insert(hash);
    }
  }
  if (const auto off = root.find("off")) {
    SY_TRY(const auto members, off->as_object());
    for (const auto& [id, why] : members) {
      SY_TRY(out.off[id], why.as_text());
    }
  }
  if (const auto settings = root.find("settings")) {
    SY_TRY(const auto members, settings->as_object());
    for (const auto& [id, values] : members) {
      SY_CHECK(values.as_object());
      out.settings[id] = values.json();
    }
  }
  return out;
}

Result<void> write_plugin_choices(const PluginChoices& choices) {
  const fs::path file = plugin_choices_file();
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  nlohmann::ordered_json json = {
      {"schema", 1}, {"trusted", choices.trusted}, {"off", choices.off}, {"settings", nlohmann::json::object()}};
  for (const auto& [id, values] : choices.settings)
    if (!values.empty()) json["settings"][id] = values;
  return write_file(file, json.dump(2) + "\n", Overwrite::kAllow);
}

std::vector<fs::path> plugin_search_path(const std::vector<std::string>& more) {
  std::vector<fs::path> out{base_folder("XDG_DATA_HOME", ".local/share") / "plugins"};
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) out.push_back(program.parent_path().parent_path() / "lib" / "switchyard" / "plugins");
  if (const char* path = std::getenv("SWITCHYARD_PLUGIN_PATH")) {
    const std::string text = path;
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find(':', at), text.size());
      if (end > at) out.emplace_back(text.substr(at, end - at));
      at = end + 1;
    }
  }
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

std::vector<fs::path> find_plugin_folders(const std::vector<fs::path>& path) {
  std::vector<fs::path> out;
  std::error_code error;
  const auto add = [&](const fs::path& folder) {
    const fs::path real = fs::weakly_canonical(folder, error);
    if (fs::exists(real / "plugin.json", error) && std::find(out.begin(), out.end(), real) == out.end())
      out.push_back(real);
  };
  for (const fs::path& place : path) {
    add(place);
    std::vector<fs::path> inside;
    for (fs::directory_iterator entry(place, error), end; !error && entry != end && inside.size() < 1000;
         entry.increment(error))
      inside.push_back(entry->path());
    std::sort(inside.begin(), inside.end());
    for (const fs::path& folder : inside) add(folder);
  }
  return out;
}

Result<fs::path> plugin_state_folder() {
  const fs::path folder = base_folder("XDG_STATE_HOME", ".local/state") / "plugins";
  std::error_code error;
  fs::create_directories(folder, error);
  if (!fs::is_directory(folder, error))
    return fail(ErrorCode::kOutput, "cannot be made.", printable(folder.string(), 400));
  return folder;
}

Result<void> check_owner(const fs::path& file) {
  SY_CHECK(check_mode(file));
  return check_mode(file.parent_path());
}

}  // namespace switchyard
