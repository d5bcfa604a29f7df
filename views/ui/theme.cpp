#include "views/ui/theme.h"

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

Result<Rgb> color_of(const nlohmann::json& object, const char* key, const std::string& file) {
  const auto it = object.find(key);
  unsigned value = 0;
  char tail = 0;
  if (it == object.end() || !it->is_string() || it->get_ref<const std::string&>().size() != 7 ||
      std::sscanf(it->get_ref<const std::string&>().c_str(), "#%6x%c", &value, &tail) != 1)
    return fail(ErrorCode::kMalformed, std::string("\"") + key + "\" must be a colour like \"#1b1e25\".", file);
  return rgb(value);
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
  return std::isnan(t) ? theme.dock : map_color(map, t, theme.dark);
}

Rgb series_color(int index, const Theme& theme) {
  return series_color(index, theme.dock, theme.text);
}

Rgb expert_color(int moe_layer, int expert) {
  return category_color(int(mixed(uint64_t(moe_layer) << 32 | uint32_t(expert)) % kCategories));
}

}  // namespace switchyard
