// The alphabet of byte-level models, see byte_level.h. Any thread.
#include "engine/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

namespace switchyard {
namespace {

struct Alphabet {
  std::array<uint16_t, 256> character{};  // of a byte
  std::array<int16_t, 0x144> byte{};      // of a character below U+0144, -1: none

  constexpr Alphabet() {
    byte.fill(-1);
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      character[b] = itself ? static_cast<uint16_t>(b) : next++;
      byte[character[b]] = static_cast<int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::string to_byte_level(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) {
    const uint16_t c = kAlphabet.character[static_cast<uint8_t>(b)];
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      out += static_cast<char>(0xC0 | (c >> 6));
      out += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return out;
}

std::string from_byte_level(std::string_view piece) {
  std::string out;
  out.reserve(piece.size());
  for (size_t at = 0; at < piece.size();) {
    const auto lead = static_cast<uint8_t>(piece[at]);
    unsigned code = lead;
    size_t length = 1;
    if (lead >= 0x80) {
      if (lead >= 0xE0 || at + 1 >= piece.size()) return std::string(piece);
      code = (lead & 0x1Fu) << 6 | (static_cast<uint8_t>(piece[at + 1]) & 0x3Fu);
      length = 2;
    }
    if (code >= kAlphabet.byte.size() || kAlphabet.byte[code] < 0) return std::string(piece);
    out += static_cast<char>(kAlphabet.byte[code]);
    at += length;
  }
  return out;
}

}  // namespace switchyard
