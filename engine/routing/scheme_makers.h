// Whose code a scheme is that is not the engine's own: what traces and reports say of it. Entered with add_schemes(),
// before threads start; afterwards any thread.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace switchyard {

struct SchemeMaker {
  std::string plugin, version;
  std::string sha256;  // of its library
};

void add_scheme_maker(std::string_view scheme, SchemeMaker maker);
// nullptr: it is the engine's own, or unknown.
const SchemeMaker* maker_of(std::string_view scheme);

// "plugins": [{"id", "version", "sha256", "schemes"}], those whose schemes the edits of the script name; none:
// unchanged.
void name_makers(nlohmann::ordered_json& script);

}  // namespace switchyard
