// Character classes, see unicode_classes.h. Any thread.
#include "engine/tokenizer/unicode_classes.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

#include "engine/tokenizer/unicode_tables.h"

namespace switchyard {
namespace {

bool is_in(std::span<const CodeRange> ranges, char32_t c) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), c,
                                      [](char32_t code, const CodeRange& range) { return code < range.first; });
  return after != ranges.begin() && c <= std::prev(after)->last;
}

}  // namespace

Character first_character(std::string_view text) {
  utf8proc_int32_t code = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &code);
  return length > 0 ? Character{static_cast<char32_t>(code), static_cast<size_t>(length)} : Character{0xFFFD, 1};
}

Character last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return first_character(text.substr(begin));
}

bool is_whitespace(char32_t c) {  // PropList.txt
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) { return is_in(numeric_ranges(), c); }
bool is_word(char32_t c) { return is_in(word_ranges(), c); }
bool is_punctuation(char32_t c) { return is_in(punctuation_ranges(), c); }
bool is_mark(char32_t c) { return is_in(mark_ranges(), c); }
bool is_unnormalized(char32_t c) { return is_in(unnormalized_ranges(), c); }

char32_t to_lower(char32_t c) {
  const auto added = new_lower_case();
  const auto entry = std::lower_bound(added.begin(), added.end(), c, [](const CodePair& pair, char32_t code) { return pair.from < code; });
  if (entry != added.end() && entry->from == c) return entry->to;
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace switchyard
