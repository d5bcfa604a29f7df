#include "engine/routing/scheme_makers.h"

#include <algorithm>
#include <map>

namespace switchyard {
namespace {

std::map<std::string, SchemeMaker, std::less<>>& makers() {
  static std::map<std::string, SchemeMaker, std::less<>> list;
  return list;
}

}  // namespace

void add_scheme_maker(std::string_view scheme, SchemeMaker maker) {
  makers().insert_or_assign(std::string(scheme), std::move(maker));
}

const SchemeMaker* maker_of(std::string_view scheme) {
  const auto found = makers().find(scheme);
  return found == makers().end() ? nullptr : &found->second;
}

void name_makers(nlohmann::ordered_json& script) {
  using Json = nlohmann::ordered_json;
  const auto edits = script.find("edits");
  if (edits == script.end() || !edits->is_array()) return;
  Json plugins = Json::array();
  for (const Json& edit : *edits) {
    if (!edit.is_object() || edit.value("kind", Json()) != "scheme") continue;
    const auto name = edit.find("name");
    const SchemeMaker* maker =
        name != edit.end() && name->is_string() ? maker_of(name->get_ref<const std::string&>()) : nullptr;
    if (maker == nullptr) continue;
    auto known =
        std::find_if(plugins.begin(), plugins.end(), [&](const Json& one) { return one["id"] == maker->plugin; });
    if (known == plugins.end()) {
      plugins.push_back(
          {{"id", maker->plugin}, {"version", maker->version}, {"sha256", maker->sha256}, {"schemes", Json::array()}});
      known = plugins.end() - 1;
    }
    Json& schemes = (*known)["schemes"];
    if (std::find(schemes.begin(), schemes.end(), *name) == schemes.end()) schemes.push_back(*name);
  }
  if (!plugins.empty()) script["plugins"] = std::move(plugins);
}

}  // namespace switchyard
