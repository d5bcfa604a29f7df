// The report as GitHub Markdown, pictures beside it. Any thread.
#include <fmt/format.h>

#include "engine/report/report.h"
#include "engine/report/rich_text.h"

namespace switchyard {
namespace {

// In a fence longer than any run of backticks inside.
std::string code(std::string_view text) {
  size_t longest = 0, run = 0;
  for (const char c : text) longest = std::max(longest, run = c == '`' ? run + 1 : 0);
  const std::string fence(std::max<size_t>(3, longest + 1), '`');
  return fence + "\n" + shown_text(text) + "\n" + fence + "\n\n";
}

// A note again, with what it may hold and nothing else: no HTML.
std::string note(const std::string& markdown) {
  std::string out;
  for (const RichBlock& block : read_markdown(markdown)) {
    std::string inside;
    for (const RichSpan& span : block.spans) {
      if (block.kind == RichBlock::kCode) {
        inside += span.text;
        continue;
      }
      std::string one = markdown_text(span.text);
      if (span.italic) one = "*" + one + "*";
      if (span.bold) one = "**" + one + "**";
      inside += span.link.empty() ? one : "[" + one + "](<" + markdown_text(span.link) + ">)";
    }
    const std::string indent(size_t(block.level > 1 ? 3 * (block.level - 1) : 0), ' ');
    switch (block.kind) {
      case RichBlock::kParagraph: out += inside + "\n\n"; break;
      case RichBlock::kHeading: out += "### " + inside + "\n\n"; break;
      case RichBlock::kItem: out += indent + (block.bullet == "•" ? "-" : block.bullet) + " " + inside + "\n\n"; break;
      case RichBlock::kCode: out += code(inside); break;
      case RichBlock::kQuote: out += "> " + inside + "\n\n"; break;
      case RichBlock::kRule: out += "---\n\n"; break;
    }
  }
  return out;
}

}  // namespace

std::string markdown_of(const Report& report, std::string_view figures) {
  const BlockNumbers numbers = number_blocks(report);
  std::string out = "# " + markdown_text(report.title) + "\n\n";
  if (!report.subtitle.empty()) out += markdown_text(report.subtitle) + "\n\n";
  for (size_t s = 0; s < report.sections.size(); ++s) {
    const ReportSection& section = report.sections[s];
    out += "## " + markdown_text(section.heading) + "\n\n";
    for (size_t b = 0; b < section.blocks.size(); ++b) {
      const ReportBlock& block = section.blocks[b];
      const int number = numbers.of[s][b];
      if (const auto* text = std::get_if<ReportText>(&block.content)) {
        out += note(text->markdown);
        continue;
      }
      if (const auto* table = std::get_if<ReportTable>(&block.content)) {
        const auto line = [&](const auto& cells, const auto& words) {
          out += "|";
          for (const auto& cell : cells) out += " " + markdown_text(words(cell)) + " |";
          out += "\n";
        };
        line(table->table.columns, [](const std::string& name) { return name; });
        out += "|";
        for (size_t c = 0; c < table->table.columns.size(); ++c) out += " --- |";
        out += "\n";
        for (const auto& row : table->table.rows) line(row, [](const Document& cell) { return cell_text(cell, 6); });
        out += fmt::format("\n*Table {}.* {}", number, markdown_text(block.caption));
        if (table->left_out > 0) out += fmt::format(" {} more rows are not shown; the command gives them.", table->left_out);
        out += "\n\n";
      } else {
        out += fmt::format("![Figure {}]({}/{}.svg)\n\n*Figure {}.* {}\n\n", number, figures, block_stem(report, s, b) + (is_wide(std::get<ChartSpec>(block.content)) ? "-wide" : ""), number, markdown_text(block.caption));
      }
      if (!block.command.empty()) out += code(block.command);
    }
  }
  for (const std::string& note : report.notes) out += "- Not in this report: " + markdown_text(note) + "\n";
  out += "\n## Where the numbers come from\n\n| what | value |\n| --- | --- |\n";
  for (const auto& [what, value] : report.provenance) out += "| " + markdown_text(what) + " | " + markdown_text(value) + " |\n";
  for (const ReportInput& input : report.inputs) out += fmt::format("| input | {}, {} bytes, SHA-256 {} |\n", markdown_text(input.path), input.bytes, markdown_text(input.sha256));
  out += "\n";
  if (!report.command.empty()) out += "Made by\n\n" + code(report.command);
  return out;
}

}  // namespace switchyard
