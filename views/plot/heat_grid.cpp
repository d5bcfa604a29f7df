#include "views/plot/heat_grid.h"

#include <algorithm>
#include <cmath>

#include <imgui.h>

#include "views/ui/canvas.h"
#include "views/ui/draw.h"

namespace switchyard {

void HeatGrid::set(int rows, int cols, std::span<const Rgb> colors) {
  rows_ = rows;
  cols_ = cols;
  pixels_.resize(colors.size());
  std::transform(colors.begin(), colors.end(), pixels_.begin(), [](Rgb c) { return ink(c); });
  ++version_;
}

float HeatGrid::gap_width() const {
  const float cell = std::min(rect_.width() / float(cols_), rect_.height() / float(rows_));
  return cell >= 14 ? 2.0f : cell >= 7 ? 1.0f : 0.0f;
}

void HeatGrid::draw(const ItemRect& rect, Rgb gap) {
  rect_ = rect;
  if (rows_ <= 0 || cols_ <= 0 || rect.width() <= 0 || rect.height() <= 0) return;
  ImDrawList& list = *ImGui::GetWindowDrawList();
  const ImTextureRef image = canvas().textures.image(this, cols_, rows_, pixels_, version_);
  const ImGuiPlatformIO& platform = ImGui::GetPlatformIO();  // the headless host has no samplers
  if (platform.DrawCallback_SetSamplerNearest) list.AddCallback(platform.DrawCallback_SetSamplerNearest, nullptr);
  list.AddImage(image, {rect.x0, rect.y0}, {rect.x1, rect.y1});
  if (platform.DrawCallback_SetSamplerLinear) list.AddCallback(platform.DrawCallback_SetSamplerLinear, nullptr);
  const float width = gap_width();
  if (width <= 0) return;
  const ImU32 color = ink(gap);
  for (int col = 1; col < cols_; ++col) {
    const float x = std::round(rect.x0 + rect.width() * float(col) / float(cols_));
    fill({x - width / 2, rect.y0, x + width / 2, rect.y1}, color);
  }
  for (int row = 1; row < rows_; ++row) {
    const float y = std::round(rect.y0 + rect.height() * float(row) / float(rows_));
    fill({rect.x0, y - width / 2, rect.x1, y + width / 2}, color);
  }
}

ItemRect HeatGrid::cell(int row, int col) const {
  const float half = gap_width() / 2;
  const auto x = [this](int at) { return std::round(rect_.x0 + rect_.width() * float(at) / float(cols_)); };
  const auto y = [this](int at) { return std::round(rect_.y0 + rect_.height() * float(at) / float(rows_)); };
  return {x(col) + half, y(row) + half, x(col + 1) - half, y(row + 1) - half};
}

std::optional<std::pair<int, int>> HeatGrid::hit(float x, float y) const {
  if (!rect_.contains(x, y) || rows_ <= 0 || cols_ <= 0) return std::nullopt;
  return std::pair{std::min(rows_ - 1, int((y - rect_.y0) / rect_.height() * float(rows_))),
                   std::min(cols_ - 1, int((x - rect_.x0) / rect_.width() * float(cols_)))};
}

}  // namespace switchyard
