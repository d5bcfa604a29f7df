// SentencePiece's compiled replacements, see precompiled.h. Any thread.
#include "engine/tokenizer/precompiled.h"

#include <array>

#include <utf8proc.h>

#include "engine/tokenizer/limits.h"
#include "engine/tokenizer/unicode_classes.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxCluster = 5;  // bytes; longer clusters are taken character by character

// Standard alphabet, padding required, nothing else allowed.
std::optional<std::string> from_base64(std::string_view text) {
  static constexpr auto kValues = [] {
    std::array<int8_t, 256> values{};
    values.fill(-1);
    constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < kAlphabet.size(); ++i) values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int8_t>(i);
    return values;
  }();
  if (text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (size_t at = 0; at < text.size(); at += 4) {
    const size_t digits = at + 4 == text.size() ? 4 - padding : 4;
    uint32_t group = 0;
    for (size_t i = 0; i < 4; ++i) {
      const int8_t value = i < digits ? kValues[static_cast<uint8_t>(text[at + i])] : int8_t{0};
      if (value < 0) return std::nullopt;
      group = group << 6 | static_cast<uint32_t>(value);
    }
    for (size_t i = 0; i + 1 < digits; ++i) bytes += static_cast<char>(group >> (16 - 8 * i) & 0xFF);
  }
  return bytes;
}

uint32_t little_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// Units of a double array as darts-clone packs them.
bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset_of(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

// Marks that came after utf8proc's Unicode 15 and that fit into a short cluster.
bool is_late_mark(char32_t c) { return c == 0x897 || (c >= 0x1ACF && c <= 0x1ADD) || (c >= 0x1AE0 && c <= 0x1AEB); }

// Bytes of the extended grapheme cluster at the start of a text.
size_t cluster_length(std::string_view text) {
  Character previous = first_character(text);
  utf8proc_int32_t state = 0;
  size_t length = previous.length;
  while (length < text.size()) {
    const Character next = first_character(text.substr(length));
    const char32_t as = is_late_mark(next.code) ? U'\u0301' : next.code;
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous.code), static_cast<utf8proc_int32_t>(as), &state))
      break;
    length += next.length;
    previous = {as, next.length};
  }
  return length;
}

}  // namespace

Result<Precompiled> Precompiled::read(const JsonView& spec) {
  SY_TRY(const JsonView member, spec.at("precompiled_charsmap"));
  SY_TRY(const std::string text, member.as_text());
  const std::optional<std::string> data = from_base64(text);
  if (!data) return member.fail("is not valid base64.");
  if (data->size() < 4) return member.fail("has " + std::to_string(data->size()) + " bytes; a table needs at least 4.");
  const size_t units = little_endian(*data) / 4;
  if (units == 0 || units > (data->size() - 4) / 4)
    return member.fail("declares a trie of " + std::to_string(units) + " units and has room for " +
                       std::to_string((data->size() - 4) / 4) + ".");
  Precompiled made;
  made.trie_.reserve(units);
  for (size_t i = 0; i < units; ++i) made.trie_.push_back(little_endian(std::string_view(*data).substr(4 + 4 * i, 4)));
  made.replacements_ = data->substr(4 + 4 * units);
  if (lossy_utf8(made.replacements_) != made.replacements_) return member.fail("has replacements that are not UTF-8.");
  return made;
}

std::optional<std::string_view> Precompiled::replacement(std::string_view chunk) const {
  uint32_t node = offset_of(trie_[0]);
  for (const char character : chunk) {
    const auto byte = static_cast<uint8_t>(character);
    if (byte == 0) break;
    node ^= byte;
    if (node >= trie_.size() || label_of(trie_[node]) != byte) return std::nullopt;
    const uint32_t unit = trie_[node];
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (node >= trie_.size()) return std::nullopt;
    const size_t begin = value_of(trie_[node]);
    if (begin > replacements_.size()) return std::nullopt;
    // A damaged table may point into the middle of a character.
    if (begin < replacements_.size() && (static_cast<uint8_t>(replacements_[begin]) & 0xC0) == 0x80) return std::nullopt;
    const size_t end = std::min(replacements_.find('\0', begin), replacements_.size());
    return std::string_view(replacements_).substr(begin, end - begin);
  }
  return std::nullopt;
}

Result<void> Precompiled::normalize(Text& text) const {
  const std::string_view in = text.text;
  std::string out;
  out.reserve(in.size());
  size_t origin = 0;
  const auto take = [&](size_t at, std::string_view what) -> Result<void> {
    out.append(what);
    if (at < text.origin) origin = out.size();
    return check_grown(out.size());
  };
  for (size_t at = 0; at < in.size();) {
    const size_t length = cluster_length(in.substr(at));
    const auto whole = length <= kMaxCluster ? replacement(in.substr(at, length)) : std::nullopt;
    if (whole) {
      SY_CHECK(take(at, *whole));
      at += length;
      continue;
    }
    for (const size_t end = at + length; at < end;) {
      const std::string_view character = in.substr(at, character_length(in.substr(at)));
      SY_CHECK(take(at, replacement(character).value_or(character)));
      at += character.size();
    }
  }
  text = {std::move(out), origin};
  return {};
}

}  // namespace switchyard
