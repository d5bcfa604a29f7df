// Streaming UTF-8 and the symbols for what cannot be seen. Any thread.
#include "app/session/token_text.h"

#include <cstdint>
#include <cstdio>

namespace switchyard {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";

struct Decoded {
  uint32_t code = 0;
  int length = 0;  // bytes taken; 0: more bytes are needed
  bool valid = true;
};

// One character of UTF-8 (RFC 3629: no surrogates, no overlong forms).
Decoded decode(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                     : lead >= 0xE0 && lead <= 0xEF ? 3
                     : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                    : 0;
  if (length == 0) return {0, 1, false};
  uint32_t code = lead & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    if (size_t(i) >= bytes.size()) return {0, 0};
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1 && lead == 0xE0) low = 0xA0;
    if (i == 1 && lead == 0xED) high = 0x9F;
    if (i == 1 && lead == 0xF0) low = 0x90;
    if (i == 1 && lead == 0xF4) high = 0x8F;
    if (byte(i) < low || byte(i) > high) return {0, i, false};
    code = code << 6 | (byte(i) & 0x3F);
  }
  return {code, length};
}

bool is_invisible(uint32_t code) {
  return (code >= 0x80 && code < 0xA0) || code == 0xAD || code == 0x61C || code == 0x180E ||
         (code >= 0x200B && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2060 && code <= 0x206F) || code == 0xFEFF || (code >= 0xFFF9 && code <= 0xFFFB) ||
         (code >= 0xE0000 && code <= 0xE007F);
}

// U+2400 + c is the symbol of control character c.
std::string control_picture(uint32_t code) {
  const uint32_t symbol = code == 0x7F ? 0x2421 : 0x2400 + code;
  return {char(0xE0 | symbol >> 12), char(0x80 | (symbol >> 6 & 0x3F)), char(0x80 | (symbol & 0x3F))};
}

std::string hex(std::string_view bytes) {
  std::string out = "<";
  for (const char c : bytes) {
    char text[4];
    std::snprintf(text, sizeof text, "%s%02X", out.size() > 1 ? " " : "", static_cast<uint8_t>(c));
    out += text;
  }
  return out + ">";
}

}  // namespace

std::string printable(std::string_view utf8, bool keep_newlines) {
  std::string out;
  for (size_t at = 0; at < utf8.size();) {
    const Decoded c = decode(utf8.substr(at));
    const size_t taken = c.length == 0 ? utf8.size() - at : size_t(c.length);
    if (c.length == 0 || !c.valid) {
      out += kReplacement;
    } else if (c.code == '\n') {
      out += keep_newlines ? "\n" : "↵";
    } else if (c.code == '\t') {
      out += "⇥";
    } else if (c.code < 0x20 || c.code == 0x7F) {
      out += control_picture(c.code);
    } else if (is_invisible(c.code)) {
      char text[16];
      std::snprintf(text, sizeof text, "<U+%04X>", c.code);
      out += text;
    } else {
      out += utf8.substr(at, taken);
    }
    at += taken;
  }
  return out;
}

TokenText TokenTextBuilder::push(TokenId id) {
  if (!tokenizer_) {
    const std::string number = "#" + std::to_string(id);
    return {number, number};
  }
  if (tokenizer_->is_special(id)) {
    const std::string piece = printable(tokenizer_->piece(id));
    const std::string lost = pending_.empty() ? "" : std::string(kReplacement);
    pending_.clear();
    return {lost + piece, lost + piece};
  }
  const std::string bytes = tokenizer_->bytes(id);
  pending_ += bytes;
  std::string complete;
  while (!pending_.empty()) {
    const Decoded c = decode(pending_);
    if (c.length == 0) break;
    if (c.valid)
      complete += pending_.substr(0, c.length);
    else
      complete += kReplacement;
    pending_.erase(0, c.length);
  }
  if (complete.empty()) return {"", bytes.empty() ? "#" + std::to_string(id) : hex(bytes)};
  return {printable(complete, true), printable(complete)};
}

}  // namespace switchyard
