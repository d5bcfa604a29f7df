// Text of drawings: how wide it is. Any thread.
#include "engine/report/drawing.h"

#include <algorithm>
#include <array>

namespace switchyard {

namespace {

// Thousandths of the size, of U+0020 to U+007E in DejaVu Sans.
constexpr std::array<uint16_t, 95> kWidths = {
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787,
    603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635,
    634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838};

int width_of(char32_t c) {
  if (c >= 0x20 && c < 0x7f) return kWidths[c - 0x20];
  return c >= 0x1100 ? 1000 : 650;
}

}  // namespace

Rgb resolve(const Ink& ink, const ChartColors& colors) {
  switch (ink.role) {
    case Ink::kGround: return colors.ground;
    case Ink::kText: return colors.text;
    case Ink::kMuted: return colors.muted;
    case Ink::kLine: return colors.line;
    case Ink::kMark: return colors.mark;
    case Ink::kSeries: return series_color(ink.series, colors.ground, colors.text);
    case Ink::kData: break;
  }
  return ink.rgb;
}

double text_width(std::string_view text, double size) {
  double sum = 0;
  for (size_t at = 0; at < text.size();) sum += width_of(next_character(text, at));
  return sum * size / 1000;
}

std::string fitted(std::string_view text, double size, double width) {
  if (text_width(text, size) <= width) return std::string(text);
  double sum = size;  // of the ellipsis
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t before = at;
    sum += width_of(next_character(text, at)) * size / 1000;
    if (sum > width) {
      end = before;
      break;
    }
  }
  return std::string(text.substr(0, end)) + "…";
}

}  // namespace switchyard
