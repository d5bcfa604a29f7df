// The themes (design: mock/README.md); colour maps and categories are those of reports. Values come from
// assets/themes/{dark,light}.json; built-in equal values stand in when a file is missing.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"
#include "engine/report/palette.h"

namespace switchyard {

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

// map_color() on the theme's ground; NaN gives the dock colour.
Rgb map_color(ColorMap map, double t, const Theme& theme);
// series_color() on the dock.
Rgb series_color(int index, const Theme& theme);
// An expert keeps its colour in all views: a stable hash of layer and expert.
Rgb expert_color(int moe_layer, int expert);

}  // namespace switchyard
