// Cutting a text at delimiters, see split.h. Any thread.
#include "engine/tokenizer/split.h"

#include <algorithm>

#include "engine/base/text.h"
#include "engine/tokenizer/unicode_classes.h"

namespace switchyard {
namespace {

struct Part {
  Span span;
  bool delimiter = false;
};

// The whole text as delimiters and what lies between them.
std::vector<Part> parts_of(size_t size, const std::vector<Span>& delimiters, bool invert) {
  std::vector<Part> parts;
  size_t at = 0;
  for (const Span& span : delimiters) {
    if (span.begin > at) parts.push_back({{at, span.begin}, invert});
    parts.push_back({span, !invert});
    at = span.end;
  }
  if (at < size) parts.push_back({{at, size}, invert});
  return parts;
}

// Whether a part joins the one before it, reading in the direction of the behaviour.
bool joins(SplitBehavior behavior, bool previous_delimiter, bool delimiter) {
  if (behavior == SplitBehavior::kContiguous) return delimiter == previous_delimiter;
  return delimiter && !previous_delimiter;
}

std::vector<Span> joined(SplitBehavior behavior, std::vector<Part> parts) {
  std::vector<Span> spans;
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

}  // namespace

std::vector<Span> cut_at(size_t text_size, const std::vector<Span>& delimiters, SplitBehavior behavior, bool invert) {
  std::vector<Part> parts = parts_of(text_size, delimiters, invert);
  std::vector<Span> spans;
  if (behavior == SplitBehavior::kRemoved || behavior == SplitBehavior::kIsolated) {
    for (const Part& part : parts)
      if (behavior == SplitBehavior::kIsolated || !part.delimiter) spans.push_back(part.span);
  } else {
    spans = joined(behavior, std::move(parts));
  }
  std::erase_if(spans, [](const Span& span) { return span.begin == span.end; });
  return spans;
}

std::vector<Span> find_characters(std::string_view text, const std::function<bool(char32_t)>& is_member) {
  std::vector<Span> found;
  for (size_t at = 0; at < text.size();) {
    const Character c = first_character(text.substr(at));
    if (is_member(c.code)) found.push_back({at, at + c.length});
    at += c.length;
  }
  return found;
}

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

}  // namespace switchyard
