// The look of the Qt side: one palette, one style sheet, drawn glyphs. GUI thread.
#include "app/gui/style.h"

#include <algorithm>

#include <QApplication>
#include <QFontDatabase>
#include <QIconEngine>
#include <QPainter>
#include <QPainterPath>
#include <QPalette>
#include <QStyleFactory>

#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

double g_scale = 1.0;
Theme g_theme = dark_theme();

QString css(Rgb c) {
  return color(c).name();
}
QString css(const QColor& c) {
  return c.name();
}
QString px(double size) {
  return QString::number(int(size * g_scale + 0.5)) + "px";
}

QPalette palette_of(const Theme& t) {
  QPalette p;
  p.setColor(QPalette::Window, color(t.window));
  p.setColor(QPalette::WindowText, color(t.text));
  p.setColor(QPalette::Base, color(t.dock));
  p.setColor(QPalette::AlternateBase, color(t.raised));
  p.setColor(QPalette::Text, color(t.text));
  p.setColor(QPalette::PlaceholderText, color(t.faint));
  p.setColor(QPalette::Button, color(t.raised));
  p.setColor(QPalette::ButtonText, color(t.text));
  p.setColor(QPalette::ToolTipBase, color(t.raised));
  p.setColor(QPalette::ToolTipText, color(t.text));
  p.setColor(QPalette::Highlight, color(t.selection));
  p.setColor(QPalette::HighlightedText, color(t.dark ? t.window : t.dock));
  p.setColor(QPalette::Link, color(t.selection));
  p.setColor(QPalette::Mid, color(t.line));
  p.setColor(QPalette::Dark, color(t.line));
  p.setColor(QPalette::Light, color(t.raised));
  p.setColor(QPalette::BrightText, color(t.error));
  for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText})
    p.setColor(QPalette::Disabled, role, color(t.faint));
  return p;
}

QString sheet_of(const Theme& t) {
  const QColor soft = mix(t.dock, t.selection, t.dark ? 0.18 : 0.14);  // a selected row
  const QColor hover = mix(t.raised, t.text, 0.06);
  QString sheet = R"(
QMainWindow, QDialog, #workbench { background: @window; }
QMainWindow::separator { background: @window; width: @6; height: @6; }
QMainWindow::separator:hover { background: @line; }
QMenuBar { background: @window; color: @muted; padding: @2 @6; border: none; }
QMenuBar::item { padding: @4 @9; background: transparent; border-radius: @4; }
QMenuBar::item:selected, QMenuBar::item:pressed { background: @raised; color: @text; }
QMenu { background: @raised; color: @text; border: 1px solid @line; padding: @4; }
QMenu::item { padding: @5 @26 @5 @12; border-radius: @4; }
QMenu::item:selected { background: @soft; }
QMenu::item:disabled { color: @faint; }
QMenu::separator { height: 1px; background: @line; margin: @4 @8; }
QMenu::indicator { width: @12; height: @12; left: @4; }
QToolTip { background: @raised; color: @text; border: 1px solid @line; padding: @4; }
QLabel { background: transparent; }
QLabel[kind="muted"] { color: @muted; }
QLabel[kind="faint"] { color: @faint; }
QLabel[kind="edit"] { color: @edit; }
QLabel[kind="error"] { color: @error; }
QLabel[kind="title"] { font-weight: 600; color: @text; }
QLabel[kind="heading"] { font-weight: 600; color: @text; font-size: @22; }
#dockHeader { background: @dock; border: 1px solid @line; border-bottom: 1px solid @line; border-top-left-radius: @7; border-top-right-radius: @7; }
#dockBody { background: @dock; border: 1px solid @line; border-top: none; border-bottom-left-radius: @7; border-bottom-right-radius: @7; }
QToolButton[kind="flat"] { background: transparent; border: none; color: @muted; padding: @2 @5; border-radius: @4; }
QToolButton[kind="flat"]:hover, QToolButton[kind="flat"]:checked { color: @text; background: @raised; }
QToolButton[kind="flat"]:focus { border: 1px solid @selection; }
QToolButton[kind="flat"]::menu-indicator { image: none; width: 0; }
QToolButton[kind="live"] { background: transparent; border: 1px solid @line; color: @muted; border-radius: @9; padding: @1 @9; }
QToolButton[kind="live"][live="true"] { border-color: @ok; color: @ok; }
QPushButton, QToolButton[kind="chip"] { background: @raised; color: @text; border: 1px solid @line; border-radius: @5; padding: @5 @11; }
QPushButton:hover, QToolButton[kind="chip"]:hover { background: @hover; }
QPushButton:focus, QToolButton[kind="chip"]:focus { border-color: @selection; }
QPushButton:disabled, QToolButton[kind="chip"]:disabled { color: @faint; }
QPushButton[kind="primary"] { background: @selection; color: @onselection; border-color: @selection; font-weight: 600; }
QPushButton[kind="primary"]:hover { background: @selectionhover; }
QPushButton[kind="primary"]:focus { border-color: @text; }
QPushButton[kind="primary"]:disabled { background: @raised; color: @faint; border-color: @line; }
QPushButton[kind="search"] { text-align: left; color: @faint; }
QToolButton[kind="chip"]::menu-indicator { image: none; width: 0; }
QPlainTextEdit, QTextEdit, QTextBrowser, QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox {
  background: @raised; color: @text; border: 1px solid @line; border-radius: @5; selection-background-color: @selection; selection-color: @onselection; }
QPlainTextEdit, QTextEdit { padding: @3; }
QTextBrowser { background: @dock; padding: @8; }
QLineEdit, QSpinBox, QDoubleSpinBox { padding: @3 @5; }
QComboBox { padding: @3 @5; }
QPlainTextEdit:focus, QLineEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus { border-color: @selection; }
QSpinBox::up-button, QSpinBox::down-button, QDoubleSpinBox::up-button, QDoubleSpinBox::down-button { width: 0; border: none; }
QCheckBox { color: @text; background: transparent; spacing: @5; }
QCheckBox::indicator { width: @12; height: @12; border: 1px solid @faint; border-radius: @3; background: @raised; }
QCheckBox::indicator:checked { background: @selection; border-color: @selection; }
QCheckBox:focus { color: @selection; }
QAbstractItemView { background: @dock; color: @text; border: none; outline: none; alternate-background-color: @raised; }
QTableView { gridline-color: @line; border: none; }
QAbstractItemView::item { padding: @3 @6; border: none; }
QAbstractItemView::item:selected { background: @soft; color: @text; }
QHeaderView { background: @dock; }
QHeaderView::section { background: @dock; color: @muted; border: none; border-bottom: 1px solid @line; padding: @4 @6; }
QTableCornerButton::section { background: @dock; border: none; }
QScrollBar:vertical { background: transparent; width: @10; margin: 0; }
QScrollBar:horizontal { background: transparent; height: @10; margin: 0; }
QScrollBar::handle { background: @line; border-radius: @4; min-height: @24; min-width: @24; margin: @2; }
QScrollBar::handle:hover { background: @faint; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QTabBar { background: @window; }
QTabBar::tab { background: @window; color: @muted; border: none; padding: @4 @10; }
QTabBar::tab:selected { color: @text; border-bottom: 2px solid @selection; }
QProgressBar { background: @raised; border: 1px solid @line; border-radius: @3; height: @6; text-align: center; }
QProgressBar::chunk { background: @selection; border-radius: @2; }
#palette, #toast { background: @raised; border: 1px solid @line; border-radius: @7; }
#palette QListView { background: @raised; }
#toast[level="error"] { border-left: 3px solid @error; }
#toast[level="note"] { border-left: 3px solid @selection; }
#card { background: @dock; border: 1px solid @line; border-radius: @9; }
#statusRow { background: @window; border-top: 1px solid @line; }
#toolRow { background: @window; border-bottom: 1px solid @line; }
#brand { font-weight: 700; color: @text; padding: 0 @5 0 @10; }
)";
  const QColor selection_hover = color(t.selection).lighter(t.dark ? 112 : 115);
  const std::pair<const char*, QString> names[] = {{"@window", css(t.window)},
                                                   {"@dock", css(t.dock)},
                                                   {"@raised", css(t.raised)},
                                                   {"@line", css(t.line)},
                                                   {"@text", css(t.text)},
                                                   {"@muted", css(t.muted)},
                                                   {"@faint", css(t.faint)},
                                                   {"@onselection", css(t.dark ? t.window : t.dock)},
                                                   {"@selectionhover", css(selection_hover)},
                                                   {"@selection", css(t.selection)},
                                                   {"@edit", css(t.edit)},
                                                   {"@error", css(t.error)},
                                                   {"@ok", css(t.ok)},
                                                   {"@soft", css(soft)},
                                                   {"@hover", css(hover)}};
  for (const auto& [name, value] : names) sheet.replace(name, value);
  for (const int size : {24, 26, 22, 12, 11, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    for (const char* end : {" ", ";", "\n"}) sheet.replace("@" + QString::number(size) + end, px(size) + end);
  }
  return sheet;
}

QFont sized(const char* family, QFont::StyleHint hint, double pixels) {
  QFont font{QString(family)};
  font.setStyleHint(hint);
  font.setPointSizeF(pixels * g_scale * 72.0 / 96.0);
  return font;
}

// A glyph drawn at whatever size the style asks for.
class GlyphEngine : public QIconEngine {
 public:
  GlyphEngine(Glyph glyph, QColor ink) : glyph_(glyph), ink_(ink) {}
  void paint(QPainter* painter, const QRect& rect, QIcon::Mode mode, QIcon::State) override {
    draw_glyph(*painter, glyph_, rect, mode == QIcon::Disabled ? color(current_theme().faint) : ink_);
  }
  QPixmap pixmap(const QSize& size, QIcon::Mode mode, QIcon::State state) override {
    QPixmap out(size);
    out.fill(Qt::transparent);
    QPainter painter(&out);
    paint(&painter, QRect(QPoint(), size), mode, state);
    return out;
  }
  QIconEngine* clone() const override { return new GlyphEngine(*this); }

 private:
  Glyph glyph_;
  QColor ink_;
};

// A three-quarter turn with an arrow head; mirrored: redo.
void draw_turn(QPainter& p, bool redo) {
  if (redo) {
    p.translate(16, 0);
    p.scale(-1, 1);
  }
  p.drawArc(QRectF(3.5, 3.5, 9, 9), -130 * 16, 260 * 16);
  p.drawPolyline(QPolygonF({{4.2, 1.6}, {4.6, 5.4}, {8.4, 5.2}}));
}

}  // namespace

QColor mix(Rgb a, Rgb b, double t) {
  const auto blend = [t](int from, int to) { return int(from + (to - from) * t + 0.5); };
  return QColor(blend(a.r, b.r), blend(a.g, b.g), blend(a.b, b.b));
}

double ui_scale() {
  return g_scale;
}
void set_ui_scale(double scale) {
  g_scale = std::clamp(scale, 0.8, 2.0);
}
QFont word_font() {
  return sized("Inter", QFont::SansSerif, 12.5);
}
QFont number_font() {
  QFont font = sized("JetBrains Mono", QFont::Monospace, 12);
  font.setFixedPitch(true);
  return font;
}

const Theme& current_theme() {
  return g_theme;
}

Theme theme_by_name(const QString& name) {
  const Theme& built_in = name == "light" ? light_theme() : dark_theme();
  const auto assets = find_assets();
  if (!assets) return built_in;
  const auto loaded = load_theme((*assets / "themes" / (built_in.name + ".json")).string());
  return loaded ? *loaded : built_in;
}

void apply_theme(QApplication& app, const Theme& theme) {
  g_theme = theme;
  static const bool styled = (QApplication::setStyle(QStyleFactory::create("Fusion")), true);
  (void)styled;
  app.setFont(word_font());
  app.setPalette(palette_of(theme));
  app.setStyleSheet(sheet_of(theme));
}

void draw_glyph(QPainter& p, Glyph glyph, const QRectF& where, QColor ink) {
  p.save();
  p.setRenderHint(QPainter::Antialiasing);
  p.translate(where.topLeft());
  p.scale(where.width() / 16.0, where.height() / 16.0);
  p.setPen(QPen(ink, 1.7, Qt::SolidLine, Qt::RoundCap, Qt::RoundJoin));
  const auto fill = [&](const QPolygonF& shape) {
    p.setBrush(ink);
    p.setPen(Qt::NoPen);
    p.drawPolygon(shape);
  };
  switch (glyph) {
    case Glyph::kPlay:
      fill(QPolygonF({{4, 2.5}, {13.5, 8}, {4, 13.5}}));
      break;
    case Glyph::kPause:
      p.fillRect(QRectF(3.5, 2.5, 3.4, 11), ink);
      p.fillRect(QRectF(9.1, 2.5, 3.4, 11), ink);
      break;
    case Glyph::kStep:
      fill(QPolygonF({{3, 2.5}, {10.5, 8}, {3, 13.5}}));
      p.fillRect(QRectF(11.2, 2.5, 2, 11), ink);
      break;
    case Glyph::kStop:
      p.fillRect(QRectF(3, 3, 10, 10), ink);
      break;
    case Glyph::kUndo:
      draw_turn(p, false);
      break;
    case Glyph::kRedo:
      draw_turn(p, true);
      break;
    case Glyph::kRecord:
      p.setBrush(ink);
      p.setPen(Qt::NoPen);
      p.drawEllipse(QPointF(8, 8), 4.2, 4.2);
      break;
    case Glyph::kClose:
      p.drawLine(QPointF(4, 4), QPointF(12, 12));
      p.drawLine(QPointF(12, 4), QPointF(4, 12));
      break;
    case Glyph::kModel:
      for (int i = 0; i < 9; ++i) p.fillRect(QRectF(2 + (i % 3) * 4.4, 2 + (i / 3) * 4.4, 3.2, 3.2), ink);
      break;
    case Glyph::kTrace:
      p.drawPolyline(QPolygonF({{1.5, 11}, {5, 4}, {8, 10}, {11, 6}, {14.5, 9}}));
      break;
    case Glyph::kFolder:
      p.drawPolygon(QPolygonF({{1.8, 3.5}, {6, 3.5}, {7.5, 5.3}, {14.2, 5.3}, {14.2, 12.8}, {1.8, 12.8}}));
      break;
  }
  p.restore();
}

QIcon glyph_icon(Glyph glyph, QColor ink) {
  return QIcon(new GlyphEngine(glyph, ink));
}

}  // namespace switchyard
