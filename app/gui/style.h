// From a Theme to Qt: palette, style sheet, fonts and small icons. GUI thread.
#pragma once

#include <QColor>
#include <QFont>
#include <QIcon>
#include <QString>

#include "views/ui/theme.h"

class QApplication;
class QPainter;

namespace switchyard {

inline QColor color(Rgb c, int alpha = 255) {
  return QColor(c.r, c.g, c.b, alpha);
}
QColor mix(Rgb a, Rgb b, double t);  // t = 0: a

QFont word_font();    // Inter, the size the user's scale asks for
QFont number_font();  // JetBrains Mono, tabular
double ui_scale();    // 0.8 .. 2, SWITCHYARD_SCALE or the setting
void set_ui_scale(double scale);

// Fusion style, palette and style sheet of the whole program; a second call switches live.
void apply_theme(QApplication& app, const Theme& theme);
// The theme in force: assets/themes/<name>.json, else the built-in one.
const Theme& current_theme();
Theme theme_by_name(const QString& name);  // "dark", "light"

enum class Glyph { kPlay, kPause, kStep, kStop, kUndo, kRedo, kRecord, kClose, kModel, kTrace, kFolder };
QIcon glyph_icon(Glyph glyph, QColor ink);
void draw_glyph(QPainter& painter, Glyph glyph, const QRectF& where, QColor ink);

}  // namespace switchyard
