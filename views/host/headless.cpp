#include "views/host/headless.h"

#include <imgui.h>

namespace switchyard {

HeadlessView::HeadlessView(View& view, const ViewSource& source, float width, float height)
    : stage_(view), source_(source), width_(width), height_(height) {
  ImGuiIO& io = ImGui::GetIO();
  io.BackendFlags |= ImGuiBackendFlags_RendererHasTextures | ImGuiBackendFlags_RendererHasVtxOffset;
  frames(2);
}

void HeadlessView::frame() {
  seconds_ += 1.0 / 60;
  stage_.build(source_, width_, height_, 1.0f, seconds_);
  for (ImTextureData* texture : *ImGui::GetDrawData()->Textures) {
    if (texture->Status == ImTextureStatus_WantDestroy) {
      texture->SetTexID(ImTextureID_Invalid);
      texture->SetStatus(ImTextureStatus_Destroyed);
    } else if (texture->Status != ImTextureStatus_OK && texture->Status != ImTextureStatus_Destroyed) {
      texture->SetTexID(ImTextureID(1));
      texture->SetStatus(ImTextureStatus_OK);
    }
  }
}

void HeadlessView::frames(int count) {
  for (int i = 0; i < count; ++i) frame();
}

void HeadlessView::move(float x, float y) {
  stage_.activate();
  ImGui::GetIO().AddMousePosEvent(x, y);
  frame();
}

void HeadlessView::click(float x, float y, int button) {
  move(x, y);
  ImGui::GetIO().AddMouseButtonEvent(button, true);
  frames(2);
  ImGui::GetIO().AddMouseButtonEvent(button, false);
  frames(2);
}

bool HeadlessView::click(std::string_view item, int button) {
  const auto found = stage_.items().find(item);
  if (!found) return false;
  click((found->rect.x0 + found->rect.x1) / 2, (found->rect.y0 + found->rect.y1) / 2, button);
  return true;
}

void HeadlessView::drag(float x0, float y0, float x1, float y1, int steps) {
  move(x0, y0);
  ImGui::GetIO().AddMouseButtonEvent(0, true);
  frames(2);
  for (int i = 1; i <= steps; ++i) {
    const float part = float(i) / float(steps);
    move(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part);
  }
  ImGui::GetIO().AddMouseButtonEvent(0, false);
  frames(2);
}

void HeadlessView::wheel(float x, float y, float turns) {
  move(x, y);
  ImGui::GetIO().AddMouseWheelEvent(0, turns);
  frames(2);
}

void HeadlessView::key(int imgui_key, int modifiers) {
  stage_.activate();
  ImGuiIO& io = ImGui::GetIO();
  if (modifiers) io.AddKeyEvent(ImGuiKey(modifiers), true);
  io.AddKeyEvent(ImGuiKey(imgui_key), true);
  if (!(modifiers & (ImGuiMod_Ctrl | ImGuiMod_Alt)))
    canvas().presses.push_back({ImGuiKey(imgui_key), (modifiers & ImGuiMod_Shift) != 0, false});
  frames(2);
  io.AddKeyEvent(ImGuiKey(imgui_key), false);
  if (modifiers) io.AddKeyEvent(ImGuiKey(modifiers), false);
  frames(2);
}

int HeadlessView::vertices() const {
  stage_.activate();
  return ImGui::GetDrawData()->TotalVtxCount;
}

int HeadlessView::vertices_of(unsigned color) const {
  stage_.activate();
  int count = 0;
  for (const ImDrawList* list : ImGui::GetDrawData()->CmdLists)
    for (const ImDrawVert& vertex : list->VtxBuffer) count += vertex.col == color;
  return count;
}

}  // namespace switchyard
