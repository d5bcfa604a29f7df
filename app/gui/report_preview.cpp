// See report_preview.h. All text of the report is escaped; the browser opens no link and loads nothing but our
// pictures.
#include "app/gui/report_preview.h"

#include <algorithm>

#include <QScrollBar>
#include <QTextBrowser>
#include <QTextDocument>
#include <QUrl>

#include "app/gui/picture_copy.h"
#include "app/gui/style.h"
#include "engine/report/report.h"
#include "engine/report/rich_text.h"

namespace switchyard {
namespace {

constexpr size_t kRows = 12;  // of a table in the preview; the report itself has more

QString safe(const std::string& text) {
  return QString::fromStdString(xml_text(shown_text(text)));
}

QString note(const std::string& markdown) {
  QString out;
  for (const RichBlock& block : read_markdown(markdown)) {
    QString inside;
    for (const RichSpan& span : block.spans) {
      QString one = QString::fromStdString(xml_text(span.text));
      if (span.code) one = "<code>" + one + "</code>";
      if (span.italic) one = "<i>" + one + "</i>";
      if (span.bold) one = "<b>" + one + "</b>";
      if (!span.link.empty()) one = "<u>" + one + "</u>";
      inside += one;
    }
    const QString bullet = QString::fromStdString(block.bullet);
    if (block.kind == RichBlock::kHeading)
      out += "<h4>" + inside + "</h4>";
    else if (block.kind == RichBlock::kItem)
      out += QString("<p style=\"margin-left:%1px\">%2 %3</p>").arg(16 * block.level).arg(bullet, inside);
    else if (block.kind == RichBlock::kCode)
      out += "<pre>" + inside + "</pre>";
    else if (block.kind == RichBlock::kRule)
      out += "<hr>";
    else
      out += "<p>" + inside + "</p>";
  }
  return out;
}

QString table(const ReportTable& shown) {
  QString out = "<table cellspacing=\"0\" cellpadding=\"3\"><tr>";
  for (const std::string& column : shown.table.columns) out += "<th align=\"left\">" + safe(column) + "</th>";
  out += "</tr>";
  const size_t rows = std::min(shown.table.rows.size(), kRows);
  for (size_t r = 0; r < rows; ++r) {
    out += "<tr>";
    for (const Document& cell : shown.table.rows[r])
      out += (cell.is_string() ? "<td>" : "<td align=\"right\">") + safe(cell_text(cell, 6)) + "</td>";
    out += "</tr>";
  }
  out += "</table>";
  const size_t more = shown.table.rows.size() - rows;
  if (more > 0) out += "<p>" + QObject::tr("%1 more rows in the report").arg(more) + "</p>";
  return out;
}

}  // namespace

void show_preview(QTextBrowser& browser, const Report& report) {
  const ChartColors colors = window_colors();
  const double ratio = browser.devicePixelRatioF();
  const double width = browser.viewport()->width() - 2 * browser.document()->documentMargin() -
                       browser.verticalScrollBar()->sizeHint().width();
  const BlockNumbers numbers = number_blocks(report);
  browser.clear();
  const QString faint = color(current_theme().muted).name();
  QString html =
      "<h2>" + safe(report.title) + "</h2><p style=\"color:" + faint + "\">" + safe(report.subtitle) + "</p>";
  for (size_t s = 0; s < report.sections.size(); ++s) {
    html += "<h3>" + safe(report.sections[s].heading) + "</h3>";
    for (size_t b = 0; b < report.sections[s].blocks.size(); ++b) {
      const ReportBlock& block = report.sections[s].blocks[b];
      const int number = numbers.of[s][b];
      QString caption;
      if (const auto* text = std::get_if<ReportText>(&block.content)) {
        html += note(text->markdown);
        continue;
      }
      if (const auto* shown = std::get_if<ReportTable>(&block.content)) {
        html += table(*shown);
        caption = QObject::tr("Table %1. ").arg(number);
      } else {
        const ChartSpec& chart = std::get<ChartSpec>(block.content);
        const Drawing drawing = draw_chart(chart, is_wide(chart) ? kTwoColumns : FigureSize{360});
        const double scale = std::min(ui_scale() * 1.25, std::max(width, 60.0) / drawing.width);
        QImage image = image_of(drawing, colors, scale * ratio);
        image.setDevicePixelRatio(ratio);
        const QString name = QString("figure:%1").arg(number);
        browser.document()->addResource(QTextDocument::ImageResource, QUrl(name), image);
        html += QString("<p><img src=\"%1\" width=\"%2\"></p>").arg(name).arg(int(drawing.width * scale));
        caption = QObject::tr("Figure %1. ").arg(number);
      }
      html += "<p style=\"color:" + faint + "\">" + caption + safe(block.caption) + "</p>";
      if (!block.command.empty())
        html += "<p style=\"color:" + faint + "\"><code>" + safe(block.command) + "</code></p>";
    }
  }
  browser.setHtml(html);
}

}  // namespace switchyard
