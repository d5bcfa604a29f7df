// Text that came from a file, made safe to show in a message.
// Used wherever an error quotes foreign text; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

// Valid UTF-8 on one line: control characters (C0, DEL, C1) and invalid bytes become \xNN, longer text ends in "...".
std::string printable(std::string_view text, size_t max_bytes = 120);

// The printable form in double quotes.
std::string quote(std::string_view text, size_t max_bytes = 120);

// "12.3 kB", "4.0 MB", "1.25 GB"; decimal units.
std::string bytes_text(uint64_t bytes);

}  // namespace switchyard
