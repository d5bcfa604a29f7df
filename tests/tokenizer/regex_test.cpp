// Oniguruma expressions in PCRE2: what is translated, what is refused, and the limits of reliability.md, section 4.
#include <string>

#include <gtest/gtest.h>

#include "engine/tokenizer/regex.h"

namespace switchyard {
namespace {

std::string translated(std::string_view pattern) {
  const auto out = translate_oniguruma(pattern, "here");
  return out ? *out : "refused: " + out.error().message();
}

std::vector<std::string> matches(std::string_view pattern, const std::string& text) {
  std::vector<std::string> out;
  const auto regex = Regex::compile(pattern, "here");
  if (!regex) return {regex.error().message()};
  const auto found = regex->find_all(text);
  if (!found) return {found.error().message()};
  for (const Span& span : *found) out.push_back(text.substr(span.begin, span.end - span.begin));
  return out;
}

TEST(Regex, WhitespaceIsTheUnicodePropertyAsInOniguruma) {
  EXPECT_EQ(translated(R"(\s+[^\s\S])"), R"(\p{White_Space}+[^\p{White_Space}\P{White_Space}])");
  EXPECT_EQ(matches(R"(\s)", "a\u180Eb\u00A0").size(), 1u);  // PCRE2's own \s takes U+180E
}

TEST(Regex, DollarMatchesBeforeEveryLineFeed) {
  EXPECT_EQ(matches("a$", "a\na").size(), 2u);
}

TEST(Regex, WordCharactersIncludeMarks) {
  EXPECT_EQ(matches(R"(\w+)", "a\u0301b c"), (std::vector<std::string>{"a\u0301b", "c"}));
}

TEST(Regex, RefusesWhatMeansSomethingElseInPcre) {
  for (const char* pattern :
       {R"(\h)", "[a[bc]]", "[a-z&&[^b]]", "a(?i)b", "(?m:.)", R"([\W])", R"(\G)", "(?<name>a)", R"(\K)"})
    EXPECT_TRUE(translated(pattern).starts_with("refused: here: the regular expression uses ")) << pattern;
}

TEST(Regex, SaysWhereAPatternIsBroken) {
  const auto regex = Regex::compile("a(b", "file: /key");
  ASSERT_FALSE(regex);
  EXPECT_EQ(regex.error().message(),
            "file: /key: the regular expression cannot be compiled: missing closing parenthesis near byte 3.");
}

TEST(Regex, ALimitEndsACatastrophicMatchWithItsPosition) {
  const auto regex = Regex::compile("(?:a+)+[bc]", "here");
  ASSERT_TRUE(regex);
  const auto found = regex->find_all("ab " + std::string(40, 'a'));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kMalformed);
  EXPECT_NE(found.error().message().find("gave up on the text at byte 2: match limit exceeded"), std::string::npos)
      << found.error().message();
}

}  // namespace
}  // namespace switchyard
