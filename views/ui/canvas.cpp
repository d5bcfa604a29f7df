#include "views/ui/canvas.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <initializer_list>

#include <imgui_internal.h>

#include "views/ui/draw.h"

namespace switchyard {

struct TextureSlot {
  const void* owner = nullptr;
  uint64_t version = 0;
  bool retired = false;  // waits for the renderer to let go
  ImTextureData texture;
};

namespace {

constexpr float kBaseSize = 12.5f * kLineHeight;

ImFont* first_of(std::initializer_list<const char*> files) {
  for (const char* file : files) {
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) continue;
    if (ImFont* font = ImGui::GetIO().Fonts->AddFontFromFileTTF(file, kBaseSize)) return font;
  }
  return nullptr;
}

}  // namespace

TextureStore::TextureStore() = default;
TextureStore::~TextureStore() = default;

ImTextureRef TextureStore::image(const void* owner, int width, int height, std::span<const uint32_t> pixels,
                                 uint64_t version) {
  std::erase_if(slots_, [](const auto& slot) {
    if (!slot->retired || slot->texture.Status != ImTextureStatus_Destroyed) return false;
    ImGui::UnregisterUserTexture(&slot->texture);
    return true;
  });
  for (const auto& slot : slots_) {
    if (slot->owner != owner || slot->retired) continue;
    if (slot->texture.Width == width && slot->texture.Height == height) {
      if (slot->version != version) {
        std::memcpy(slot->texture.GetPixels(), pixels.data(), pixels.size_bytes());
        ImTextureDataQueueUpload(&slot->texture, 0, 0, width, height);
        slot->version = version;
        ++uploads_;
      }
      return slot->texture.GetTexRef();
    }
    slot->retired = true;
    slot->texture.WantDestroyNextFrame = true;
  }
  auto& slot = slots_.emplace_back(std::make_unique<TextureSlot>());
  slot->owner = owner;
  slot->version = version;
  slot->texture.Create(ImTextureFormat_RGBA32, width, height);
  slot->texture.UseColors = true;
  std::memcpy(slot->texture.GetPixels(), pixels.data(), pixels.size_bytes());
  ImGui::RegisterUserTexture(&slot->texture);
  ++uploads_;
  return slot->texture.GetTexRef();
}

void TextureStore::release() {
  for (const auto& slot : slots_) ImGui::UnregisterUserTexture(&slot->texture);
  slots_.clear();
}

Canvas& canvas() {
  return *static_cast<Canvas*>(ImGui::GetIO().UserData);
}

std::span<const KeyPress> key_presses() {
  if (ImGui::GetIO().WantTextInput || ImGui::IsPopupOpen("", ImGuiPopupFlags_AnyPopup)) return {};
  return canvas().presses;
}

void load_fonts(Canvas& canvas) {
  ImFontAtlas& atlas = *ImGui::GetIO().Fonts;
  canvas.words = first_of({"/usr/share/fonts/opentype/inter/Inter-Regular.otf",
                           "/usr/share/fonts/truetype/inter/Inter-Regular.ttf",
                           "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"});
  canvas.bold = first_of({"/usr/share/fonts/opentype/inter/Inter-SemiBold.otf",
                          "/usr/share/fonts/truetype/inter/Inter-SemiBold.ttf",
                          "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"});
  canvas.mono = first_of({"/usr/share/fonts/truetype/jetbrains-mono/JetBrainsMono-Regular.ttf",
                          "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"});
  ImFont* own = canvas.words && canvas.bold && canvas.mono ? nullptr : atlas.AddFontDefault();
  if (!canvas.words) canvas.words = own;
  if (!canvas.bold) canvas.bold = own;
  if (!canvas.mono) canvas.mono = own;
  ImGui::GetIO().FontDefault = canvas.words;
}

void apply_style(const Theme& theme, float scale) {
  ImGuiStyle& style = ImGui::GetStyle();
  style = ImGuiStyle();
  style.FontSizeBase = kBaseSize;
  style.FontScaleMain = scale;
  style.ScaleAllSizes(scale);
  style.WindowPadding = {8 * scale, 8 * scale};
  style.FramePadding = {9 * scale, 4 * scale};
  style.ItemSpacing = {8 * scale, 6 * scale};
  style.FrameRounding = 5 * scale;
  style.PopupRounding = 6 * scale;
  style.GrabRounding = 8 * scale;
  style.ScrollbarSize = 8 * scale;
  style.ScrollbarRounding = 4 * scale;
  style.WindowBorderSize = 0;
  style.PopupBorderSize = 1;
  style.FrameBorderSize = 0;
  const auto set = [&style](ImGuiCol index, Rgb color, float alpha = 1.0f) {
    style.Colors[index] = ImVec4(color.r / 255.0f, color.g / 255.0f, color.b / 255.0f, alpha);
  };
  for (int i = 0; i < ImGuiCol_COUNT; ++i) set(i, theme.raised);
  set(ImGuiCol_Text, theme.text);
  set(ImGuiCol_TextDisabled, theme.faint);
  set(ImGuiCol_WindowBg, theme.dock);
  set(ImGuiCol_ChildBg, theme.dock, 0);
  set(ImGuiCol_PopupBg, theme.raised);
  set(ImGuiCol_Border, theme.line);
  set(ImGuiCol_BorderShadow, theme.line, 0);
  set(ImGuiCol_FrameBg, theme.raised);
  set(ImGuiCol_FrameBgHovered, theme.line);
  set(ImGuiCol_FrameBgActive, theme.line);
  set(ImGuiCol_Button, theme.raised);
  set(ImGuiCol_ButtonHovered, theme.line);
  set(ImGuiCol_ButtonActive, theme.line);
  set(ImGuiCol_Header, theme.line);
  set(ImGuiCol_HeaderHovered, theme.line);
  set(ImGuiCol_HeaderActive, theme.line);
  set(ImGuiCol_Separator, theme.line);
  set(ImGuiCol_SliderGrab, theme.selection);
  set(ImGuiCol_SliderGrabActive, theme.selection);
  set(ImGuiCol_CheckMark, theme.selection);
  set(ImGuiCol_ScrollbarBg, theme.dock, 0);
  set(ImGuiCol_ScrollbarGrab, theme.line);
  set(ImGuiCol_ScrollbarGrabHovered, theme.faint);
  set(ImGuiCol_ScrollbarGrabActive, theme.faint);
  set(ImGuiCol_TextSelectedBg, theme.selection, 0.35f);
  set(ImGuiCol_NavCursor, theme.selection);
}

}  // namespace switchyard
