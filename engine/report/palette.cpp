// Tables of colours. Any thread.
#include "engine/report/palette.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace switchyard {
namespace {

constexpr Rgb rgb(uint32_t hex) { return {uint8_t(hex >> 16), uint8_t(hex >> 8), uint8_t(hex)}; }

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
    table[size_t(i)] = {mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
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

double linear(uint8_t channel) {
  const double c = channel / 255.0;
  return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
}

}  // namespace

Rgb map_color(ColorMap map, double t, bool dark) {
  const auto index = size_t(std::lround(std::clamp(t, 0.0, 1.0) * 255.0));
  return (map == ColorMap::kCividis ? cividis() : map == ColorMap::kViridis ? viridis() : diverging(dark))[index];
}

Rgb category_color(int index) {
  // Okabe and Ito (2008) without black, which is the ground of one theme and the text of the other.
  static constexpr std::array<Rgb, kCategories> kColors = {rgb(0xe69f00), rgb(0x56b4e9), rgb(0x009e73), rgb(0xf0e442),
                                                           rgb(0x0072b2), rgb(0xd55e00), rgb(0xcc79a7)};
  return kColors[size_t(index) % kColors.size()];
}

Rgb series_color(int index, Rgb ground, Rgb text) {
  const Rgb from = category_color(index);
  Rgb color = from;
  for (int step = 1; step <= 20 && contrast_ratio(color, ground) < 3.0; ++step) {
    const auto towards = [step](uint8_t a, uint8_t b) { return uint8_t(a + (b - a) * step / 20); };
    color = {towards(from.r, text.r), towards(from.g, text.g), towards(from.b, text.b)};
  }
  return color;
}

double contrast_ratio(Rgb a, Rgb b) {
  const auto luminance = [](Rgb c) { return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b); };
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

const ChartColors& print_colors() {
  static constexpr ChartColors kPrint{{0xff, 0xff, 0xff}, {0x1a, 0x1d, 0x23}, {0x5a, 0x64, 0x73}, {0xd5, 0xda, 0xe2}, {0xa8, 0x5f, 0x00}, false};
  return kPrint;
}

const ChartColors& night_colors() {
  static constexpr ChartColors kNight{{0x1b, 0x1e, 0x25}, {0xe7, 0xe9, 0xee}, {0x99, 0xa2, 0xb2}, {0x2c, 0x31, 0x3c}, {0xff, 0xb5, 0x4a}, true};
  return kNight;
}

}  // namespace switchyard
