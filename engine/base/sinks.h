// Text of unknown origin on its way into something that reads markup: one function a sink (reliability.md, section 5). Pure;
// any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard {

// The code point at `at`, which moves past it; U+FFFD and one byte where the bytes are no UTF-8. at < text.size().
char32_t next_character(std::string_view text, size_t& at);

// What may be shown anywhere: valid UTF-8; control, invisible and direction-changing characters as their code point in
// brackets. Line feeds and tabs stay.
std::string shown_text(std::string_view bytes);
// For text and quoted attributes of XML and HTML: & < > " ' escaped. shown: as shown_text() gives it.
std::string xml_text(std::string_view shown);
// Everything that LaTeX would read as a command escaped; characters that pdflatex has no letter for as [U+4E2D].
std::string latex_text(std::string_view text);
// One line of GitHub Markdown in which nothing is markup.
std::string markdown_text(std::string_view text);
// A cell per RFC 4180. is_text: not a number; what a spreadsheet would run as a formula begins with an apostrophe.
std::string csv_text(const std::string& text, bool is_text);

}  // namespace switchyard
