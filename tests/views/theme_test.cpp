// Colours: readable text, honest colour maps, one colour per expert; theme files.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "views/ui/theme.h"

namespace switchyard {
namespace {

double luminance(Rgb c) {
  return contrast_ratio(c, {0, 0, 0}) * 0.05 - 0.05;
}

// WCAG 2: 4.5 for text, 3 for large text and marks. `faint` is for lines and disabled words only.
TEST(Theme, TextIsReadableInBothThemes) {
  for (const Theme* theme : {&dark_theme(), &light_theme()})
    for (const Rgb ground : {theme->window, theme->dock, theme->raised}) {
      EXPECT_GE(contrast_ratio(theme->text, ground), 4.5) << theme->name;
      EXPECT_GE(contrast_ratio(theme->muted, ground), 4.5) << theme->name;
      EXPECT_GE(contrast_ratio(theme->edit, ground), 3.0) << theme->name;
      EXPECT_GE(contrast_ratio(theme->selection, ground), 3.0) << theme->name;
      EXPECT_GE(contrast_ratio(theme->error, ground), 3.0) << theme->name;
    }
  for (const Theme* theme : {&dark_theme(), &light_theme()}) {
    EXPECT_GE(contrast_ratio(theme->edit, theme->dock), 4.5) << theme->name;
    EXPECT_GE(contrast_ratio(theme->faint, theme->dock), 3.0) << theme->name;
  }
}

// WCAG's own example: black on white is 21.
TEST(Theme, ContrastOfBlackOnWhiteIsTwentyOne) {
  EXPECT_NEAR(contrast_ratio({0, 0, 0}, {255, 255, 255}), 21.0, 1e-9);
  EXPECT_NEAR(contrast_ratio({120, 30, 80}, {120, 30, 80}), 1.0, 1e-9);
}

TEST(ColorMap, SequentialMapsOnlyGetLighter) {
  for (const ColorMap map : {ColorMap::kCividis, ColorMap::kViridis}) {
    double before = -1;
    for (int i = 0; i <= 255; ++i) {
      const double now = luminance(map_color(map, i / 255.0, dark_theme()));
      EXPECT_GE(now, before - 0.001) << int(map) << " at " << i;
      before = now;  // 0.001: rounding of the channels to 8 bits
    }
    EXPECT_GT(before, 0.6);
  }
}

// End colours as published (matplotlib, viridisLite).
TEST(ColorMap, EndsAreThePublishedOnes) {
  const auto equal = [](Rgb a, Rgb b) { return a.r == b.r && a.g == b.g && a.b == b.b; };
  EXPECT_TRUE(equal(map_color(ColorMap::kViridis, 0, dark_theme()), {0x44, 0x01, 0x54}));
  EXPECT_TRUE(equal(map_color(ColorMap::kViridis, 1, dark_theme()), {0xfd, 0xe7, 0x25}));
  EXPECT_TRUE(equal(map_color(ColorMap::kCividis, 0, dark_theme()), {0x00, 0x20, 0x4d}));
  EXPECT_TRUE(equal(map_color(ColorMap::kCividis, 1, dark_theme()), {0xff, 0xea, 0x46}));
}

TEST(ColorMap, DivergingIsQuietAtZeroAndStrongAtBothEnds) {
  for (const Theme* theme : {&dark_theme(), &light_theme()}) {
    const double zero = contrast_ratio(map_color(ColorMap::kDiverging, 0.5, *theme), theme->dock);
    EXPECT_LT(zero, 1.4) << theme->name;
    EXPECT_GT(contrast_ratio(map_color(ColorMap::kDiverging, 0.0, *theme), theme->dock), 3.0) << theme->name;
    EXPECT_GT(contrast_ratio(map_color(ColorMap::kDiverging, 1.0, *theme), theme->dock), 3.0) << theme->name;
  }
}

TEST(ColorMap, OutOfRangeIsClampedAndNanIsTheGround) {
  const auto same = [](Rgb a, Rgb b) { return a.r == b.r && a.g == b.g && a.b == b.b; };
  EXPECT_TRUE(same(map_color(ColorMap::kViridis, -3, dark_theme()), map_color(ColorMap::kViridis, 0, dark_theme())));
  EXPECT_TRUE(same(map_color(ColorMap::kViridis, 1e30, dark_theme()), map_color(ColorMap::kViridis, 1, dark_theme())));
  EXPECT_TRUE(same(map_color(ColorMap::kViridis, std::nan(""), light_theme()), light_theme().dock));
}

TEST(ExpertColor, IsStableAndUsesThePalette) {
  std::set<int> seen;
  for (int e = 0; e < 64; ++e) {
    const Rgb a = expert_color(3, e), b = expert_color(3, e);
    EXPECT_TRUE(a.r == b.r && a.g == b.g && a.b == b.b);
    seen.insert(a.r << 16 | a.g << 8 | a.b);
  }
  EXPECT_EQ(seen.size(), 7u);  // Okabe-Ito without black
}

TEST(SeriesColor, StandsOutOnTheDockAndIsNoOthers) {
  for (const Theme* theme : {&dark_theme(), &light_theme()}) {
    std::set<int> seen;
    for (int series = 0; series < kCategories; ++series) {
      const Rgb color = series_color(series, *theme);
      EXPECT_GE(contrast_ratio(color, theme->dock), 3.0) << theme->name << " " << series;
      seen.insert(color.r << 16 | color.g << 8 | color.b);
    }
    EXPECT_EQ(seen.size(), size_t(kCategories));
  }
}

// Dichromacy as Machado, Oliveira and Fernandes simulate it ("A Physiologically-based Model for Simulation of Color
// Vision Deficiency", 2009, severity 1.0, on linear RGB); distances in CIELAB (D65), where 2.3 is just noticeable.
struct Eye {
  const char* name;
  double matrix[3][3];
};
constexpr Eye kEyes[] = {
    {"protan", {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}}},
    {"deutan", {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}}},
    {"tritan", {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}}},
};

struct Lab {
  double l, a, b;
};

Lab seen_by(const Eye& eye, Rgb color) {
  const auto linear = [](uint8_t channel) {
    const double c = channel / 255.0;
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  const double in[3] = {linear(color.r), linear(color.g), linear(color.b)};
  double rgb[3];
  for (int i = 0; i < 3; ++i)
    rgb[i] = std::clamp(eye.matrix[i][0] * in[0] + eye.matrix[i][1] * in[1] + eye.matrix[i][2] * in[2], 0.0, 1.0);
  const auto f = [](double t) { return t > 216.0 / 24389 ? std::cbrt(t) : (24389.0 / 27 * t + 16) / 116; };
  const double x = f((0.4124564 * rgb[0] + 0.3575761 * rgb[1] + 0.1804375 * rgb[2]) / 0.95047);
  const double y = f(0.2126729 * rgb[0] + 0.7151522 * rgb[1] + 0.0721750 * rgb[2]);
  const double z = f((0.0193339 * rgb[0] + 0.1191920 * rgb[1] + 0.9503041 * rgb[2]) / 1.08883);
  return {116 * y - 16, 500 * (x - y), 200 * (y - z)};
}

double distance_for(const Eye& eye, Rgb a, Rgb b) {
  const Lab x = seen_by(eye, a), y = seen_by(eye, b);
  return std::hypot(x.l - y.l, std::hypot(x.a - y.a, x.b - y.b));
}

TEST(ColourBlind, SelectionAndEditsAreFarApartAndNoTwoSignalsLookAlike) {
  for (const Theme* theme : {&dark_theme(), &light_theme()})
    for (const Eye& eye : kEyes) {
      EXPECT_GT(distance_for(eye, theme->selection, theme->edit), 60) << theme->name << " " << eye.name;
      const Rgb signals[] = {theme->selection, theme->edit, theme->error, theme->ok, theme->text, theme->muted};
      for (size_t i = 0; i < std::size(signals); ++i)
        for (size_t j = 0; j < i; ++j)
          EXPECT_GT(distance_for(eye, signals[i], signals[j]), 10) << theme->name << " " << eye.name << " " << i << j;
    }
}

TEST(ColourBlind, ScalesKeepTheirOrderAndTheirEnds) {
  for (const Eye& eye : kEyes) {
    for (const Theme* theme : {&dark_theme(), &light_theme()}) {
      const auto at = [&](double t) { return map_color(ColorMap::kDiverging, t, *theme); };
      EXPECT_GT(distance_for(eye, at(0), at(1)), 60) << theme->name << " " << eye.name;
      EXPECT_GT(distance_for(eye, at(0.25), at(0.75)), 30) << theme->name << " " << eye.name;
    }
    for (const ColorMap map : {ColorMap::kCividis, ColorMap::kViridis}) {
      double before = -1;
      for (int i = 0; i <= 32; ++i) {
        const double now = seen_by(eye, map_color(map, i / 32.0, dark_theme())).l;
        EXPECT_GT(now, before) << eye.name << " map " << int(map) << " at " << i;
        before = now;
      }
    }
    std::set<int> values;
    std::vector<Rgb> categories;
    for (int e = 0; e < 64; ++e)
      if (const Rgb c = expert_color(0, e); values.insert(c.r << 16 | c.g << 8 | c.b).second) categories.push_back(c);
    for (size_t i = 0; i < categories.size(); ++i)
      for (size_t j = 0; j < i; ++j) EXPECT_GT(distance_for(eye, categories[i], categories[j]), 15) << eye.name;
  }
}

TEST(ThemeFile, ShippedFilesAreReadAndEqualTheBuiltInValues) {
  for (const char* name : {"dark", "light"}) {
    const auto theme = load_theme(std::string(SWITCHYARD_SOURCE_DIR "/assets/themes/") + name + ".json");
    ASSERT_TRUE(theme) << theme.error().message();
    EXPECT_EQ(theme->name, name);
    const Theme& used = theme->dark ? dark_theme() : light_theme();
    EXPECT_EQ(theme->edit.r, used.edit.r);
    EXPECT_EQ(theme->dock.b, used.dock.b);
  }
}

TEST(ThemeFile, SaysWhichColourIsWrong) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "t.json").string();
  std::ofstream(file) << R"({"name": "x", "dark": true, "window": "#15171c", "dock": "blue"})";
  const auto theme = load_theme(file);
  ASSERT_FALSE(theme);
  EXPECT_NE(theme.error().message().find("\"dock\" must be a colour"), std::string::npos) << theme.error().message();
  EXPECT_FALSE(load_theme((folder.path() / "missing.json").string()));
}

}  // namespace
}  // namespace switchyard
