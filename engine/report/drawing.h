// A picture as a list of shapes: what draw_chart() lays out once and every renderer (SVG, PDF, PNG, the window) paints as
// it is. Lengths in points (1/72 inch), y downwards. Values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/sinks.h"
#include "engine/report/palette.h"

namespace switchyard {

// A colour by what it is for, so that one drawing serves a dark and a light ground.
struct Ink {
  enum Role : uint8_t { kGround, kText, kMuted, kLine, kMark, kSeries, kData };
  Role role = kText;
  int series = 0;  // kSeries: place among the categories
  Rgb rgb;    // kData: the same on every ground
};
Rgb resolve(const Ink& ink, const ChartColors& colors);

enum class Anchor : uint8_t { kStart, kMiddle, kEnd };

struct PathStep {  // M, L, C (two handles, then the end) or Z
  char verb = 'M';
  double x = 0, y = 0, x1 = 0, y1 = 0, x2 = 0, y2 = 0;
};

struct Shape {
  enum Kind : uint8_t { kRect, kStroke, kFill, kWords };
  Kind kind = kRect;
  Ink ink;
  double opacity = 1;
  double x = 0, y = 0, w = 0, h = 0;  // of a rectangle; of words x, y: their anchor on the base line
  double width = 0.75;                // of a stroke
  std::vector<double> dashes;
  std::vector<PathStep> steps;
  std::string words;                  // UTF-8, already fit to show
  double size = 7;                    // of words
  Anchor anchor = Anchor::kStart;
  bool bold = false, upwards = false;  // upwards: turned by 90 degrees against the clock
  std::string says;                   // what it stands for, with its value; tooltip and text for readers. Empty: nothing
};

struct Drawing {
  double width = 0, height = 0;
  std::string title;  // for readers that see no picture
  std::vector<Shape> shapes;
};

// Width of a line of text, in points: of DejaVu Sans, which is wider than what is usually chosen in its place.
double text_width(std::string_view utf8, double size);
// Shortened with an ellipsis where it is wider.
std::string fitted(std::string_view utf8, double size, double width);
std::string svg_of(const Drawing& drawing, const ChartColors& colors);  // a file of its own
// For inside an HTML page: roles are classes (g t m l k s0…s6 c), filled by the page's style.
std::string svg_inside(const Drawing& drawing);

}  // namespace switchyard
