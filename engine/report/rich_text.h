// Notes in Markdown (CommonMark), read into what every writer can show. Raw HTML stays text, pictures become their words,
// so that nothing in a note runs or is fetched. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct RichSpan {
  std::string text;  // fit to show
  bool bold = false, italic = false, code = false;
  std::string link;  // http, https or mailto; empty: none
};

struct RichBlock {
  enum Kind { kParagraph, kHeading, kItem, kCode, kQuote, kRule };
  Kind kind = kParagraph;
  int level = 1;       // of headings; of items and quotes how deep they lie
  std::string bullet;  // "•", "3."; empty: goes on with the item before
  std::vector<RichSpan> spans;
};

std::vector<RichBlock> read_markdown(std::string_view text);

}  // namespace switchyard
