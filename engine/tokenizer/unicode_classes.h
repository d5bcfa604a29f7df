// Character classes as the `tokenizers` package sees them (Rust's char, regex and unicode crates).
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace switchyard {

struct Character {
  char32_t code;
  size_t length;  // bytes
};

// The character at the start, or the end, of valid, non-empty UTF-8.
Character first_character(std::string_view text);
Character last_character(std::string_view text);

bool is_whitespace(char32_t c);    // White_Space
bool is_numeric(char32_t c);       // general category N
bool is_word(char32_t c);          // \w of UTS 18
bool is_punctuation(char32_t c);   // ASCII punctuation, or general category P
bool is_mark(char32_t c);          // general category M
bool is_unnormalized(char32_t c);  // newer than the package's normalization forms, which leave it where it is
char32_t to_lower(char32_t c);     // the one-character mapping

}  // namespace switchyard
