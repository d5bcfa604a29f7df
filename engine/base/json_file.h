// A file of numbers that a command or a study reads: JSON of at most 256 MiB and 20 million values. Any thread.
#pragma once

#include <string>

#include "engine/base/json.h"

namespace switchyard {

// kNotFound: it cannot be read; kMalformed: it is no JSON object of schema 1 (a missing "schema" counts as 1).
Result<Json> read_json_file(const std::string& file);

}  // namespace switchyard
