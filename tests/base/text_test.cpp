// Foreign text in messages: one line, valid UTF-8, no terminal control.
#include "engine/base/text.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace switchyard {
namespace {

TEST(Text, ControlCharactersAndInvalidBytesAreSpelledOut) {
  EXPECT_EQ(printable("plain Grüße 日本 🎈"), "plain Grüße 日本 🎈");
  EXPECT_EQ(printable("a\x1b[2Jb\nc"), "a\\x1b[2Jb\\x0ac");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");                    // C1
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");                    // never UTF-8; cut short
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");                    // overlong
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // surrogate
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // beyond U+10FFFF
}

TEST(Text, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(printable("aaaa", 4), "aaaa");
  EXPECT_EQ(printable("aaaaa", 4), "aaaa...");
  EXPECT_EQ(printable("aaaéb", 4), "aaaé...");
  EXPECT_EQ(quote("abc", 2), "\"ab...\"");
}

TEST(Text, NoByteSequenceGetsThrough) {
  EXPECT_TRUE(rc::check("no control byte is left", [](const std::string& text) {
    for (const char c : printable(text, 1000)) RC_ASSERT(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  }));
}

}  // namespace
}  // namespace switchyard
