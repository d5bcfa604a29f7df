// The regular expressions of tokenizer.json. The `tokenizers` package runs them in Oniguruma (Ruby syntax,
// UTF-8); here they run in PCRE2 after a translation of what differs, and what cannot be translated is refused.
// Compiled once, matched from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

struct Span {
  size_t begin = 0, end = 0;
};  // bytes

class Regex {
 public:
  // pattern: at most 64 KiB. where: names the key in error messages.
  static Result<Regex> compile(std::string_view pattern, const std::string& where);
  // Matches exactly `text`, no syntax.
  static Result<Regex> literal(std::string_view text, const std::string& where);

  // All matches in valid UTF-8, left to right, not overlapping; an empty match right behind the last one
  // is passed over. An error, with the byte position, when a match exceeds the limits of reliability.md,
  // section 4.
  Result<std::vector<Span>> find_all(std::string_view text) const;

 private:
  struct Program;
  explicit Regex(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  static Result<Regex> build(std::string_view pcre_pattern, uint32_t options, const std::string& where);
  std::shared_ptr<const Program> program_;
};

// Oniguruma to PCRE2: same matches under UTF, UCP, MULTILINE and newline = LF. Exposed for tests.
Result<std::string> translate_oniguruma(std::string_view pattern, const std::string& where);

}  // namespace switchyard
