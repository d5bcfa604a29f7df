// The "pattern" of Split and Replace: {"String": text} or {"Regex": expression}. Any thread.
#pragma once

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/regex.h"

namespace switchyard {

// spec: the object that has the member "pattern".
Result<Regex> read_pattern(const JsonView& spec);

// Every match of `pattern` in `text` exchanged for `content`; at most 256 MiB of result.
Result<std::string> replace_all(std::string_view text, const Regex& pattern, std::string_view content);

}  // namespace switchyard
