// The settings that the Metaspace pre-tokenizer and the Metaspace decoder share, in the old spelling
// (add_prefix_space, str_rep) and the new one (prepend_scheme, split). Any thread.
#pragma once

#include <string>

#include "engine/base/json.h"
#include "engine/base/result.h"

namespace switchyard {

enum class PrependScheme { kAlways, kFirst, kNever };

struct MetaspaceSettings {
  std::string replacement;  // one character, mostly U+2581
  PrependScheme scheme = PrependScheme::kAlways;
  bool split = true;
};

Result<MetaspaceSettings> read_metaspace(const JsonView& spec);

}  // namespace switchyard
