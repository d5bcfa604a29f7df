// Pre-tokenizers of tokenizer.json, see pre_tokenizer.h. Any thread.
#include "engine/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <functional>

#include "engine/base/text.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/metaspace.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/split.h"
#include "engine/tokenizer/unicode_classes.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// The expression GPT-2 cuts by (families.md, section 3.1, regex G).
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Cuts at what a finder calls delimiters: the matches of an expression or the characters of a class.
class Split final : public PreTokenizer {
 public:
  using Finder = std::function<Result<std::vector<Span>>(std::string_view)>;
  Split(Finder find, SplitBehavior behavior, bool invert = false)
      : find_(std::move(find)), behavior_(behavior), invert_(invert) {}

  Result<void> cut(std::vector<Text>& pieces) const override {
    std::vector<Text> finer;
    for (const Text& piece : pieces) {
      SY_TRY(const std::vector<Span> delimiters, find_(piece.text));
      for (const Span& span : cut_at(piece.text.size(), delimiters, behavior_, invert_))
        finer.push_back(piece.slice(span.begin, span.end));
    }
    pieces = std::move(finer);
    return {};
  }

 private:
  Finder find_;
  SplitBehavior behavior_;
  bool invert_;
};

Split::Finder matches_of(Regex regex) {
  return [regex = std::move(regex)](std::string_view text) { return regex.find_all(text); };
}

Split::Finder characters_of(std::function<bool(char32_t)> is_member) {
  return [is_member = std::move(is_member)](std::string_view text) -> Result<std::vector<Span>> {
    return find_characters(text, is_member);
  };
}

// Runs of word characters, and runs of what is neither word nor space: \w+|[^\w\s]+
Result<std::vector<Span>> find_words(std::string_view text) {
  std::vector<Span> words;
  int previous = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = first_character(text.substr(at));
    const int kind = is_word(c.code) ? 1 : is_whitespace(c.code) ? 0 : 2;
    if (kind != 0 && kind == previous)
      words.back().end = at + c.length;
    else if (kind != 0)
      words.push_back({at, at + c.length});
    previous = kind;
    at += c.length;
  }
  return words;
}

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Split> gpt2)
      : add_prefix_space_(add_prefix_space), gpt2_(std::move(gpt2)) {}

  Result<void> cut(std::vector<Text>& pieces) const override {
    if (add_prefix_space_)
      for (Text& piece : pieces)
        if (!piece.text.starts_with(' ')) piece.prepend(" ");
    if (gpt2_) SY_CHECK(gpt2_->cut(pieces));
    for (Text& piece : pieces) piece = {to_byte_level(piece.text), to_byte_level(piece.text.substr(0, piece.origin)).size()};
    return {};
  }
  bool byte_level() const override { return true; }

 private:
  bool add_prefix_space_;
  std::optional<Split> gpt2_;
};

class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(MetaspaceSettings settings) : settings_(std::move(settings)) {}

  Result<void> cut(std::vector<Text>& pieces) const override {
    std::vector<Text> finer;
    for (Text& piece : pieces) {
      replace_spaces(piece);
      const bool wanted =
          settings_.scheme == PrependScheme::kAlways || (settings_.scheme == PrependScheme::kFirst && piece.first());
      if (wanted && !piece.text.starts_with(settings_.replacement)) piece.prepend(settings_.replacement);
      if (!settings_.split) {
        finer.push_back(std::move(piece));
        continue;
      }
      for (const Span& span : cut_at(piece.text.size(), marks(piece.text), SplitBehavior::kMergedWithNext))
        finer.push_back(piece.slice(span.begin, span.end));
    }
    pieces = std::move(finer);
    return {};
  }

 private:
  void replace_spaces(Text& piece) const {
    std::string out;
    out.reserve(piece.text.size());
    for (const char c : piece.text) {
      if (c == ' ')
        out += settings_.replacement;
      else
        out += c;
    }
    if (piece.first() && piece.text.starts_with(' ')) piece.origin += settings_.replacement.size() - 1;
    piece.text = std::move(out);
  }

  std::vector<Span> marks(const std::string& text) const {
    std::vector<Span> found;
    for (size_t at = text.find(settings_.replacement); at != std::string::npos;
         at = text.find(settings_.replacement, at + settings_.replacement.size()))
      found.push_back({at, at + settings_.replacement.size()});
    return found;
  }

  MetaspaceSettings settings_;
};

// Pieces of so many characters, the last one perhaps shorter.
class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(size_t length) : length_(length) {}
  Result<void> cut(std::vector<Text>& pieces) const override {
    std::vector<Text> finer;
    for (const Text& piece : pieces) {
      for (size_t begin = 0; begin < piece.text.size();) {
        size_t end = begin;
        for (size_t i = 0; i < length_ && end < piece.text.size(); ++i)
          end += character_length(std::string_view(piece.text).substr(end));
        finer.push_back(piece.slice(begin, end));
        begin = end;
      }
    }
    pieces = std::move(finer);
    return {};
  }

 private:
  size_t length_;
};

class PreTokenizerSequence final : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  Result<void> cut(std::vector<Text>& pieces) const override {
    for (const auto& step : steps_) SY_CHECK(step->cut(pieces));
    return {};
  }
  bool byte_level() const override {
    return std::any_of(steps_.begin(), steps_.end(), [](const auto& step) { return step->byte_level(); });
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

using Made = Result<std::unique_ptr<PreTokenizer>>;

Made make_split(const JsonView& spec) {
  SY_TRY(Regex regex, read_pattern(spec));
  SY_TRY(const SplitBehavior behavior, read_behavior(spec));
  SY_TRY(const bool invert, spec.boolean_or("invert", false));
  return std::make_unique<Split>(matches_of(std::move(regex)), behavior, invert);
}

Made make_byte_level(const JsonView& spec) {
  SY_TRY(const bool add_prefix_space, spec.boolean_or("add_prefix_space", true));
  SY_TRY(const bool use_regex, spec.boolean_or("use_regex", true));
  std::optional<Split> gpt2;
  if (use_regex) {
    SY_TRY(Regex regex, Regex::compile(kGpt2, spec.document() + ": " + spec.path()));
    gpt2.emplace(matches_of(std::move(regex)), SplitBehavior::kIsolated);
  }
  return std::make_unique<ByteLevel>(add_prefix_space, std::move(gpt2));
}

Made make_digits(const JsonView& spec) {
  SY_TRY(const bool individual, spec.boolean_or("individual_digits", false));
  return std::make_unique<Split>(characters_of(is_numeric),
                                 individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

Made make_punctuation(const JsonView& spec) {
  SplitBehavior behavior = SplitBehavior::kIsolated;
  if (spec.has("behavior")) {
    SY_TRY(behavior, read_behavior(spec));
  }
  return std::make_unique<Split>(characters_of(is_punctuation), behavior);
}

Made make_delimiter(const JsonView& spec) {
  SY_TRY(const JsonView delimiter, spec.at("delimiter"));
  SY_TRY(const std::string text, delimiter.as_text());
  if (text.empty() || character_length(text) != text.size())
    return delimiter.fail("is " + quote(text) + ", needs one character.");
  const char32_t wanted = first_character(text).code;
  return std::make_unique<Split>(characters_of([wanted](char32_t c) { return c == wanted; }), SplitBehavior::kRemoved);
}

Made make_bert() {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(std::make_unique<Split>(characters_of(is_whitespace), SplitBehavior::kRemoved));
  steps.push_back(std::make_unique<Split>(characters_of(is_punctuation), SplitBehavior::kIsolated));
  return std::make_unique<PreTokenizerSequence>(std::move(steps));
}

Made make_sequence(const JsonView& spec) {
  SY_TRY(const auto specs, spec.array("pretokenizers"));
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (const JsonView& step : specs) {
    SY_TRY(auto made, make_pre_tokenizer(step));
    steps.push_back(std::move(made));
  }
  return std::make_unique<PreTokenizerSequence>(std::move(steps));
}

}  // namespace

Result<std::unique_ptr<PreTokenizer>> make_pre_tokenizer(const JsonView& spec) {
  SY_TRY(const std::string type, spec.text("type"));
  if (type == "Sequence") return make_sequence(spec);
  if (type == "Split") return make_split(spec);
  if (type == "ByteLevel") return make_byte_level(spec);
  if (type == "Digits") return make_digits(spec);
  if (type == "Punctuation") return make_punctuation(spec);
  if (type == "CharDelimiterSplit" || type == "Delimiter") return make_delimiter(spec);
  if (type == "BertPreTokenizer") return make_bert();
  if (type == "WhitespaceSplit")
    return std::make_unique<Split>(characters_of(is_whitespace), SplitBehavior::kRemoved);
  if (type == "Whitespace") return std::make_unique<Split>(find_words, SplitBehavior::kRemoved, true);
  if (type == "FixedLength") {
    SY_TRY(const int64_t length, spec.integer_or("length", 5, 1, int64_t{1} << 24));
    return std::make_unique<FixedLength>(static_cast<size_t>(length));
  }
  if (type == "Metaspace") {
    SY_TRY(MetaspaceSettings settings, read_metaspace(spec));
    return std::make_unique<Metaspace>(std::move(settings));
  }
  return spec.fail("is of type " + quote(type) +
                   ", which this reader does not support (Sequence, Split, ByteLevel, Metaspace, Digits, Whitespace, "
                   "WhitespaceSplit, Punctuation, BertPreTokenizer, Delimiter, FixedLength).");
}

}  // namespace switchyard
