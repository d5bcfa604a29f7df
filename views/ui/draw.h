// Small drawing words shared by the views: text in two faces, hatching, frames, legends, empty states.
// All sizes are multiples of the letter size. GUI thread, inside a frame of the current ImGui context.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <imgui.h>

#include "views/host/item_map.h"
#include "views/ui/theme.h"

namespace switchyard {

struct ViewContext;

enum class Face { kWords, kBold, kMono };
enum class Align { kLeft, kCentre, kRight };

// ImGui sizes a face by its line height (Inter: 1.21 em); words of 12.5 pixels need a face of 15.
inline constexpr float kLineHeight = 1.2f;
inline constexpr float kSmall = 0.88f;  // axis labels and other secondary numbers

ImU32 ink(Rgb color, float alpha = 1.0f);
Rgb mix(Rgb a, Rgb b, float part);  // part 0: a
float em(float sizes = 1.0f);       // logical pixels of that many letter sizes (12.5 pixels each at zoom 1)

float text_width(Face face, std::string_view text, float size = 1.0f);
// y is the middle of the line. Returns the width drawn.
float draw_text(ImVec2 at, Face face, ImU32 color, std::string_view text, Align align = Align::kLeft,
                float size = 1.0f);
// Cut with "…" to at most `width` pixels, at character boundaries.
std::string fitted(Face face, std::string_view text, float width, float size = 1.0f);

void fill(const ItemRect& rect, ImU32 color, float rounding = 0);
void frame(const ItemRect& rect, ImU32 color, float thickness = 1, float rounding = 0);
// The frame of the selection: the accent on a thin rim of the ground, seen on every colour of the maps.
void selection_frame(const ItemRect& rect, const Theme& theme, float thickness = 2);
// Diagonal stripes, clipped to the rectangle.
void hatch(const ItemRect& rect, ImU32 color, float spacing = 5, float thickness = 1);
void dashed_line(ImVec2 from, ImVec2 to, ImU32 color, float dash = 4, float gap = 3);
// The ringed dot of a selected expert, readable on every colour of the maps.
void ringed_dot(ImVec2 centre, float radius);
ItemRect inset(const ItemRect& rect, float by);

// A vertical colour bar. ticks: values in 0..1 with their words, from the bottom.
struct LegendTick {
  double at = 0;
  std::string words;
  bool strong = false;
};
void legend_column(const ItemRect& bar, ColorMap map, const Theme& theme, const std::vector<LegendTick>& ticks);
// A horizontal one with words at both ends, one line high; returns its width.
float legend_line(ImVec2 at, float bar_width, ColorMap map, const Theme& theme, std::string_view low,
                  std::string_view high);

// Name and value in one line ("MaxVio 2.63"), the value in the mono face; returns the width.
float named_value(ImVec2 at, const Theme& theme, std::string_view name, std::string_view value, ImU32 value_color = 0);

// Named values side by side, wrapped to the width; each becomes an item of the view ("stat/MaxVio").
class ValueFlow {
 public:
  ValueFlow(const ViewContext& context, float x0, float x1, float first_line);
  // detail: the formula. color 0: the text colour.
  void add(std::string_view name, double value, std::string_view text, std::string_view unit, std::string_view detail,
           ImU32 color = 0);
  float bottom() const { return y_ + em(0.9f); }

 private:
  const ViewContext& context_;
  float x0_, x1_, x_, y_;
};

// The picture of nothing: what is missing and the one step that helps. action empty: no button.
void empty_state(const ViewContext& context, std::string_view title, std::string_view next_step,
                 std::string_view button = {}, std::string_view action = {});
// Draws the empty state where no model is open or nothing was routed yet; true: there is a frame to show.
bool has_frames(const ViewContext& context);

// The whole inner area of the view's window.
ItemRect view_area();
std::string signed_number(double value, int digits);  // "+0.80", with a true minus

}  // namespace switchyard
