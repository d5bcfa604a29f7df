// Colours of what is printed and drawn: colour maps, categories, and the roles of everything else. The window's themes and
// the reports read the same tables. Pure; any thread.
#pragma once

#include <cstdint>

namespace switchyard {

struct Rgb { uint8_t r = 0, g = 0, b = 0; };

enum class ColorMap : uint8_t { kCividis, kViridis, kDiverging };
// t in 0..1 (diverging: 0.5 is zero); out of range is clamped. dark: the ground on which zero of the diverging map lies.
Rgb map_color(ColorMap map, double t, bool dark);
// Categories (Okabe-Ito without black), index >= 0; the eighth is the first again.
inline constexpr int kCategories = 7;
Rgb category_color(int index);
// The same as a thin line on `ground`: towards the text's colour until it stands out 3:1.
Rgb series_color(int index, Rgb ground, Rgb text);
double contrast_ratio(Rgb a, Rgb b);  // WCAG 2

// What a chart takes its other colours from.
struct ChartColors {
  Rgb ground, text, muted, line, mark;
  bool dark = false;
};
const ChartColors& print_colors();  // on white paper; text and muted stand out 4.5:1, mark 3:1
const ChartColors& night_colors();  // of a report that is read in the dark

}  // namespace switchyard
