// See sinks.h.
#include "engine/base/sinks.h"

#include <cstdint>

#include <fmt/format.h>

namespace switchyard {
namespace {

bool is_hidden(char32_t c) {
  if (c < 0x20) return c != '\n' && c != '\t';
  return (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x180e || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) || (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe ||
         (c >= 0xe0000 && c <= 0xe0fff);
}

const char* letter(char32_t c) {
  switch (c) {
    case 0xb7: return "\\ensuremath{\\cdot}";
    case 0xd7: return "\\ensuremath{\\times}";
    case 0xb1: return "\\ensuremath{\\pm}";
    case 0xb5: case 0x3bc: return "\\ensuremath{\\mu}";
    case 0x394: return "\\ensuremath{\\Delta}";
    case 0x3c1: return "\\ensuremath{\\rho}";
    case 0x2013: return "--";
    case 0x2014: return "---";
    case 0x2018: return "`";
    case 0x2019: return "'";
    case 0x201c: return "``";
    case 0x201d: return "''";
    case 0x2022: return "\\textbullet{}";
    case 0x2026: return "\\ldots{}";
    case 0x2190: return "\\ensuremath{\\leftarrow}";
    case 0x2192: return "\\ensuremath{\\rightarrow}";
    case 0x2212: return "\\ensuremath{-}";
    case 0x2264: return "\\ensuremath{\\leq}";
    case 0x2265: return "\\ensuremath{\\geq}";
    case 0xa0: return "~";
    default: return nullptr;
  }
}

}  // namespace

char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t first = byte(at++);
  if (first < 0x80) return first;
  const int more = first >= 0xf0 && first < 0xf5 ? 3 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xc2 && first < 0xe0 ? 1 : 0;
  if (more == 0 || at + size_t(more) > text.size()) return 0xfffd;
  char32_t code = first & (0x3f >> more);
  for (int i = 0; i < more; ++i) {
    if ((byte(at + size_t(i)) & 0xc0) != 0x80) return 0xfffd;
    code = code << 6 | (byte(at + size_t(i)) & 0x3f);
  }
  const bool fits = code >= (more == 1 ? 0x80u : more == 2 ? 0x800u : 0x10000u) && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  if (!fits) return 0xfffd;
  at += size_t(more);
  return code;
}

std::string shown_text(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    const size_t from = at;
    const char32_t c = next_character(bytes, at);
    if (c == 0xfffd) out += "\xef\xbf\xbd";
    else if (is_hidden(c)) out += fmt::format("[U+{:04X}]", uint32_t(c));
    else out += bytes.substr(from, at - from);
  }
  return out;
}

std::string xml_text(std::string_view shown) {
  std::string out;
  for (const char c : shown) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string latex_text(std::string_view given) {
  const std::string text = shown_text(given);
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    const auto byte = uint8_t(text[at]);
    if (byte < 0x80) {
      switch (text[at]) {
        case '\\': out += "\\textbackslash{}"; break;
        case '~': out += "\\textasciitilde{}"; break;
        case '^': out += "\\textasciicircum{}"; break;
        case '<': out += "\\textless{}"; break;
        case '>': out += "\\textgreater{}"; break;
        case '|': out += "\\textbar{}"; break;
        case '"': out += "\\char34{}"; break;
        // No ligatures: two hyphens of a command stay two.
        case '-': out += "-{}"; break;
        case '`': out += "\\char96{}"; break;
        case '\'': out += "'{}"; break;
        case '[': out += "{[}"; break;  // not an argument of what stands before
        case ']': out += "{]}"; break;
        case '*': out += "{*}"; break;
        case '\n': case '\t': out += ' '; break;
        default:
          if (std::string_view("&%$#_{}").find(text[at]) != std::string_view::npos) out += '\\';
          out += text[at];
      }
      continue;
    }
    const int more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
    char32_t c = byte & (0x3f >> more);
    for (int i = 0; i < more; ++i) c = c << 6 | (uint8_t(text[++at]) & 0x3f);
    if (const char* known = letter(c)) out += known;
    else if ((c >= 0xc0 && c <= 0xff && c != 0xd0 && c != 0xde && c != 0xf0 && c != 0xfe) || c == 0xa1 || c == 0xa7 || c == 0xa9 || c == 0xbf) out += text.substr(at - size_t(more), size_t(more) + 1);
    else out += fmt::format("{{[}}U+{:04X}{{]}}", uint32_t(c));
  }
  return out;
}

std::string markdown_text(std::string_view text) {
  const std::string shown = shown_text(text);
  const auto is_word = [&](size_t i) {
    const auto c = i < shown.size() ? uint8_t(shown[i]) : uint8_t(' ');
    return c >= 0x80 || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  };
  std::string out;
  for (size_t i = 0; i < shown.size(); ++i) {
    const char c = shown[i];
    // An entity begins with & and a letter or #; an underscore inside a word is no emphasis.
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&' && (is_word(i + 1) || (i + 1 < shown.size() && shown[i + 1] == '#'))) out += "&amp;";
    else if (c == '\n' || c == '\t') out += ' ';
    else {
      if (std::string_view("\\`*[]|~").find(c) != std::string_view::npos || (c == '_' && !(i > 0 && is_word(i - 1) && is_word(i + 1)))) out += '\\';
      out += c;
    }
  }
  return out;
}

std::string csv_text(const std::string& text, bool is_text) {
  const bool runs = is_text && !text.empty() && std::string_view("=+-@\t\r").find(text[0]) != std::string_view::npos;
  const std::string safe = runs ? "'" + text : text;
  if (safe.find_first_of(",\"\r\n") == std::string::npos) return safe;
  std::string quoted = "\"";
  for (const char c : safe) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace switchyard
