// The "pattern" of Split and Replace, see pattern.h. Any thread.
#include "engine/tokenizer/pattern.h"

#include "engine/tokenizer/limits.h"

namespace switchyard {

Result<Regex> read_pattern(const JsonView& spec) {
  SY_TRY(const JsonView pattern, spec.at("pattern"));
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

Result<std::string> replace_all(std::string_view text, const Regex& pattern, std::string_view content) {
  if (text.empty()) return std::string();
  SY_TRY(const std::vector<Span> matches, pattern.find_all(text));
  std::string out;
  size_t at = 0;
  for (const Span& match : matches) {
    out.append(text.substr(at, match.begin - at));
    out.append(content);
    SY_CHECK(check_grown(out.size()));
    at = match.end;
  }
  out.append(text.substr(at));
  return out;
}

}  // namespace switchyard
