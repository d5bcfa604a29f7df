// Pictures and tables on the clipboard, in every format; the drawing of a chart by Qt. GUI thread.
#pragma once

#include <functional>

#include <QImage>
#include <QString>

#include "app/gui/table_copy.h"
#include "engine/report/chart.h"

class QMenu;
class QPainter;

namespace switchyard {

// Of the theme in force, for charts in the window.
ChartColors window_colors();
// A drawing as it is, one point a unit of the painter.
void paint_drawing(QPainter& painter, const Drawing& drawing, const ChartColors& colors);
// scale: pixels a unit of the drawing.
QImage image_of(const Drawing& drawing, const ChartColors& colors, double scale);

// What is copied: a chart (may be empty: then only its table), the table, and the picture as the screen shows it (may
// be null).
struct Copyable {
  ChartSpec chart;
  ResultTable table;
  QImage screen;
};
// "Copy as CSV" and so on, SVG and PNG where there is a picture. Asked for when chosen.
void add_copy_actions(QMenu& menu, const std::function<Copyable()>& what, bool with_picture);

}  // namespace switchyard
