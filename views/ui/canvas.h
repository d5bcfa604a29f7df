// What one ImGui context of a view owns beside ImGui itself: the two type faces and the textures.
// A context finds its canvas through io.UserData. GUI thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <imgui.h>

#include "views/ui/theme.h"

namespace switchyard {

struct TextureSlot;

// Textures of the current context, by the address of their owner (a picture of a view). They live as
// long as the context, so that a view may be destroyed before or after it.
class TextureStore {
 public:
  TextureStore();
  ~TextureStore();
  // pixels: [height, width] RGBA. Uploaded when `version` differs from the last call's.
  ImTextureRef image(const void* owner, int width, int height, std::span<const uint32_t> pixels, uint64_t version);
  uint64_t uploads() const { return uploads_; }
  void release();  // before the context goes

 private:
  std::vector<std::unique_ptr<TextureSlot>> slots_;
  uint64_t uploads_ = 0;
};

// A key that went down, or repeated while it was held, without Ctrl and Alt.
struct KeyPress {
  ImGuiKey key = ImGuiKey_None;
  bool shift = false;
  bool repeat = false;
};

struct Canvas {
  ImFont* words = nullptr;  // Inter
  ImFont* bold = nullptr;   // Inter semi-bold
  ImFont* mono = nullptr;   // JetBrains Mono: tokens and numbers
  TextureStore textures;
  std::vector<KeyPress> presses;  // since the last repaint, in order
};

Canvas& canvas();  // of the current ImGui context

// What a view answers in this repaint, one after the other: ImGui tells of a key at most once a repaint, so that
// fast typing and held keys would lose steps. Empty while a text field or a popup has the keyboard.
std::span<const KeyPress> key_presses();

// Loads the faces into the current context's atlas: Inter and JetBrains Mono where Debian puts them,
// else DejaVu, else ImGui's own.
void load_fonts(Canvas& canvas);

// Colours, spacing and sizes of the theme; scale: the user's zoom, 0.8 to 2.
void apply_style(const Theme& theme, float scale);

}  // namespace switchyard
