// Colours: readable text, honest colour maps, one colour per expert; theme files.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

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
