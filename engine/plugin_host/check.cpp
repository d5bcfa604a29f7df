#include "engine/plugin_host/check.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/analysis/analysis.h"
#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/plugin_host/child.h"
#include "engine/plugin_host/store.h"

namespace switchyard {
namespace {

Result<void> check_code(const Manifest& manifest, const std::filesystem::path& library, const std::string& sha256,
                        const Contribution& one) {
  ChildRequest request{manifest.id, library, sha256};
  for (const PluginField& field : manifest.settings)
    request.settings[field.name] = field.text_of(field.standard).value_or("");
  request.kind = std::string(name(one.kind));
  request.name = one.id;
  request.loud = true;
  SY_TRY(const auto child, PluginChild::start(request));
  Message ask;
  ask.head = {{"op", "check"},
              {"kind", name(one.kind)},
              {"id", one.id},
              {"parameters", standard_parameters(one.parameters)},
              {"max_slots", one.max_slots}};
  SY_CHECK(child->ask(ask));
  return {};
}

// What of data can be looked at without running anything.
PluginCheckLine check_data(const std::filesystem::path& folder, const Contribution& one, const Manifest& manifest) {
  PluginCheckLine line{fmt::format("{} {}", words(one.kind), one.id), true, {}};
  if (one.kind == PluginKind::kTheme) {
    const auto opened = Folder::open(folder);
    const auto text = opened ? opened->read_text(one.file, 64 << 10) : tl::unexpected<Error>(opened.error());
    const auto json = text ? parse_json(*text, one.file) : tl::unexpected<Error>(text.error());
    if (!json) line.passed = false, line.found = json.error().message();
  }
  if (one.kind == PluginKind::kSection && !find_analysis(one.analysis) &&
      !manifest.find(PluginKind::kMetric, one.analysis))
    line.passed = false, line.found = fmt::format("there is no analysis {}", quote(one.analysis));
  return line;
}

}  // namespace

bool PluginCheck::passed() const {
  return std::all_of(lines.begin(), lines.end(), [](const PluginCheckLine& line) { return line.passed; });
}

std::vector<double> standard_parameters(const std::vector<PluginField>& fields) {
  std::vector<double> out;
  for (const PluginField& field : fields) {
    if (field.standard.is_boolean())
      out.push_back(field.standard.get<bool>());
    else if (field.standard.is_string())
      out.push_back(double(std::find(field.choices.begin(), field.choices.end(), field.standard.get<std::string>()) -
                           field.choices.begin()));
    else
      out.push_back(field.standard.get<double>());
  }
  return out;
}

Result<PluginCheck> check_plugin(const std::filesystem::path& folder) {
  PluginCheck out;
  SY_TRY(out.manifest, read_manifest(folder));
  std::string notes;
  for (const std::string& note : out.manifest.notes) notes += (notes.empty() ? "" : "; ") + note;
  out.lines.push_back({"plugin.json", true, notes});
  const std::filesystem::path library = std::filesystem::absolute(folder) / out.manifest.library_file();
  if (out.manifest.has_code()) {
    SY_TRY(out.sha256, sha256_of_file(library));
    const auto owned = check_owner(library);
    out.lines.push_back({out.manifest.library_file(), owned.has_value(), owned ? "" : owned.error().message()});
  }
  for (const Contribution& one : out.manifest.contributions) {
    if (!is_code(one.kind)) {
      out.lines.push_back(check_data(folder, one, out.manifest));
      continue;
    }
    const auto tried = check_code(out.manifest, library, out.sha256, one);
    PluginCheckLine line{fmt::format("{} {}", words(one.kind), one.id), tried.has_value(),
                         tried ? "" : tried.error().what};
    if (!one.device_source.empty()) {
      std::error_code error;
      const bool there = std::filesystem::is_regular_file(folder / one.device_source, error);
      line.passed = line.passed && there;
      line.found +=
          (line.found.empty() ? "" : "; ") +
          (there ? "device source " + one.device_source +
                       " is kept; no backend of this program compiles it, the host function decides everywhere"
                 : "there is no " + one.device_source);
    }
    out.lines.push_back(std::move(line));
  }
  return out;
}

}  // namespace switchyard
