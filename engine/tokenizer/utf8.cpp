// UTF-8 helpers of the tokenizer, see utf8.h. Any thread.
#include "engine/tokenizer/utf8.h"

#include <utf8proc.h>

#include <cstdint>

namespace switchyard {
namespace {

enum class Sequence { kValid, kInvalid, kTruncated };
struct Step {
  size_t length;
  Sequence kind;
};

// The well-formed sequences of Unicode table 3-7; an ill-formed one is cut after its maximal subpart.
Step next_sequence(std::string_view bytes) {
  const auto lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {1, Sequence::kValid};
  size_t length = 0;
  uint8_t low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF)
    length = 2;
  else if (lead >= 0xE0 && lead <= 0xEF)
    length = 3;
  else if (lead >= 0xF0 && lead <= 0xF4)
    length = 4;
  else
    return {1, Sequence::kInvalid};
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {i, Sequence::kTruncated};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    if (byte < low || byte > high) return {i, Sequence::kInvalid};
    low = 0x80;
    high = 0xBF;
  }
  return {length, Sequence::kValid};
}

struct Character {
  char32_t code;
  size_t length;
};

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

// White_Space of PropList.txt.
bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// UTS 18 \w: Alphabetic, marks, decimal digits, connector punctuation, join controls. Alphabetic beyond
// letters, marks and letter numbers is Other_Alphabetic: marks, and the circled letters of category So.
bool is_word(char32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
      (c >= 0x1F170 && c <= 0x1F189))
    return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

}  // namespace

size_t append_lossy(std::string_view bytes, bool final, std::string& out) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Step step = next_sequence(bytes.substr(at));
    if (step.kind == Sequence::kTruncated && !final) break;
    if (step.kind == Sequence::kValid)
      out.append(bytes.substr(at, step.length));
    else
      out.append(kReplacementCharacter);
    at += step.length;
  }
  return at;
}

std::string lossy_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  append_lossy(bytes, true, out);
  return out;
}

size_t character_length(std::string_view text) {
  return next_sequence(text).length;
}

bool starts_with_word_character(std::string_view text) {
  return !text.empty() && is_word(first_character(text).code);
}
bool ends_with_word_character(std::string_view text) {
  return !text.empty() && is_word(last_character(text).code);
}

size_t leading_whitespace(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Character c = first_character(text.substr(at));
    if (!is_whitespace(c.code)) break;
    at += c.length;
  }
  return at;
}

size_t trailing_whitespace(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const Character c = last_character(text.substr(0, end));
    if (!is_whitespace(c.code)) break;
    end -= c.length;
  }
  return text.size() - end;
}

}  // namespace switchyard
