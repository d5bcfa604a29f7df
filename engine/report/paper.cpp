// The report as items of pages. Any thread, one at a time.
#include "engine/report/paper.h"

#include <mutex>

#include <fmt/format.h>

#include "engine/base/module.h"
#include "engine/report/paper_module.h"
#include "engine/report/rich_text.h"

namespace switchyard {
namespace {

constexpr ModuleName kModule{.file = "libswitchyard_paper.so", .variable = "SWITCHYARD_PAPER_LIB", .symbol = kPaperEntry, .what = "the paper module",
                             .hint = "Install it with the program (it needs libcairo2 and libpangocairo-1.0-0), or write HTML, Markdown or SVG."};
constexpr double kTextWidth = 470, kTableSize = 7.5;

std::mutex& one_at_a_time() {
  static std::mutex mutex;
  return mutex;
}

struct Bytes {
  std::string bytes;
  static const char* write(void* context, const void* from, int64_t count) {
    static_cast<Bytes*>(context)->bytes.append(static_cast<const char*>(from), size_t(count));
    return nullptr;
  }
};

template <class Write>
Result<std::string> with_module(const Write& write) {
  SY_TRY(void* const symbol, load_module(kModule));
  const std::scoped_lock lock(one_at_a_time());
  Bytes bytes;
  if (const char* problem = write(*reinterpret_cast<PaperEntry>(symbol)(), PaperSink{&bytes, Bytes::write})) return fail(ErrorCode::kOutput, std::string("the picture could not be made: ") + problem + ".");
  return std::move(bytes.bytes);
}

// Pango reads five characters as markup; the same that XML escapes.
std::string plain(std::string_view text) { return xml_text(shown_text(text)); }

class Items {
 public:
  std::vector<PageItem> items;

  void add(PageItem::Kind kind, std::string markup, double indent = 0) {
    PageItem item;
    item.kind = kind, item.words = std::move(markup), item.indent = indent;
    items.push_back(std::move(item));
  }

  void note(const std::string& markdown) {
    for (const RichBlock& block : read_markdown(markdown)) {
      std::string inside;
      for (const RichSpan& span : block.spans) {
        std::string one = xml_text(span.text);
        if (span.code) one = "<tt>" + one + "</tt>";
        if (span.italic) one = "<i>" + one + "</i>";
        if (span.bold || block.kind == RichBlock::kHeading) one = "<b>" + one + "</b>";
        if (!span.link.empty()) one += " (" + xml_text(span.link) + ")";
        inside += one;
      }
      const double indent = block.kind == RichBlock::kItem || block.kind == RichBlock::kQuote ? 12.0 * block.level : 0;
      if (block.kind == RichBlock::kItem && !block.bullet.empty()) inside = xml_text(block.bullet) + " " + inside;
      if (block.kind != RichBlock::kRule) add(block.kind == RichBlock::kCode ? PageItem::kCode : PageItem::kWords, std::move(inside), indent);
    }
  }

  void table(const ResultTable& whole) {
    for (const ResultTable& part : split_wide(whole, kTableSize, kTextWidth)) {
      PageItem item;
      item.kind = PageItem::kTable;
      auto& head = item.rows.emplace_back();
      for (const std::string& column : part.columns) head.push_back(shown_text(column));
      item.right.assign(part.columns.size(), 1);
      for (const auto& row : part.rows) {
        auto& cells = item.rows.emplace_back();
        for (size_t c = 0; c < row.size(); ++c) {
          cells.push_back(shown_text(cell_text(row[c], 6)));
          if (row[c].is_string()) item.right[c] = 0;
        }
      }
      items.push_back(std::move(item));
    }
  }

  void figure(const ChartSpec& chart) {
    PageItem item;
    item.kind = PageItem::kFigure;
    item.drawing = draw_chart(chart, is_wide(chart) ? FigureSize{kTextWidth} : FigureSize{320});
    items.push_back(std::move(item));
  }
};

void provenance(const Report& report, Items& out) {
  out.add(PageItem::kHeading, "Where the numbers come from");
  ResultTable table{"provenance", {"what", "value"}, {}};
  for (const auto& [what, value] : report.provenance) table.rows.push_back({what, value});
  for (const ReportInput& input : report.inputs) table.rows.push_back({"input", fmt::format("{}, {} bytes, SHA-256 {}", input.path, input.bytes, input.sha256)});
  out.table(table);
  if (!report.command.empty()) out.add(PageItem::kSmall, "Made by"), out.add(PageItem::kCode, plain(report.command));
}

}  // namespace

Result<std::string> pdf_of(const Report& report) {
  const BlockNumbers numbers = number_blocks(report);
  Items out;
  out.add(PageItem::kTitle, plain(report.title));
  if (!report.subtitle.empty()) out.add(PageItem::kWords, plain(report.subtitle));
  for (size_t s = 0; s < report.sections.size(); ++s) {
    out.add(PageItem::kHeading, plain(report.sections[s].heading));
    for (size_t b = 0; b < report.sections[s].blocks.size(); ++b) {
      const ReportBlock& block = report.sections[s].blocks[b];
      const int number = numbers.of[s][b];
      if (const auto* text = std::get_if<ReportText>(&block.content)) {
        out.note(text->markdown);
        continue;
      }
      if (const auto* table = std::get_if<ReportTable>(&block.content)) {
        out.table(table->table);
        out.add(PageItem::kSmall, fmt::format("Table {}. {}", number, plain(block.caption)) + (table->left_out > 0 ? fmt::format(" {} more rows are not shown; the command gives them.", table->left_out) : ""));
      } else {
        out.figure(std::get<ChartSpec>(block.content));
        out.add(PageItem::kSmall, fmt::format("Figure {}. {}", number, plain(block.caption)));
      }
      if (!block.command.empty()) out.add(PageItem::kCode, plain(block.command));
    }
  }
  if (!report.notes.empty()) {
    out.add(PageItem::kHeading, "Not in this report");
    for (const std::string& note : report.notes) out.add(PageItem::kWords, plain(note));
  }
  provenance(report, out);
  return with_module([&](const PaperModule& module, PaperSink sink) { return module.pdf_of_pages(out.items, shown_text(report.title), sink); });
}

Result<std::string> pdf_of(const Drawing& drawing) {
  return with_module([&](const PaperModule& module, PaperSink sink) { return module.pdf_of_drawing(drawing, sink); });
}

Result<std::string> png_of(const Drawing& drawing, const ChartColors& colors, double scale) {
  return with_module([&](const PaperModule& module, PaperSink sink) { return module.png_of_drawing(drawing, colors, scale, sink); });
}

}  // namespace switchyard
