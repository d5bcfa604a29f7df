// One view on its own ImGui and ImPlot contexts: builds a frame of draw commands, whoever renders it.
// Used by the OpenGL widget and by the headless host of the tests. GUI thread only.
#pragma once

#include <string>

#include "views/host/item_map.h"
#include "views/ui/canvas.h"
#include "views/view.h"

struct ImGuiContext;
struct ImPlotContext;

namespace switchyard {

// What the app lends to every view; outlives them. Read in one repaint, never between.
struct ViewSource {
  const RunData* data = nullptr;
  const Selection* selection = nullptr;
  const TimeCursor* cursor = nullptr;
  const ViewCommands* commands = nullptr;
  const Theme* theme = nullptr;
  float scale = 1.0f;  // the user's zoom, 0.8 to 2
};

class ViewStage {
 public:
  explicit ViewStage(View& view);
  ~ViewStage();
  ViewStage(const ViewStage&) = delete;

  // Makes its contexts current; first in every function that touches ImGui for this view.
  void activate() const;
  // Sizes in logical pixels; ratio: device pixels per logical one. Leaves ImGui::GetDrawData() ready.
  void build(const ViewSource& source, float width, float height, float ratio, double seconds);

  View& view() const { return view_; }
  const ItemMap& items() const { return items_; }
  // The message of an exception of the view; while it is set the view is not drawn, only the message
  // and a button ("failure/retry") that tries again.
  const std::string& failure() const { return failure_; }
  const Canvas& canvas() const { return canvas_; }
  void set_anti_aliasing(bool on) { anti_aliasing_ = on; }  // golden images turn it off

 private:
  void draw_view(const ViewContext& context);
  void draw_failure(const Theme& theme);

  View& view_;
  ImGuiContext* imgui_;
  ImPlotContext* implot_;
  Canvas canvas_;
  ItemMap items_;
  std::string failure_;
  std::string styled_for_;  // theme and scale the style was last set for
  double last_seconds_ = 0;
  bool anti_aliasing_ = true;
};

}  // namespace switchyard
