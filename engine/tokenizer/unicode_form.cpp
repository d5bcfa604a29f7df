// Unicode normalization, see unicode_form.h. Any thread.
#include "engine/tokenizer/unicode_form.h"

#include <algorithm>
#include <array>
#include <vector>

#include <utf8proc.h>

#include "engine/tokenizer/unicode_classes.h"

namespace switchyard {
namespace {

std::vector<utf8proc_int32_t> decompose(std::string_view text, bool compatibility) {
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatibility ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  std::array<utf8proc_int32_t, 64> parts;  // the longest decomposition, U+FDFA, has 18
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t code = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &code);
    int boundary = 0;
    const auto count = utf8proc_decompose_char(code, parts.data(), parts.size(), options, &boundary);
    codes.insert(codes.end(), parts.begin(), parts.begin() + std::clamp<utf8proc_ssize_t>(count, 0, parts.size()));
    at += static_cast<size_t>(std::max<utf8proc_ssize_t>(length, 1));
  }
  return codes;
}

// A stable sort of each run of combining marks by class; utf8proc's own reordering is quadratic in the run.
void order_marks(std::vector<utf8proc_int32_t>& codes) {
  const auto combining_class = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
  for (auto run = codes.begin(); run != codes.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, codes.end(), [&](auto code) { return combining_class(code) == 0; });
    std::stable_sort(run, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
}

std::string encode(const std::vector<utf8proc_int32_t>& codes) {
  std::string out;
  out.reserve(codes.size() * 2);
  utf8proc_uint8_t bytes[4];
  for (const auto code : codes)
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(utf8proc_encode_char(code, bytes)));
  return out;
}

// One stretch of text without characters that stay as they are.
void append_form(std::string_view text, UnicodeForm form, std::string& out) {
  std::vector<utf8proc_int32_t> codes = decompose(text, form.compatibility);
  order_marks(codes);
  if (form.compose) {
    const auto length = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    codes.resize(static_cast<size_t>(std::max<utf8proc_ssize_t>(length, 0)));
  }
  out += encode(codes);
}

}  // namespace

std::string to_unicode_form(std::string_view text, UnicodeForm form) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return std::string(text);
  std::string out;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = first_character(text.substr(at));
    if (c.code >= 0x80 && is_unnormalized(c.code)) {
      append_form(text.substr(begin, at - begin), form, out);
      out.append(text.substr(at, c.length));
      begin = at + c.length;
    }
    at += c.length;
  }
  append_form(text.substr(begin), form, out);
  return out;
}

}  // namespace switchyard
