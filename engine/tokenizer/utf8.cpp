// UTF-8 helpers of the tokenizer, see utf8.h. Any thread.
#include "engine/tokenizer/utf8.h"

#include <cstdint>

#include "engine/tokenizer/unicode_classes.h"

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
