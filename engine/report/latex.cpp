// The report as LaTeX for pdflatex: booktabs, longtable, graphicx; no shell escape, no package outside texlive-latex-recommended.
// Any thread.
#include <fmt/format.h>

#include "engine/report/report.h"
#include "engine/report/rich_text.h"

namespace switchyard {
namespace {

constexpr double kTextWidth = 455, kTableSize = 8;

std::string spans(const std::vector<RichSpan>& spans) {
  std::string out;
  for (const RichSpan& span : spans) {
    std::string one = latex_text(span.text);
    if (span.code) one = "\\texttt{" + one + "}";
    if (span.italic) one = "\\emph{" + one + "}";
    if (span.bold) one = "\\textbf{" + one + "}";
    if (!span.link.empty()) one += " (\\texttt{" + latex_text(span.link) + "})";
    out += one;
  }
  return out;
}

std::string text(const std::string& markdown) {
  std::string out;
  for (const RichBlock& block : read_markdown(markdown)) {
    const std::string inside = spans(block.spans);
    switch (block.kind) {
      case RichBlock::kHeading: out += "\\subsection*{" + inside + "}\n"; break;
      case RichBlock::kItem: out += fmt::format("\\par\\noindent\\hspace*{{{}em}}{} {}\n\n", 1.2 * block.level, block.bullet == "•" ? "\\textbullet" : latex_text(block.bullet), inside); break;
      case RichBlock::kCode: out += "\\begin{quote}\\small\\texttt{" + inside + "}\\end{quote}\n\n"; break;
      case RichBlock::kQuote: out += "\\begin{quote}" + inside + "\\end{quote}\n\n"; break;
      case RichBlock::kRule: out += "\\medskip\\hrule\\medskip\n\n"; break;
      case RichBlock::kParagraph: out += inside + "\n\n"; break;
    }
  }
  return out;
}

std::string command(const std::string& line) {
  return line.empty() ? std::string() : "{\\footnotesize\\raggedright\\noindent\\texttt{" + latex_text(line) + "}\\par}\n\n";
}

std::string table(const ReportTable& shown, const ReportBlock& block, int number) {
  std::string out;
  const auto parts = split_wide(shown.table, kTableSize, kTextWidth);
  for (size_t p = 0; p < parts.size(); ++p) {
    const ResultTable& t = parts[p];
    std::string columns;
    for (size_t c = 0; c < t.columns.size(); ++c) {
      double widest = 0;
      bool words = false;
      for (const auto& row : t.rows) {
        words = words || row[c].is_string();
        widest = std::max(widest, text_width(shown_text(cell_text(row[c], 6)), kTableSize));
      }
      columns += widest > kTextWidth / 2 ? std::string("p{0.5\\textwidth}") : words ? "l" : "r";
    }
    out += "{\\footnotesize\\setlength{\\tabcolsep}{4pt}\n\\begin{longtable}{" + columns + "}\n";
    if (p == 0) {
      out += fmt::format("\\caption*{{Table {}. {}{}}}\\\\\n", number, latex_text(block.caption),
                         shown.left_out > 0 ? fmt::format(" {} more rows are not shown; the command gives them.", shown.left_out) : std::string());
    }
    const auto line = [&](const auto& cells, const auto& words) {
      for (size_t i = 0; i < cells.size(); ++i) out += (i > 0 ? " & {" : "{") + latex_text(words(cells[i])) + "}";
      out += " \\\\\n";
    };
    out += "\\toprule\n";
    line(t.columns, [](const std::string& name) { return name; });
    out += "\\midrule\n\\endhead\n";
    for (const auto& row : t.rows) line(row, [](const Document& cell) { return cell_text(cell, 6); });
    out += "\\bottomrule\n\\end{longtable}}\n\n";
  }
  return out + command(block.command);
}

}  // namespace

std::string latex_of(const Report& report, std::string_view figures) {
  const BlockNumbers numbers = number_blocks(report);
  std::string out = "% Made by Switchyard. Compile with pdflatex; the figures lie in " + latex_text(figures) + ".\n"
                    "% Characters that pdflatex has no letter for are written as [U+4E2D].\n"
                    "\\documentclass[10pt,a4paper]{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage[margin=25mm]{geometry}\n"
                    "\\usepackage{booktabs,longtable,graphicx,caption}\n\\setlength{\\parindent}{0pt}\\setlength{\\parskip}{4pt}\\sloppy\n"
                    "\\title{" + latex_text(report.title) + "}\n\\author{}\\date{" + latex_text(report.subtitle) + "}\n\\begin{document}\n\\maketitle\n\n";
  for (size_t s = 0; s < report.sections.size(); ++s) {
    const ReportSection& section = report.sections[s];
    out += "\\section{" + latex_text(section.heading) + "}\n\n";
    for (size_t b = 0; b < section.blocks.size(); ++b) {
      const ReportBlock& block = section.blocks[b];
      const int number = numbers.of[s][b];
      if (const auto* words = std::get_if<ReportText>(&block.content)) out += text(words->markdown);
      else if (const auto* shown = std::get_if<ReportTable>(&block.content)) out += table(*shown, block, number);
      else
        out += fmt::format("\\begin{{center}}\\includegraphics{{{}/{}.pdf}}\\\\\n{{\\small Figure {}. {}}}\\end{{center}}\n\n", figures, block_stem(report, s, b) + (is_wide(std::get<ChartSpec>(block.content)) ? "-wide" : ""), number, latex_text(block.caption)) + command(block.command);
    }
  }
  if (!report.notes.empty()) {
    out += "\\section{Not in this report}\n\n";
    for (const std::string& note : report.notes) out += latex_text(note) + "\n\n";
  }
  out += "\\section{Where the numbers come from}\n\n{\\footnotesize\\begin{longtable}{lp{0.75\\textwidth}}\n\\toprule\nwhat & value \\\\\n\\midrule\n\\endhead\n";
  for (const auto& [what, value] : report.provenance) out += "{" + latex_text(what) + "} & {" + latex_text(value) + "} \\\\\n";
  for (const ReportInput& input : report.inputs) out += "input & {" + latex_text(input.path) + "}, " + std::to_string(input.bytes) + " bytes, SHA-256 \\texttt{\\hspace{0pt}" + latex_text(input.sha256.substr(0, 32)) + "\\linebreak[1]" + latex_text(input.sha256.size() > 32 ? input.sha256.substr(32) : "") + "} \\\\\n";
  out += "\\bottomrule\n\\end{longtable}}\n\n";
  if (!report.command.empty()) out += "Made by\n\n" + command(report.command);
  return out + "\\end{document}\n";
}

}  // namespace switchyard
