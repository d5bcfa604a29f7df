// Normalizers of tokenizer.json, see normalizer.h. Any thread.
#include "engine/tokenizer/normalizer.h"

#include <vector>

#include <utf8proc.h>

#include "engine/base/text.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/limits.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/precompiled.h"
#include "engine/tokenizer/unicode_classes.h"
#include "engine/tokenizer/unicode_form.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

void append_character(char32_t code, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

// Rewrites character by character: rewrite(code, out) appends what takes its place, perhaps nothing. What is
// dropped at the front takes the start of the text with it.
template <class Rewrite>
void rewrite_characters(Text& text, const Rewrite& rewrite) {
  std::string out;
  out.reserve(text.text.size());
  size_t origin = 0;
  for (size_t at = 0; at < text.text.size();) {
    const Character c = first_character(std::string_view(text.text).substr(at));
    rewrite(c.code, out);
    at += c.length;
    if (at <= text.origin) origin = out.size();
  }
  text = {std::move(out), origin};
}

class Form final : public Normalizer {
 public:
  explicit Form(UnicodeForm form) : form_(form) {}
  Result<void> normalize(Text& text) const override {
    const size_t origin = text.first() ? to_unicode_form(text.text.substr(0, text.origin), form_).size() : 0;
    text.text = to_unicode_form(text.text, form_);
    text.origin = std::min(origin, text.text.size());
    return check_grown(text.text.size());
  }

 private:
  UnicodeForm form_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string what) : what_(std::move(what)) {}
  Result<void> normalize(Text& text) const override {
    if (text.text.empty()) return {};
    text.prepend(what_);
    return check_grown(text.text.size());
  }

 private:
  std::string what_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Result<void> normalize(Text& text) const override {
    SY_TRY(const std::vector<Span> matches, text.text.empty() ? std::vector<Span>() : pattern_.find_all(text.text));
    if (matches.empty()) return {};
    std::string out;
    size_t at = 0, origin = 0;
    // What takes the place of a match stands where the match ended.
    const auto copy = [&](size_t end) {
      out.append(text.text, at, end - at);
      if (at < text.origin) origin = out.size() - (end - std::min(end, text.origin));
      at = end;
    };
    for (const Span& match : matches) {
      copy(match.begin);
      out.append(content_);
      SY_CHECK(check_grown(out.size()));
      if (match.end <= text.origin || match.end == 0) origin = text.first() ? out.size() : 0;
      at = match.end;
    }
    copy(text.text.size());
    text = {std::move(out), origin};
    return {};
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Result<void> normalize(Text& text) const override {
    const size_t begin = left_ ? leading_whitespace(text.text) : 0;
    const size_t end = text.text.size() - (right_ ? trailing_whitespace(text.text) : 0);
    text = begin < end ? text.slice(begin, end) : Text{};
    return {};
  }

 private:
  bool left_, right_;
};

class StripAccents final : public Normalizer {
 public:
  Result<void> normalize(Text& text) const override {
    rewrite_characters(text, [](char32_t c, std::string& out) {
      if (!is_mark(c)) append_character(c, out);
    });
    return {};
  }
};

class Lowercase final : public Normalizer {
 public:
  Result<void> normalize(Text& text) const override {
    rewrite_characters(text, [](char32_t c, std::string& out) {
      if (c == 0x130)
        out += "i\xCC\x87";  // the one character whose lower case is two, whatever stands around it
      else
        append_character(to_lower(c), out);
    });
    return {};
  }
};

// SentencePiece's own list of control characters and spaces.
class Nmt final : public Normalizer {
 public:
  Result<void> normalize(Text& text) const override {
    rewrite_characters(text, [](char32_t c, std::string& out) {
      if ((c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return;
      const bool space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                         c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      append_character(space ? U' ' : c, out);
    });
    return {};
  }
};

class PrecompiledMap final : public Normalizer {
 public:
  explicit PrecompiledMap(Precompiled map) : map_(std::move(map)) {}
  Result<void> normalize(Text& text) const override { return map_.normalize(text); }

 private:
  Precompiled map_;
};

class ByteLevelNormalizer final : public Normalizer {
 public:
  Result<void> normalize(Text& text) const override {
    const size_t origin = to_byte_level(text.text.substr(0, text.origin)).size();
    text = {to_byte_level(text.text), origin};
    return {};
  }
  bool byte_level() const override { return true; }
};

class NormalizerSequence final : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  Result<void> normalize(Text& text) const override {
    for (const auto& step : steps_) SY_CHECK(step->normalize(text));
    return {};
  }
  bool byte_level() const override {
    return std::any_of(steps_.begin(), steps_.end(), [](const auto& step) { return step->byte_level(); });
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

using Made = Result<std::unique_ptr<Normalizer>>;

Made make_replace(const JsonView& spec) {
  SY_TRY(Regex pattern, read_pattern(spec));
  SY_TRY(std::string content, spec.text("content"));
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}

Made make_sequence(const JsonView& spec) {
  SY_TRY(const auto specs, spec.array("normalizers"));
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (const JsonView& step : specs) {
    SY_TRY(auto made, make_normalizer(step));
    steps.push_back(std::move(made));
  }
  return std::make_unique<NormalizerSequence>(std::move(steps));
}

}  // namespace

Result<std::unique_ptr<Normalizer>> make_normalizer(const JsonView& spec) {
  SY_TRY(const std::string type, spec.text("type"));
  if (type == "Sequence") return make_sequence(spec);
  if (type == "NFC") return std::make_unique<Form>(UnicodeForm{false, true});
  if (type == "NFD") return std::make_unique<Form>(UnicodeForm{false, false});
  if (type == "NFKC") return std::make_unique<Form>(UnicodeForm{true, true});
  if (type == "NFKD") return std::make_unique<Form>(UnicodeForm{true, false});
  if (type == "Replace") return make_replace(spec);
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "ByteLevel") return std::make_unique<ByteLevelNormalizer>();
  if (type == "Prepend") {
    SY_TRY(std::string what, spec.text("prepend"));
    return std::make_unique<Prepend>(std::move(what));
  }
  if (type == "Strip") {
    SY_TRY(const bool left, spec.boolean("strip_left"));
    SY_TRY(const bool right, spec.boolean("strip_right"));
    return std::make_unique<Strip>(left, right);
  }
  if (type == "Precompiled") {
    SY_TRY(Precompiled map, Precompiled::read(spec));
    return std::make_unique<PrecompiledMap>(std::move(map));
  }
  return spec.fail("is of type " + quote(type) +
                   ", which this reader does not support (Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, "
                   "StripAccents, Lowercase, Precompiled, Nmt, ByteLevel).");
}

}  // namespace switchyard
