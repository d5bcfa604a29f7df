// Colours, spacing and fonts: the only place they are named (design: mock/README.md). Values come from
// assets/themes/{dark,light}.json; built-in equal values stand in when a file is missing.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"

namespace switchyard {

struct Rgb { uint8_t r = 0, g = 0, b = 0; };

struct Theme {
  std::string name;                                  // "dark"
  bool dark = true;
  Rgb window, dock, raised, line;
  Rgb text, muted, faint;
  Rgb selection, edit, error, ok;
};

const Theme& dark_theme();
const Theme& light_theme();
Result<Theme> load_theme(const std::string& file);

enum class ColorMap : uint8_t { kCividis, kViridis, kDiverging };
// t in 0..1 (diverging: 0.5 is zero); out of range is clamped; NaN gives the dock colour.
Rgb map_color(ColorMap map, double t, const Theme& theme);
// Categories (Okabe-Ito), index >= 0; the eighth is the first again.
inline constexpr int kCategories = 7;
Rgb category_color(int index);
// The same as a thin line on the dock: towards the text's colour until it stands out 3:1.
Rgb series_color(int index, const Theme& theme);
// An expert keeps its colour in all views: a stable hash of layer and expert.
Rgb expert_color(int moe_layer, int expert);
double contrast_ratio(Rgb a, Rgb b);  // WCAG 2

}  // namespace switchyard
