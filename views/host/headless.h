// A view without a window or OpenGL: for tests and for pictures' numbers. Textures are acknowledged,
// draw lists are counted, input is injected. GUI thread only.
#pragma once

#include <string_view>

#include "views/host/stage.h"

namespace switchyard {

class HeadlessView {
 public:
  HeadlessView(View& view, const ViewSource& source, float width, float height);

  void resize(float width, float height) { width_ = width, height_ = height; }
  void frames(int count = 1);  // 1/60 s each

  void move(float x, float y);                        // one frame
  void click(float x, float y, int button = 0);       // press and release, two frames each
  bool click(std::string_view item, int button = 0);  // its middle; false: the view did not draw it
  void drag(float x0, float y0, float x1, float y1, int steps = 4);
  void wheel(float x, float y, float turns);
  void key(int imgui_key, int modifiers = 0);  // press and release

  const ItemMap& items() const { return stage_.items(); }
  ViewStage& stage() { return stage_; }
  int vertices() const;  // of the last frame
  // Vertices of the last frame that carry this colour (0xAABBGGRR).
  int vertices_of(unsigned color) const;

 private:
  void frame();
  ViewStage stage_;
  ViewSource source_;
  float width_, height_;
  double seconds_ = 0;
};

}  // namespace switchyard
