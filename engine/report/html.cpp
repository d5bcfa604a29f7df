// The report as one HTML file. Everything that comes from elsewhere passes through xml_text(shown_text()). Any thread.
#include <fmt/format.h>

#include "engine/report/report.h"
#include "engine/report/rich_text.h"

namespace switchyard {

namespace {

std::string safe(std::string_view text) { return xml_text(shown_text(text)); }

std::string hex(Rgb c) { return fmt::format("#{:02x}{:02x}{:02x}", c.r, c.g, c.b); }

// Roles of drawings and of the page, as custom properties.
std::string colors(const ChartColors& c) {
  std::string out = fmt::format("--g:{};--t:{};--m:{};--l:{};--k:{};", hex(c.ground), hex(c.text), hex(c.muted), hex(c.line), hex(c.mark));
  for (int i = 0; i < kCategories; ++i) out += fmt::format("--s{}:{};", i, hex(series_color(i, c.ground, c.text)));
  return out;
}

std::string style() {
  std::string out = ":root{color-scheme:light dark;" + colors(print_colors()) + "}\n@media (prefers-color-scheme:dark){:root{" + colors(night_colors()) + "}}\n@media print{:root{" + colors(print_colors()) +
                    "}body{max-width:none;padding:0;font-size:10pt}.wide{overflow:visible}table{font-size:6.5pt!important}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}details{display:none}}\n";
  for (const char* role : {"g", "t", "m", "l", "k", "s0", "s1", "s2", "s3", "s4", "s5", "s6"}) out += fmt::format(".{0}{{fill:var(--{0})}}.o{0}{{fill:none;stroke:var(--{0})}}", role);
  out += R"(
body{background:var(--g);color:var(--t);font:15px/1.5 Inter,"DejaVu Sans",Helvetica,Arial,sans-serif;max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.2rem 0 .4rem;border-top:1px solid var(--l);padding-top:1.1rem}h3{font-size:1rem;margin:1rem 0 .3rem}
h1,h2,h3,p,.w,figcaption,caption{overflow-wrap:anywhere;white-space:pre-wrap}
td,th{white-space:pre}td.w{min-width:6rem}
.sub,figcaption,caption{color:var(--m)}figure{margin:1rem 0}figcaption,caption{font-size:.85rem;text-align:left}
svg.c{max-width:100%;height:auto;font-family:Inter,"DejaVu Sans",Helvetica,Arial,sans-serif}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.4rem 0;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.18rem .6rem;text-align:right;border-bottom:1px solid var(--l);vertical-align:top}th{border-bottom:1.5px solid var(--m);font-weight:600}
td.w,th.w{text-align:left}caption{caption-side:bottom;padding-top:.3rem}
code,pre{font-family:"JetBrains Mono","DejaVu Sans Mono",monospace;font-size:.85em;white-space:pre-wrap;overflow-wrap:anywhere}
details{font-size:.85rem;color:var(--m)}summary{cursor:pointer}a{color:inherit}blockquote{margin:.5rem 1rem;color:var(--m)}nav a{margin-right:1rem}
.i{margin:.1rem 0}
)";
  return out;
}

std::string spans(const std::vector<RichSpan>& spans) {
  std::string out;
  for (const RichSpan& span : spans) {
    std::string one = xml_text(span.text);
    if (span.code) one = "<code>" + one + "</code>";
    if (span.italic) one = "<em>" + one + "</em>";
    if (span.bold) one = "<strong>" + one + "</strong>";
    if (!span.link.empty()) one = "<a rel=\"noreferrer\" href=\"" + xml_text(span.link) + "\">" + one + "</a>";
    out += one;
  }
  return out;
}

std::string text(const std::string& markdown) {
  std::string out;
  for (const RichBlock& block : read_markdown(markdown)) {
    const std::string inside = spans(block.spans);
    switch (block.kind) {
      case RichBlock::kParagraph: out += "<p>" + inside + "</p>\n"; break;
      case RichBlock::kHeading: out += "<h3>" + inside + "</h3>\n"; break;
      case RichBlock::kItem: out += fmt::format("<p class=\"i\" style=\"margin-left:{}rem\">{} {}</p>\n", 1.2 * block.level, block.bullet, inside); break;
      case RichBlock::kCode: out += "<pre>" + inside + "</pre>\n"; break;
      case RichBlock::kQuote: out += "<blockquote><p>" + inside + "</p></blockquote>\n"; break;
      case RichBlock::kRule: out += "<hr>\n"; break;
    }
  }
  return out;
}

std::string remade(const std::string& command) {
  return command.empty() ? std::string() : "<details><summary>How to make it again</summary><code>" + safe(command) + "</code></details>\n";
}

std::string table(const ReportTable& shown, const ReportBlock& block, int number) {
  const ResultTable& t = shown.table;
  std::vector<bool> words(t.columns.size());
  for (const auto& row : t.rows)
    for (size_t c = 0; c < row.size(); ++c)
      if (row[c].is_string()) words[c] = true;
  const auto cell = [&](const char* element, size_t c, const std::string& inside) { return fmt::format("<{0}{1}>{2}</{0}>", element, words[c] ? " class=\"w\"" : "", inside); };
  std::string out = fmt::format("<div class=\"wide\"><table>\n<caption>Table {}. {}", number, safe(block.caption));
  if (shown.left_out > 0) out += fmt::format(" {} more rows are not shown; the command gives them.", shown.left_out);
  out += "</caption>\n<thead><tr>";
  for (size_t c = 0; c < t.columns.size(); ++c) out += cell("th", c, safe(t.columns[c]));
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : t.rows) {
    out += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) out += cell("td", c, safe(cell_text(row[c], 6)));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n" + remade(block.command);
}

std::string figure(const ChartSpec& chart, const ReportBlock& block, int number) {
  return "<figure>" + svg_inside(draw_chart(chart, is_wide(chart) ? kTwoColumns : FigureSize{360})) + fmt::format("<figcaption>Figure {}. {}</figcaption></figure>\n", number, safe(block.caption)) + remade(block.command);
}

// JSON that cannot end its element, whatever it holds.
std::string data_block(const Document& document) {
  const std::string json = document.dump(-1, ' ', false, Document::error_handler_t::replace);
  std::string out;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (c == '<' || c == '>' || c == '&') out += fmt::format("\\u{:04x}", int(c));
    else if (json.compare(i, 3, "\xe2\x80\xa8") == 0 || json.compare(i, 3, "\xe2\x80\xa9") == 0) out += json[i + 2] == '\xa8' ? "\\u2028" : "\\u2029", i += 2;
    else out += c;
  }
  return out;
}

}  // namespace

std::string html_of(const Report& report) {
  const BlockNumbers numbers = number_blocks(report);
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"referrer\" content=\"no-referrer\"><meta name=\"generator\" content=\"Switchyard\">\n"
                    "<title>" + safe(report.title) + "</title>\n<style>" + style() + "</style></head>\n<body>\n<h1>" + safe(report.title) + "</h1>\n";
  if (!report.subtitle.empty()) out += "<p class=\"sub\">" + safe(report.subtitle) + "</p>\n";
  out += "<nav>";
  for (const ReportSection& section : report.sections) out += "<a href=\"#" + safe(section.id) + "\">" + safe(section.heading) + "</a>";
  out += "</nav>\n";
  for (size_t s = 0; s < report.sections.size(); ++s) {
    const ReportSection& section = report.sections[s];
    out += "<section>\n<h2 id=\"" + safe(section.id) + "\">" + safe(section.heading) + "</h2>\n";
    for (size_t b = 0; b < section.blocks.size(); ++b) {
      const ReportBlock& block = section.blocks[b];
      const int number = numbers.of[s][b];
      if (const auto* words = std::get_if<ReportText>(&block.content)) out += text(words->markdown);
      else if (const auto* shown = std::get_if<ReportTable>(&block.content)) out += table(*shown, block, number);
      else out += figure(std::get<ChartSpec>(block.content), block, number);
    }
    out += "</section>\n";
  }
  if (!report.notes.empty()) {
    out += "<section><h2>Not in this report</h2>\n";
    for (const std::string& note : report.notes) out += "<p class=\"i\">" + safe(note) + "</p>\n";
    out += "</section>\n";
  }
  out += "<section><h2 id=\"provenance\">Where the numbers come from</h2>\n<table><tbody>\n";
  for (const auto& [what, value] : report.provenance) out += "<tr><td class=\"w\">" + safe(what) + "</td><td class=\"w\">" + safe(value) + "</td></tr>\n";
  for (const ReportInput& input : report.inputs)
    out += "<tr><td class=\"w\">input</td><td class=\"w\">" + safe(input.path) + fmt::format(", {} bytes, SHA-256 <code>{}</code></td></tr>\n", input.bytes, safe(input.sha256));
  out += "</tbody></table>\n";
  if (!report.command.empty()) out += "<p>Made by <code>" + safe(report.command) + "</code></p>\n";
  return out + "</section>\n<template id=\"switchyard-report\">" + data_block(to_json(report)) + "</template>\n</body></html>\n";
}

}  // namespace switchyard
