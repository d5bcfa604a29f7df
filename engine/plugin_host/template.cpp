#include "engine/plugin_host/template.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include "engine/base/atomic_file.h"
#include "engine/base/folder.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

void replace_all(std::string& text, std::string_view from, const std::string& to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// "my-gate": "My gate"
std::string title_of(std::string name) {
  std::replace(name.begin(), name.end(), '-', ' ');
  name[0] = char(name[0] - 'a' + 'A');
  return name;
}

}  // namespace

Result<PluginKind> plugin_kind(std::string_view text) {
  std::string names;
  for (int i = 0; i < kPluginKinds; ++i) {
    if (text == name(PluginKind(i))) return PluginKind(i);
    names += (names.empty() ? "" : ", ") + std::string(name(PluginKind(i)));
  }
  return fail(ErrorCode::kUsage, quote(text) + " is no kind of plugin.", {}, "Kinds are: " + names + ".");
}

Result<std::vector<std::string>> new_plugin(PluginKind kind, const std::string& id, const fs::path& target) {
  const bool fits = !id.empty() && id.size() <= 40 && id[0] >= 'a' && id[0] <= 'z' && id.back() != '-' &&
                    std::all_of(id.begin(), id.end(),
                                [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
  if (!fits)
    return fail(ErrorCode::kUsage, quote(id) + " is no name for a plugin.", {},
                "Lower-case letters, digits and dashes, a letter first: my-gate.");
  std::error_code error;
  if (fs::exists(fs::symlink_status(target, error)))
    return fail(ErrorCode::kOutput, "exists already.", printable(target.string(), 400),
                "Choose another name or folder.");
  SY_TRY(const fs::path assets, find_assets());
  std::string library = id;
  std::replace(library.begin(), library.end(), '-', '_');
  const auto filled = [&](std::string text) {
    replace_all(text, "@ID@", id);
    replace_all(text, "@LIBRARY@", library);
    replace_all(text, "@TITLE@", title_of(id));
    replace_all(text, "@KIND@", std::string(name(kind)));
    return text;
  };
  std::vector<std::pair<std::string, std::string>> files;
  const fs::path own = assets / "plugins" / std::string(name(kind)),
                 common = assets / "plugins" / (is_code(kind) ? "code" : "data");
  for (const fs::path& folder : {own, common}) {
    SY_TRY(const Folder opened, Folder::open(folder));
    for (const std::string& file : opened.names()) {
      SY_TRY(std::string text, opened.read_text(file, 1 << 20));
      files.emplace_back(file.starts_with("source.") ? library + file.substr(6) : file, filled(std::move(text)));
    }
  }
  fs::create_directories(target, error);
  if (error)
    return fail(ErrorCode::kOutput, "cannot be made: " + error.message() + ".", printable(target.string(), 400));
  std::vector<std::string> names;
  for (const auto& [file, text] : files) {
    if (auto written = write_file(target / file, text); !written) {
      fs::remove_all(target, error);
      return tl::unexpected(written.error());
    }
    names.push_back(file);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace switchyard
