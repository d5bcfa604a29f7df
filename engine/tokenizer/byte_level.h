// The alphabet of byte-level models (GPT-2): every byte as one printable character. Bytes 0x21-0x7E,
// 0xA1-0xAC and 0xAE-0xFF stand for themselves, the other 68 in order for U+0100 + n. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

std::string to_byte_level(std::string_view bytes);
// The bytes of a piece; a piece with any character outside the alphabet contributes its own UTF-8.
std::string from_byte_level(std::string_view piece);

}  // namespace switchyard
