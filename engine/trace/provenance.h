// Where a trace comes from, as hashes. Used inside engine/trace; any thread.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// SHA-256 of bytes, lower-case hex.
std::string sha256_of_text(std::string_view bytes);

}  // namespace switchyard
