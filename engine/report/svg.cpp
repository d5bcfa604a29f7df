// Drawings as SVG: text stays text, every mark that stands for a value says it in a <title>. Any thread.
#include <cmath>

#include <fmt/format.h>

#include "engine/report/drawing.h"

namespace switchyard {

namespace {

// At most two decimals: a hundredth of a point is finer than any printer.
std::string number(double value) {
  const double rounded = std::round(value * 100) / 100;
  return fmt::format("{}", rounded == 0 ? 0.0 : rounded);
}

std::string hex(Rgb c) { return fmt::format("#{:02x}{:02x}{:02x}", c.r, c.g, c.b); }

class Writer {
 public:
  explicit Writer(const ChartColors* colors) : colors_(colors) {}

  std::string body(const Drawing& drawing) {
    for (const Shape& shape : drawing.shapes) add(shape);
    return std::move(out_);
  }

 private:
  std::string paint(const Shape& shape) const {
    const bool strokes = shape.kind == Shape::kStroke;
    std::string out;
    if (colors_ != nullptr) {
      out = fmt::format(" {}=\"{}\"", strokes ? "stroke" : "fill", hex(resolve(shape.ink, *colors_)));
      if (strokes) out += " fill=\"none\"";
    } else if (shape.ink.role == Ink::kData) {
      out = fmt::format(" {}=\"{}\"", strokes ? "stroke" : "fill", hex(shape.ink.rgb));
      if (strokes) out += " fill=\"none\"";
    } else {
      constexpr const char* kRoles[] = {"g", "t", "m", "l", "k"};
      const std::string role = shape.ink.role == Ink::kSeries ? "s" + std::to_string(shape.ink.series % kCategories) : kRoles[shape.ink.role];
      out = fmt::format(" class=\"{}{}\"", strokes ? "o" : "", role);
    }
    if (strokes) out += fmt::format(" stroke-width=\"{}\"", number(shape.width));
    if (shape.opacity < 1) out += fmt::format(" opacity=\"{}\"", number(shape.opacity));
    if (!shape.dashes.empty()) {
      std::string dashes;
      for (const double dash : shape.dashes) dashes += (dashes.empty() ? "" : " ") + number(dash);
      out += " stroke-dasharray=\"" + dashes + "\"";
    }
    return out;
  }

  void add(const Shape& shape) {
    const char* element = shape.kind == Shape::kRect ? "rect" : shape.kind == Shape::kWords ? "text" : "path";
    out_ += fmt::format("<{}", element);
    if (shape.kind == Shape::kRect) {
      out_ += fmt::format(" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"", number(shape.x), number(shape.y), number(shape.w), number(shape.h));
    } else if (shape.kind == Shape::kWords) {
      out_ += fmt::format(" x=\"{}\" y=\"{}\" font-size=\"{}\"", number(shape.x), number(shape.y), number(shape.size));
      if (shape.anchor != Anchor::kStart) out_ += shape.anchor == Anchor::kMiddle ? " text-anchor=\"middle\"" : " text-anchor=\"end\"";
      if (shape.bold) out_ += " font-weight=\"600\"";
      if (shape.upwards) out_ += fmt::format(" transform=\"rotate(-90 {} {})\"", number(shape.x), number(shape.y));
    } else {
      out_ += " d=\"";
      for (const PathStep& s : shape.steps) {
        out_ += s.verb;
        if (s.verb == 'C') out_ += fmt::format("{} {} {} {} ", number(s.x1), number(s.y1), number(s.x2), number(s.y2));
        if (s.verb != 'Z') out_ += fmt::format("{} {}", number(s.x), number(s.y));
      }
      out_ += "\"";
    }
    out_ += paint(shape);
    if (shape.kind == Shape::kWords) {
      out_ += ">" + xml_text(shape.words) + "</text>";
    } else if (shape.says.empty()) {
      out_ += "/>";
    } else {
      out_ += fmt::format("><title>{}</title></{}>", xml_text(shape.says), element);
    }
    out_ += "\n";
  }

  const ChartColors* colors_;
  std::string out_;
};

std::string head(const Drawing& drawing, const char* more) {
  return fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}pt\" height=\"{1}pt\" role=\"img\"{2}>\n<title>{3}</title>\n",
                     number(drawing.width), number(drawing.height), more, xml_text(drawing.title));
}

}  // namespace

std::string svg_of(const Drawing& drawing, const ChartColors& colors) {
  return head(drawing, " font-family=\"Inter, 'DejaVu Sans', Helvetica, Arial, sans-serif\"") +
         fmt::format("<rect x=\"0\" y=\"0\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n", number(drawing.width), number(drawing.height), hex(colors.ground)) +
         Writer(&colors).body(drawing) + "</svg>\n";
}

std::string svg_inside(const Drawing& drawing) { return head(drawing, " class=\"c\"") + Writer(nullptr).body(drawing) + "</svg>\n"; }

}  // namespace switchyard
