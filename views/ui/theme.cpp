#include "views/ui/theme.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

constexpr Rgb rgb(uint32_t hex) {
  return {uint8_t(hex >> 16), uint8_t(hex >> 8), uint8_t(hex)};
}

Theme built_in_dark() {
  Theme t;
  t.name = "dark";
  t.dark = true;
  t.window = rgb(0x15171c), t.dock = rgb(0x1b1e25), t.raised = rgb(0x232731), t.line = rgb(0x2c313c);
  t.text = rgb(0xe7e9ee), t.muted = rgb(0x99a2b2), t.faint = rgb(0x6b7484);
  t.selection = rgb(0x57b8ff), t.edit = rgb(0xffb54a), t.error = rgb(0xff7a70), t.ok = rgb(0x63d297);
  return t;
}

Theme built_in_light() {
  Theme t;
  t.name = "light";
  t.dark = false;
  t.window = rgb(0xeef0f4), t.dock = rgb(0xffffff), t.raised = rgb(0xf3f5f8), t.line = rgb(0xd5dae2);
  t.text = rgb(0x1a1d23), t.muted = rgb(0x5a6473), t.faint = rgb(0x8a93a3);
  t.selection = rgb(0x0b6fc4), t.edit = rgb(0xa85f00), t.error = rgb(0xc4322b), t.ok = rgb(0x1c8a50);
  return t;
}

// The shipped file where it can be read, so that a colour is changed in one place; else equal values.
Theme shipped(const char* name, Theme fallback) {
  const auto assets = find_assets();
  if (!assets) return fallback;
  auto theme = load_theme((*assets / "themes" / (std::string(name) + ".json")).string());
  return theme ? *theme : fallback;
}

using Table = std::array<Rgb, 256>;

// Straight lines between control points in sRGB; between ten points the published tables differ from
// that by at most two steps of 255.
template <size_t N>
Table table_from(const std::array<uint32_t, N>& points) {
  Table table;
  for (int i = 0; i < 256; ++i) {
    const double at = i / 255.0 * double(N - 1);
    const size_t left = std::min(size_t(at), N - 2);
    const double part = at - double(left);
    const Rgb a = rgb(points[left]), b = rgb(points[left + 1]);
    const auto mix = [part](uint8_t x, uint8_t y) { return uint8_t(std::lround(x + (y - x) * part)); };
    table[i] = {mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
  }
  return table;
}

// Cividis (Nunez, Anderton, Renslow 2018) and viridis (Smith, van der Walt 2015), evenly spaced samples
// of the published maps.
const Table& cividis() {
  static const Table table = table_from(std::array<uint32_t, 10>{0x00204d, 0x00336f, 0x39486b, 0x575c6d, 0x707173,
                                                                 0x8a8779, 0xa69d75, 0xc4b56c, 0xe4cf5b, 0xffea46});
  return table;
}

const Table& viridis() {
  static const Table table = table_from(std::array<uint32_t, 11>{
      0x440154, 0x482475, 0x414487, 0x355f8d, 0x2a788e, 0x21918c, 0x22a884, 0x44bf70, 0x7ad151, 0xbddf26, 0xfde725});
  return table;
}

// Blue below zero, orange above: told apart under all three dichromacies. Zero is near the background.
const Table& diverging(bool dark) {
  static const Table on_dark = table_from(std::array<uint32_t, 5>{0x7cc4ff, 0x3f78b8, 0x2a2e38, 0xb8662f, 0xffa868});
  static const Table on_light = table_from(std::array<uint32_t, 5>{0x114a8c, 0x7fa9d6, 0xeef0f3, 0xe0a179, 0x97400c});
  return dark ? on_dark : on_light;
}

Result<Rgb> color_of(const nlohmann::json& object, const char* key, const std::string& file) {
  const auto it = object.find(key);
  unsigned value = 0;
  char tail = 0;
  if (it == object.end() || !it->is_string() || it->get_ref<const std::string&>().size() != 7 ||
      std::sscanf(it->get_ref<const std::string&>().c_str(), "#%6x%c", &value, &tail) != 1)
    return fail(ErrorCode::kMalformed, std::string("\"") + key + "\" must be a colour like \"#1b1e25\".", file);
  return rgb(value);
}

double linear(uint8_t channel) {
  const double c = channel / 255.0;
  return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
}

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

const Theme& dark_theme() {
  static const Theme theme = shipped("dark", built_in_dark());
  return theme;
}

const Theme& light_theme() {
  static const Theme theme = shipped("light", built_in_light());
  return theme;
}

Result<Theme> load_theme(const std::string& file) {
  std::ifstream stream(file);
  if (!stream) return fail(ErrorCode::kNotFound, "the theme cannot be read.", file);
  std::stringstream text;
  text << stream.rdbuf();
  const auto json = nlohmann::json::parse(text.str(), nullptr, false);
  if (!json.is_object()) return fail(ErrorCode::kMalformed, "a theme is one JSON object.", file);
  Theme theme;
  if (!json.contains("name") || !json["name"].is_string() || !json.contains("dark") || !json["dark"].is_boolean())
    return fail(ErrorCode::kMalformed, "\"name\" (text) and \"dark\" (true or false) are needed.", file);
  theme.name = json["name"].get<std::string>();
  theme.dark = json["dark"].get<bool>();
  const std::pair<const char*, Rgb Theme::*> colors[] = {{"window", &Theme::window}, {"dock", &Theme::dock},
                                                         {"raised", &Theme::raised}, {"line", &Theme::line},
                                                         {"text", &Theme::text},     {"muted", &Theme::muted},
                                                         {"faint", &Theme::faint},   {"selection", &Theme::selection},
                                                         {"edit", &Theme::edit},     {"error", &Theme::error},
                                                         {"ok", &Theme::ok}};
  for (const auto& [key, member] : colors) {
    SY_TRY(theme.*member, color_of(json, key, file));
  }
  return theme;
}

Rgb map_color(ColorMap map, double t, const Theme& theme) {
  if (std::isnan(t)) return theme.dock;
  const int index = int(std::lround(std::clamp(t, 0.0, 1.0) * 255.0));
  switch (map) {
    case ColorMap::kCividis:
      return cividis()[index];
    case ColorMap::kViridis:
      return viridis()[index];
    case ColorMap::kDiverging:
      return diverging(theme.dark)[index];
  }
  return theme.dock;
}

Rgb category_color(int index) {
  // Okabe and Ito (2008) without black, which is the ground of one theme and the text of the other.
  static constexpr std::array<Rgb, kCategories> kColors = {rgb(0xe69f00), rgb(0x56b4e9), rgb(0x009e73), rgb(0xf0e442),
                                                           rgb(0x0072b2), rgb(0xd55e00), rgb(0xcc79a7)};
  return kColors[size_t(index) % kColors.size()];
}

Rgb series_color(int index, const Theme& theme) {
  const Rgb from = category_color(index);
  Rgb color = from;
  for (int step = 1; step <= 20 && contrast_ratio(color, theme.dock) < 3.0; ++step) {
    const auto towards = [step](uint8_t a, uint8_t b) { return uint8_t(a + (b - a) * step / 20); };
    color = {towards(from.r, theme.text.r), towards(from.g, theme.text.g), towards(from.b, theme.text.b)};
  }
  return color;
}

Rgb expert_color(int moe_layer, int expert) {
  return category_color(int(mixed(uint64_t(moe_layer) << 32 | uint32_t(expert)) % kCategories));
}

double contrast_ratio(Rgb a, Rgb b) {
  const auto luminance = [](Rgb c) { return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b); };
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

}  // namespace switchyard
