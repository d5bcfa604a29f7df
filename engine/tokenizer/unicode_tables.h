// Tables behind unicode_classes.h, unicode_form.h and regex.h, sorted by code point. Any thread.
#pragma once

#include <span>

namespace switchyard {

struct CodeRange {
  char32_t first, last;
};
struct CodePair {
  char32_t from, to;
};
struct CategoryRange {
  char32_t first, last;
  char category[3];  // "Lu"
};

std::span<const CodeRange> word_ranges();
std::span<const CodeRange> numeric_ranges();
std::span<const CodeRange> punctuation_ranges();
std::span<const CodeRange> mark_ranges();
std::span<const CodeRange> unnormalized_ranges();  // characters that no normalization form changes or moves
std::span<const CodePair> new_lower_case();
std::span<const CategoryRange> ranges_since_unicode_14();

}  // namespace switchyard
