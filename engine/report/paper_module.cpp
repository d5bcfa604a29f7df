// cairo and pango behind paper_module.h: the same shapes on a PDF page and in a PNG. One thread at a time.
#include "engine/report/paper_module.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>

#include <cairo-pdf.h>
#include <cairo.h>
#include <pango/pangocairo.h>

namespace switchyard {

namespace {

constexpr double kPageWidth = 595.28, kPageHeight = 841.89, kMargin = 62, kBottom = 66;
constexpr double kCaption = 44;  // under a figure, with its command
constexpr const char* kFonts = "Inter, DejaVu Sans, Droid Sans Fallback";
constexpr const char* kMono = "JetBrains Mono, DejaVu Sans Mono, Droid Sans Fallback";

struct SurfaceEnd {
  void operator()(cairo_surface_t* s) const { cairo_surface_destroy(s); }
};
using Surface = std::unique_ptr<cairo_surface_t, SurfaceEnd>;
struct ContextEnd {
  void operator()(cairo_t* c) const { cairo_destroy(c); }
};
using Context = std::unique_ptr<cairo_t, ContextEnd>;
struct ObjectEnd {
  void operator()(void* object) const { g_object_unref(object); }
};
using Layout = std::unique_ptr<PangoLayout, ObjectEnd>;
struct FontEnd {
  void operator()(PangoFontDescription* font) const { pango_font_description_free(font); }
};

Layout layout_of(cairo_t* cr, const char* families, double size, bool bold) {
  Layout layout(pango_cairo_create_layout(cr));
  const std::unique_ptr<PangoFontDescription, FontEnd> font(pango_font_description_new());
  pango_font_description_set_family(font.get(), families);
  pango_font_description_set_absolute_size(font.get(), size * PANGO_SCALE);
  if (bold) pango_font_description_set_weight(font.get(), PANGO_WEIGHT_SEMIBOLD);
  pango_layout_set_font_description(layout.get(), font.get());
  return layout;
}

double width_of(PangoLayout* layout) {
  int width = 0, height = 0;
  pango_layout_get_size(layout, &width, &height);
  return double(width) / PANGO_SCALE;
}
double height_of(PangoLayout* layout) {
  int width = 0, height = 0;
  pango_layout_get_size(layout, &width, &height);
  return double(height) / PANGO_SCALE;
}

void source(cairo_t* cr, Rgb c, double opacity = 1) { cairo_set_source_rgba(cr, c.r / 255.0, c.g / 255.0, c.b / 255.0, opacity); }

void paint_words(cairo_t* cr, const Shape& shape) {
  const Layout layout = layout_of(cr, kFonts, shape.size, shape.bold);
  pango_layout_set_single_paragraph_mode(layout.get(), TRUE);
  pango_layout_set_text(layout.get(), shape.words.data(), int(shape.words.size()));
  const double width = width_of(layout.get()), base = double(pango_layout_get_baseline(layout.get())) / PANGO_SCALE;
  cairo_save(cr);
  cairo_translate(cr, shape.x, shape.y);
  if (shape.upwards) cairo_rotate(cr, -3.14159265358979 / 2);
  cairo_move_to(cr, shape.anchor == Anchor::kStart ? 0 : shape.anchor == Anchor::kMiddle ? -width / 2 : -width, -base);
  pango_cairo_show_layout(cr, layout.get());
  cairo_restore(cr);
}

void paint(cairo_t* cr, const Drawing& drawing, const ChartColors& colors) {
  for (const Shape& shape : drawing.shapes) {
    source(cr, resolve(shape.ink, colors), shape.opacity);
    if (shape.kind == Shape::kWords) {
      paint_words(cr, shape);
      continue;
    }
    cairo_new_path(cr);
    if (shape.kind == Shape::kRect) cairo_rectangle(cr, shape.x, shape.y, shape.w, shape.h);
    for (const PathStep& s : shape.steps) {
      if (s.verb == 'M') cairo_move_to(cr, s.x, s.y);
      if (s.verb == 'L') cairo_line_to(cr, s.x, s.y);
      if (s.verb == 'C') cairo_curve_to(cr, s.x1, s.y1, s.x2, s.y2, s.x, s.y);
      if (s.verb == 'Z') cairo_close_path(cr);
    }
    if (shape.kind != Shape::kStroke) {
      cairo_fill(cr);
      continue;
    }
    cairo_set_line_width(cr, shape.width);
    cairo_set_dash(cr, shape.dashes.data(), int(shape.dashes.size()), 0);
    cairo_stroke(cr);
  }
}

// Hands bytes on and keeps the first problem.
struct Stream {
  PaperSink sink;
  std::string problem;
  static cairo_status_t write(void* self, const unsigned char* bytes, unsigned int count) {
    auto& stream = *static_cast<Stream*>(self);
    if (!stream.problem.empty()) return CAIRO_STATUS_WRITE_ERROR;
    const char* problem = stream.sink.write(stream.sink.context, bytes, count);
    if (problem == nullptr) return CAIRO_STATUS_SUCCESS;
    stream.problem = problem;
    return CAIRO_STATUS_WRITE_ERROR;
  }
};

const char* kept(const Stream& stream, cairo_status_t status) {
  static std::string text;
  text = !stream.problem.empty() ? stream.problem : status == CAIRO_STATUS_SUCCESS ? std::string() : cairo_status_to_string(status);
  return text.empty() ? nullptr : text.c_str();
}

const char* close(Stream& stream, cairo_t* cr, cairo_surface_t* surface) {
  const cairo_status_t drawn = cairo_status(cr);
  cairo_surface_finish(surface);
  return kept(stream, drawn != CAIRO_STATUS_SUCCESS ? drawn : cairo_surface_status(surface));
}

class Pages {
 public:
  Pages(cairo_t* cr, cairo_surface_t* surface) : cr_(cr), surface_(surface) {}

  void add(const PageItem& item) {
    switch (item.kind) {
      case PageItem::kTitle: words(item, kFonts, 20, true, 6); break;
      case PageItem::kHeading:
        y_ += 12;
        words(item, kFonts, 13, true, 5);
        break;
      case PageItem::kWords: words(item, kFonts, 9.5, false, 5); break;
      case PageItem::kSmall: words(item, kFonts, 8, false, 8); break;
      case PageItem::kCode: words(item, kMono, 7, false, 6); break;
      case PageItem::kTable: table(item); break;
      case PageItem::kFigure: figure(item.drawing); break;
    }
  }
  // A heading does not stand alone: with what follows it up to the first figure, or the first rows of a table, it goes to
  // the next page where this one has no room.
  void keep_together(std::span<const PageItem> heading_and_rest) {
    constexpr double kHead = 35, kParagraph = 28, kRows = 60;
    double height = kHead;
    for (const PageItem& item : heading_and_rest.subspan(1)) {
      height += item.kind == PageItem::kFigure ? item.drawing.height * scale_of(item.drawing) + kCaption : item.kind == PageItem::kTable ? kRows : kParagraph;
      if (item.kind != PageItem::kWords) break;
    }
    if (height > left() && height < kPageHeight - kBottom - kMargin) next();
  }
  void finish() { end_page(); }

 private:
  static double scale_of(const Drawing& drawing) {
    const double room = kPageHeight - kBottom - kMargin - kCaption;
    return std::min({1.0, (kPageWidth - 2 * kMargin) / drawing.width, room / drawing.height});
  }
  double left() const { return kPageHeight - kBottom - y_; }
  void end_page() {
    const Layout number = layout_of(cr_, kFonts, 8, false);
    pango_layout_set_text(number.get(), std::to_string(++page_).c_str(), -1);
    source(cr_, print_colors().muted);
    cairo_move_to(cr_, kPageWidth / 2 - width_of(number.get()) / 2, kPageHeight - 42);
    pango_cairo_show_layout(cr_, number.get());
  }
  void next() {
    end_page();
    cairo_surface_show_page(surface_);
    y_ = kMargin;
  }

  // Line by line, so that a long paragraph goes on over the page.
  void words(const PageItem& item, const char* fonts, double size, bool bold, double after) {
    const Layout layout = layout_of(cr_, fonts, size, bold);
    pango_layout_set_width(layout.get(), int((kPageWidth - 2 * kMargin - item.indent) * PANGO_SCALE));
    pango_layout_set_wrap(layout.get(), PANGO_WRAP_WORD_CHAR);
    pango_layout_set_markup(layout.get(), item.words.data(), int(item.words.size()));
    const std::unique_ptr<PangoLayoutIter, void (*)(PangoLayoutIter*)> lines(pango_layout_get_iter(layout.get()), pango_layout_iter_free);
    do {
      PangoRectangle box;
      pango_layout_iter_get_line_extents(lines.get(), nullptr, &box);
      const double height = double(box.height) / PANGO_SCALE * 1.12;
      if (height > left()) next();
      source(cr_, item.kind == PageItem::kCode || item.kind == PageItem::kSmall ? print_colors().muted : print_colors().text);
      cairo_move_to(cr_, kMargin + item.indent + double(box.x) / PANGO_SCALE, y_ + double(pango_layout_iter_get_baseline(lines.get()) - box.y) / PANGO_SCALE);
      pango_cairo_show_layout_line(cr_, pango_layout_iter_get_line_readonly(lines.get()));
      y_ += height;
    } while (pango_layout_iter_next_line(lines.get()));
    y_ += after;
  }

  void figure(const Drawing& drawing) {
    const double scale = scale_of(drawing);
    if (drawing.height * scale + kCaption > left()) next();
    cairo_save(cr_);
    cairo_translate(cr_, kMargin, y_);
    cairo_scale(cr_, scale, scale);
    paint(cr_, drawing, print_colors());
    cairo_restore(cr_);
    y_ += drawing.height * scale + 5;
  }

  void rule(double width, double thick) {
    source(cr_, print_colors().text);
    cairo_set_line_width(cr_, thick);
    cairo_set_dash(cr_, nullptr, 0, 0);
    cairo_move_to(cr_, kMargin, y_);
    cairo_line_to(cr_, kMargin + width, y_);
    cairo_stroke(cr_);
    y_ += 2;
  }

  void table(const PageItem& item) {
    if (item.rows.empty()) return;
    constexpr double kSize = 7.5, kGap = 9;
    const double most = kPageWidth - 2 * kMargin;
    const size_t columns = item.rows[0].size();
    std::vector<std::vector<Layout>> cells;
    std::vector<double> widths(columns);
    for (const auto& row : item.rows) {
      auto& line = cells.emplace_back();
      for (size_t c = 0; c < columns; ++c) {
        line.push_back(layout_of(cr_, kFonts, kSize, cells.size() == 1));
        pango_layout_set_text(line.back().get(), row[c].data(), int(row[c].size()));
        widths[c] = std::max(widths[c], width_of(line.back().get()));
      }
    }
    double sum = -kGap;
    for (const double width : widths) sum += width + kGap;
    if (sum > most) {  // the widest columns wrap
      for (int i = 0; i < 40 && sum > most; ++i) {
        const auto widest = std::max_element(widths.begin(), widths.end());
        const double cut = std::min(sum - most, *widest / 4);
        *widest -= cut, sum -= cut;
      }
      for (auto& line : cells)
        for (size_t c = 0; c < columns; ++c) {
          if (width_of(line[c].get()) <= widths[c] + 0.5) continue;
          pango_layout_set_width(line[c].get(), int(widths[c] * PANGO_SCALE));
          pango_layout_set_wrap(line[c].get(), PANGO_WRAP_WORD_CHAR);
        }
    }
    const auto height = [&](size_t row) {
      double tallest = 0;
      for (const Layout& cell : cells[row]) tallest = std::max(tallest, height_of(cell.get()));
      return tallest + 2;
    };
    const auto put = [&](size_t row) {
      double x = kMargin;
      const double tall = height(row);
      for (size_t c = 0; c < columns; ++c) {
        source(cr_, print_colors().text);
        const bool right = c < item.right.size() && item.right[c];
        cairo_move_to(cr_, right ? x + widths[c] - std::min(width_of(cells[row][c].get()), widths[c]) : x, y_);
        pango_cairo_show_layout(cr_, cells[row][c].get());
        x += widths[c] + kGap;
      }
      y_ += tall;
    };
    const auto head = [&] {
      rule(sum, 0.9);
      put(0);
      rule(sum, 0.5);
    };
    if (left() < height(0) * 3 + 12) next();
    head();
    for (size_t row = 1; row < cells.size(); ++row) {
      if (height(row) + 4 > left()) {
        rule(sum, 0.9);
        next();
        head();
      }
      put(row);
    }
    rule(sum, 0.9);
    y_ += 3;
  }

  cairo_t* cr_;
  cairo_surface_t* surface_;
  double y_ = kMargin;
  int page_ = 0;
};

const char* pdf_of_pages(const std::vector<PageItem>& items, const std::string& title, PaperSink sink) {
  Stream stream{sink, {}};
  const Surface surface(cairo_pdf_surface_create_for_stream(Stream::write, &stream, kPageWidth, kPageHeight));
  cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_TITLE, title.c_str());
  cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_CREATOR, "Switchyard");
  const Context cr(cairo_create(surface.get()));
  Pages pages(cr.get(), surface.get());
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].kind == PageItem::kHeading) pages.keep_together(std::span(items).subspan(i));
    pages.add(items[i]);
  }
  pages.finish();
  cairo_surface_show_page(surface.get());
  return close(stream, cr.get(), surface.get());
}

const char* pdf_of_drawing(const Drawing& drawing, PaperSink sink) {
  Stream stream{sink, {}};
  const Surface surface(cairo_pdf_surface_create_for_stream(Stream::write, &stream, drawing.width, drawing.height));
  const Context cr(cairo_create(surface.get()));
  paint(cr.get(), drawing, print_colors());
  cairo_surface_show_page(surface.get());
  return close(stream, cr.get(), surface.get());
}

const char* png_of_drawing(const Drawing& drawing, const ChartColors& colors, double scale, PaperSink sink) {
  Stream stream{sink, {}};
  const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, int(drawing.width * scale), int(drawing.height * scale)));
  const Context cr(cairo_create(surface.get()));
  source(cr.get(), colors.ground);
  cairo_paint(cr.get());
  cairo_scale(cr.get(), scale, scale);
  paint(cr.get(), drawing, colors);
  cairo_status_t status = cairo_status(cr.get());
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_write_to_png_stream(surface.get(), Stream::write, &stream);
  return kept(stream, status);
}

}  // namespace
}  // namespace switchyard

extern "C" __attribute__((visibility("default"))) const switchyard::PaperModule* switchyard_paper_module() {
  static constexpr switchyard::PaperModule kModule{switchyard::pdf_of_pages, switchyard::pdf_of_drawing, switchyard::png_of_drawing};
  return &kModule;
}
