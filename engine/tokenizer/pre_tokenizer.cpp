// Pre-tokenizers of tokenizer.json, see pre_tokenizer.h. Any thread.
#include "engine/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "engine/base/text.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/regex.h"

namespace switchyard {
namespace {

// The expression GPT-2 cuts by (families.md, section 3.1, regex G).
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct Part {
  Span span;
  bool delimiter = false;
};

// The whole text as delimiters and what lies between them.
std::vector<Part> parts_of(size_t size, const std::vector<Span>& delimiters) {
  std::vector<Part> parts;
  size_t at = 0;
  for (const Span& span : delimiters) {
    if (span.begin > at) parts.push_back({{at, span.begin}, false});
    parts.push_back({span, true});
    at = span.end;
  }
  if (at < size) parts.push_back({{at, size}, false});
  return parts;
}

// Whether the part after `previous` joins it, reading in the direction of the behaviour.
bool joins(SplitBehavior behavior, bool previous_delimiter, bool delimiter) {
  if (behavior == SplitBehavior::kContiguous) return delimiter == previous_delimiter;
  return delimiter && !previous_delimiter;
}

std::vector<Span> spans_under(SplitBehavior behavior, std::vector<Part> parts) {
  std::vector<Span> spans;
  if (behavior == SplitBehavior::kRemoved || behavior == SplitBehavior::kIsolated) {
    for (const Part& part : parts)
      if (behavior == SplitBehavior::kIsolated || !part.delimiter) spans.push_back(part.span);
    return spans;
  }
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  bool previous = false;
  for (const Part& part : parts) {
    if (joins(behavior, previous, part.delimiter) && !spans.empty())
      (backwards ? spans.back().begin : spans.back().end) = backwards ? part.span.begin : part.span.end;
    else
      spans.push_back(part.span);
    previous = part.delimiter;
  }
  if (backwards) std::reverse(spans.begin(), spans.end());
  return spans;
}

class Split final : public PreTokenizer {
 public:
  Split(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

  Result<void> cut(std::vector<std::string>& pieces) const override {
    std::vector<std::string> finer;
    for (const std::string& piece : pieces) {
      SY_TRY(const std::vector<Span> found, regex_.find_all(piece));
      std::vector<Part> parts = parts_of(piece.size(), found);
      if (invert_)
        for (Part& part : parts) part.delimiter = !part.delimiter;
      for (const Span& span : spans_under(behavior_, std::move(parts)))
        if (span.end > span.begin) finer.push_back(piece.substr(span.begin, span.end - span.begin));
    }
    pieces = std::move(finer);
    return {};
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Split> gpt2)
      : add_prefix_space_(add_prefix_space), gpt2_(std::move(gpt2)) {}

  Result<void> cut(std::vector<std::string>& pieces) const override {
    if (add_prefix_space_)
      for (std::string& piece : pieces)
        if (!piece.starts_with(' ')) piece.insert(piece.begin(), ' ');
    if (gpt2_) SY_CHECK(gpt2_->cut(pieces));
    for (std::string& piece : pieces) piece = to_byte_level(piece);
    return {};
  }

 private:
  bool add_prefix_space_;
  std::optional<Split> gpt2_;
};

class PreTokenizerSequence final : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  Result<void> cut(std::vector<std::string>& pieces) const override {
    for (const auto& step : steps_) SY_CHECK(step->cut(pieces));
    return {};
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

Result<SplitBehavior> read_behavior(const JsonView& spec) {
  SY_TRY(const std::string name, spec.text("behavior"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  SY_TRY(const JsonView behavior, spec.at("behavior"));
  return behavior.fail("is " + quote(name) +
                       ", needs Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous.");
}

Result<Regex> read_pattern(const JsonView& pattern) {
  const std::string where = pattern.document() + ": " + pattern.path();
  if (pattern.has("Regex")) {
    SY_TRY(const std::string text, pattern.text("Regex"));
    return Regex::compile(text, where);
  }
  if (pattern.has("String")) {
    SY_TRY(const std::string text, pattern.text("String"));
    return Regex::literal(text, where);
  }
  return pattern.fail("needs a \"Regex\" or a \"String\".");
}

Result<std::unique_ptr<PreTokenizer>> make_split(const JsonView& spec) {
  SY_TRY(const JsonView pattern, spec.at("pattern"));
  SY_TRY(Regex regex, read_pattern(pattern));
  SY_TRY(const SplitBehavior behavior, read_behavior(spec));
  SY_TRY(const bool invert, spec.boolean_or("invert", false));
  return std::make_unique<Split>(std::move(regex), behavior, invert);
}

Result<std::unique_ptr<PreTokenizer>> make_byte_level(const JsonView& spec) {
  SY_TRY(const bool add_prefix_space, spec.boolean_or("add_prefix_space", true));
  SY_TRY(const bool use_regex, spec.boolean_or("use_regex", true));
  std::optional<Split> gpt2;
  if (use_regex) {
    SY_TRY(Regex regex, Regex::compile(kGpt2, spec.document() + ": " + spec.path()));
    gpt2.emplace(std::move(regex), SplitBehavior::kIsolated, false);
  }
  return std::make_unique<ByteLevel>(add_prefix_space, std::move(gpt2));
}

Result<std::unique_ptr<PreTokenizer>> make_digits(const JsonView& spec) {
  SY_TRY(const bool individual, spec.boolean_or("individual_digits", false));
  SY_TRY(Regex regex, Regex::compile(R"(\p{N})", spec.document() + ": " + spec.path()));
  return std::make_unique<Split>(std::move(regex), individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                                 false);
}

}  // namespace

Result<std::unique_ptr<PreTokenizer>> make_pre_tokenizer(const JsonView& spec) {
  SY_TRY(const std::string type, spec.text("type"));
  if (type == "Split") return make_split(spec);
  if (type == "ByteLevel") return make_byte_level(spec);
  if (type == "Digits") return make_digits(spec);
  if (type == "Sequence") {
    SY_TRY(const auto specs, spec.array("pretokenizers"));
    std::vector<std::unique_ptr<PreTokenizer>> steps;
    for (const JsonView& step : specs) {
      SY_TRY(auto made, make_pre_tokenizer(step));
      steps.push_back(std::move(made));
    }
    return std::make_unique<PreTokenizerSequence>(std::move(steps));
  }
  return spec.fail("is of type " + quote(type) +
                   ", which this reader does not support (Split, ByteLevel, Digits, Sequence).");
}

}  // namespace switchyard
