#include "engine/plugin_host/check.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/analysis/analysis.h"
#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/plugin_host/child.h"
#include "engine/plugin_host/report_sections.h"
#include "engine/plugin_host/store.h"
#include "switchyard/plugin.h"

namespace switchyard {
namespace {

// Made-up values of a small trace, as trace_values() gives those of a file.
Result<Message> made_up(const TraceInfo& info, const Message& asked) {
  const uint64_t field = asked.number("field"), first = asked.number("first"), count = asked.number("count");
  Message out;
  if (asked.number("row") >= uint64_t(info.layers) || first > info.tokens || count > info.tokens - first ||
      field > SY_FIELD_LSE) {
    out.head["none"] = true;
    return out;
  }
  const uint64_t wide = field == SY_FIELD_LOGITS                           ? uint64_t(info.experts)
                        : field == SY_FIELD_ID || field == SY_FIELD_WEIGHT ? uint64_t(info.top_k)
                                                                           : 1;
  std::vector<float> reals;
  std::vector<int32_t> whole;
  for (uint64_t i = 0; i < count * wide; ++i) {
    reals.push_back(0.5f + 0.125f * float(i % 3));
    whole.push_back(field == SY_FIELD_SEQUENCE ? int32_t((first + i) / 3)
                                               : int32_t((first + i) % uint64_t(info.experts)));
  }
  const bool real = field == SY_FIELD_WEIGHT || field == SY_FIELD_LOGITS || field >= SY_FIELD_ENTROPY;
  if (real)
    out.put(std::span<const float>(reals));
  else
    out.put(std::span<const int32_t>(whole));
  return out;
}

// A whole trace of six tokens, then one of a single token that holds what the section says it needs: of that it may
// refuse to write, and may not die.
Result<void> check_section(PluginChild& child, const Manifest& manifest, const Contribution& one) {
  TraceInfo info;
  info.layers = 2, info.experts = 4, info.top_k = 2, info.tokens = 6, info.sequences = 2, info.moe_layers = {0, 1};
  info.fields = {"/routing/expert_id", "/routing/weight",    "/routing/router_logits", "/tokens/token_id",
                 "/routing/entropy",   "/routing/topk_mass", "/routing/margin",        "/routing/lse"};
  const ReadTrace read = [&](const Message& asked) { return made_up(info, asked); };
  const std::vector<double> parameters = standard_parameters(one.parameters);
  std::vector<std::string> changed;
  SY_CHECK(section_of(child, manifest.id, info, parameters, read, nullptr, &changed));
  if (!changed.empty()) return fail(ErrorCode::kPlugin, fmt::format("{}: it changed {}", one.id, changed.front()));
  info.tokens = 1, info.sequences = 1, info.fields = one.needs;
  info.fields.emplace_back("/routing/expert_id");
  (void)section_of(child, manifest.id, info, parameters, read, nullptr);
  Message alive;
  alive.head = {{"op", "check"}, {"kind", "nothing"}, {"id", ""}};
  SY_CHECK(child.ask(alive));
  return {};
}

Result<void> check_code(const Manifest& manifest, const std::filesystem::path& library, const std::string& sha256,
                        const Contribution& one) {
  ChildRequest request{manifest.id, library, sha256};
  for (const PluginField& field : manifest.settings)
    request.settings[field.name] = field.text_of(field.standard).value_or("");
  request.kind = std::string(name(one.kind));
  request.name = one.id;
  request.loud = true;
  SY_TRY(const auto child, PluginChild::start(request));
  if (one.kind == PluginKind::kReport) return check_section(*child, manifest, one);
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
    out.lines.push_back({fmt::format("{} {}", words(one.kind), one.id), tried.has_value(),
                         tried ? "" : tried.error().what});
  }
  return out;
}

}  // namespace switchyard
