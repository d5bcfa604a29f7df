// Cutting a text at delimiters, with the five behaviours of the `tokenizers` package. Any thread.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/tokenizer/regex.h"

namespace switchyard {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Result<SplitBehavior> read_behavior(const JsonView& spec);  // the member "behavior"

// delimiters: in order, not overlapping. invert: what lies between them is the delimiter.
// Returns the pieces in order; none is empty.
std::vector<Span> cut_at(size_t text_size, const std::vector<Span>& delimiters, SplitBehavior behavior,
                         bool invert = false);

// Every character of the class, each as a span of its own.
std::vector<Span> find_characters(std::string_view valid_text, const std::function<bool(char32_t)>& is_member);

}  // namespace switchyard
