// Limits of the tokenizer (reliability.md, section 4): every file and every text is hostile. Any thread.
#pragma once

#include <cstddef>
#include <string>

#include "engine/base/result.h"

namespace switchyard {

inline constexpr size_t kMaxTokenizerFile = size_t{256} << 20;
inline constexpr size_t kMaxText = size_t{16} << 20;
inline constexpr size_t kMaxGrownText = size_t{256} << 20;  // after normalization

// A hostile file can make a text grow with every character that it replaces.
inline Result<void> check_grown(size_t bytes) {
  if (bytes <= kMaxGrownText) return {};
  return fail(ErrorCode::kMalformed,
              "normalization makes the text longer than 256 MiB (" + std::to_string(bytes) + " bytes so far).", {},
              "The tokenizer.json replaces characters by very long texts; it is damaged, or the text is too long.");
}

}  // namespace switchyard
