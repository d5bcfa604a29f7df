// UTF-8 as the `tokenizers` package sees it: lossy decoding by maximal subparts (Unicode 15, section 3.9,
// the practice of Rust's String::from_utf8_lossy) and the two character classes of added tokens.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// Appends `bytes` to `out`, every invalid sequence as one U+FFFD. Returns the bytes consumed: all of them
// when `final`, else all but a tail that more bytes may still complete.
size_t append_lossy(std::string_view bytes, bool final, std::string& out);

std::string lossy_utf8(std::string_view bytes);  // valid input comes back unchanged

// Length in bytes of the character at the start of valid, non-empty UTF-8.
size_t character_length(std::string_view valid_text);

// \w and \s of Rust's regex crate (UTS 18), by which added tokens look at their neighbours.
bool starts_with_word_character(std::string_view valid_text);
bool ends_with_word_character(std::string_view valid_text);
size_t leading_whitespace(std::string_view valid_text);   // bytes
size_t trailing_whitespace(std::string_view valid_text);  // bytes

}  // namespace switchyard
