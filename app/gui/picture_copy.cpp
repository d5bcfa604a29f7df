// See picture_copy.h.
#include "app/gui/picture_copy.h"

#include <cmath>

#include <QClipboard>
#include <QGuiApplication>
#include <QMenu>
#include <QMimeData>
#include <QPainter>
#include <QPainterPath>

#include "app/gui/style.h"

namespace switchyard {
namespace {

void paint_words(QPainter& p, const Shape& shape) {
  QFont font = word_font();
  font.setPixelSize(100);  // metrics without rounding: drawn small by the painter's scale
  if (shape.bold) font.setWeight(QFont::DemiBold);
  const QString text = QString::fromStdString(shape.words);
  const double scale = shape.size / 100, width = QFontMetricsF(font).horizontalAdvance(text);
  p.save();
  p.translate(shape.x, shape.y);
  if (shape.upwards) p.rotate(-90);
  p.scale(scale, scale);
  p.setFont(font);
  p.drawText(QPointF(shape.anchor == Anchor::kStart    ? 0
                     : shape.anchor == Anchor::kMiddle ? -width / 2
                                                       : -width,
                     0),
             text);
  p.restore();
}

void put_picture(const Copyable& what) {
  const QImage picture =
      !what.chart.empty() ? image_of(draw_chart(what.chart, kTwoColumns), print_colors(), 300.0 / 72) : what.screen;
  if (!picture.isNull()) QGuiApplication::clipboard()->setImage(picture);
}

void put_svg(const Copyable& what) {
  const QByteArray svg = QByteArray::fromStdString(svg_of(draw_chart(what.chart, kTwoColumns), print_colors()));
  auto* data = new QMimeData;
  data->setData("image/svg+xml", svg);
  data->setText(QString::fromUtf8(svg));
  QGuiApplication::clipboard()->setMimeData(data);
}

}  // namespace

ChartColors window_colors() {
  const Theme& t = current_theme();
  return {t.dock, t.text, t.muted, t.line, t.edit, t.dark};
}

void paint_drawing(QPainter& p, const Drawing& drawing, const ChartColors& colors) {
  p.save();
  p.setRenderHint(QPainter::Antialiasing);
  for (const Shape& shape : drawing.shapes) {
    const Rgb rgb = resolve(shape.ink, colors);
    QColor pen_color(rgb.r, rgb.g, rgb.b);
    pen_color.setAlphaF(float(shape.opacity));
    if (shape.kind == Shape::kRect) {
      p.setRenderHint(QPainter::Antialiasing, false);
      p.fillRect(QRectF(shape.x, shape.y, shape.w, shape.h), pen_color);
      p.setRenderHint(QPainter::Antialiasing);
      continue;
    }
    if (shape.kind == Shape::kWords) {
      p.setPen(pen_color);
      paint_words(p, shape);
      continue;
    }
    QPainterPath path;
    for (const PathStep& s : shape.steps) {
      if (s.verb == 'M') path.moveTo(s.x, s.y);
      if (s.verb == 'L') path.lineTo(s.x, s.y);
      if (s.verb == 'C') path.cubicTo(s.x1, s.y1, s.x2, s.y2, s.x, s.y);
      if (s.verb == 'Z') path.closeSubpath();
    }
    if (shape.kind == Shape::kFill) {
      p.fillPath(path, pen_color);
      continue;
    }
    QPen pen(pen_color, shape.width, Qt::SolidLine, Qt::FlatCap);
    if (!shape.dashes.empty()) {
      QList<qreal> dashes;
      for (const double dash : shape.dashes) dashes << dash / shape.width;
      pen.setDashPattern(dashes);
    }
    p.strokePath(path, pen);
  }
  p.restore();
}

QImage image_of(const Drawing& drawing, const ChartColors& colors, double scale) {
  QImage image(int(std::ceil(drawing.width * scale)), int(std::ceil(drawing.height * scale)), QImage::Format_RGB32);
  image.fill(QColor(colors.ground.r, colors.ground.g, colors.ground.b));
  QPainter p(&image);
  p.scale(scale, scale);
  paint_drawing(p, drawing, colors);
  return image;
}

void add_copy_actions(QMenu& menu, const std::function<Copyable()>& what, bool with_picture) {
  const std::pair<QString, TableFormat> formats[] = {
      {QObject::tr("Copy as CSV"), TableFormat::kCsv},           {QObject::tr("Copy as TSV"), TableFormat::kTsv},
      {QObject::tr("Copy as Markdown"), TableFormat::kMarkdown}, {QObject::tr("Copy as LaTeX"), TableFormat::kLatex},
      {QObject::tr("Copy as NumPy"), TableFormat::kNumpy},       {QObject::tr("Copy as JSON"), TableFormat::kJson}};
  for (const auto& [title, format] : formats)
    menu.addAction(title, &menu,
                   [what, f = format] { QGuiApplication::clipboard()->setText(table_as_text(what().table, f)); });
  if (!with_picture) return;
  menu.addSeparator();
  menu.addAction(QObject::tr("Copy picture as PNG"), &menu, [what] { put_picture(what()); });
  menu.addAction(QObject::tr("Copy picture as SVG"), &menu, [what] {
    const Copyable found = what();
    if (!found.chart.empty()) put_svg(found);
  });
  menu.addAction(QObject::tr("Copy picture as on the screen"), &menu, [what] {
    const Copyable found = what();
    if (!found.screen.isNull()) QGuiApplication::clipboard()->setImage(found.screen);
  });
}

}  // namespace switchyard
