// How the lines of one picture differ beside their colour: dash and mark, for eyes and prints that do not tell colours
// apart. GUI thread.
#pragma once

#include <QPainter>
#include <QPen>
#include <QPolygonF>
#include <QString>

namespace switchyard {

inline QPen line_pen(int series, const QColor& ink) {
  static constexpr Qt::PenStyle kStyles[] = {Qt::SolidLine, Qt::DashLine, Qt::DashDotLine, Qt::DotLine};
  QPen pen(ink, 1.7, kStyles[series % 4]);
  pen.setCapStyle(Qt::FlatCap);
  return pen;
}

// The mark of a series in words.
inline QString mark_text(int series) {
  static constexpr char16_t kMarks[] = u"■●▲◆○×+";
  return QString(QChar(kMarks[series % 7]));
}

// Square, disc, triangle, diamond, ring, cross, plus; the eighth is the first again.
inline void draw_mark(QPainter& p, int series, const QPointF& at, const QColor& ink) {
  constexpr double kHalf = 3.2;
  const auto polygon = [&](std::initializer_list<QPointF> corners) {
    QPolygonF shape;
    for (const QPointF& corner : corners) shape << at + corner * kHalf;
    p.drawPolygon(shape);
  };
  p.setPen(QPen(ink, 1.5));
  p.setBrush(ink);
  switch (series % 7) {
    case 0: return polygon({{-0.7, -0.7}, {0.7, -0.7}, {0.7, 0.7}, {-0.7, 0.7}});
    case 1: return p.drawEllipse(at, kHalf * 0.8, kHalf * 0.8);
    case 2: return polygon({{0, -1}, {1, 0.8}, {-1, 0.8}});
    case 3: return polygon({{0, -1.1}, {1.1, 0}, {0, 1.1}, {-1.1, 0}});
    case 4: p.setBrush(Qt::NoBrush); return p.drawEllipse(at, kHalf, kHalf);
    case 5:
      p.drawLine(at + QPointF(-kHalf, -kHalf), at + QPointF(kHalf, kHalf));
      return p.drawLine(at + QPointF(-kHalf, kHalf), at + QPointF(kHalf, -kHalf));
    default:
      p.drawLine(at + QPointF(-kHalf, 0), at + QPointF(kHalf, 0));
      return p.drawLine(at + QPointF(0, -kHalf), at + QPointF(0, kHalf));
  }
}

}  // namespace switchyard
