// A live view as a Qt widget: OpenGL 3.3 core where the platform has it, else a placeholder with the
// table twin. Repaints on demand: on input (and two frames after), on new data (at most `max_rate` a
// second), never while hidden. GUI thread only.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include <QImage>
#include <QWidget>

#include "views/host/stage.h"

class QTableView;

namespace switchyard {

// The last 512 repaints, milliseconds. build: input to draw commands; paint: handing them to OpenGL and,
// when measuring, waiting for the pixels.
struct FrameStats {
  uint64_t frames = 0;   // ever painted
  double build_p50 = 0, build_p99 = 0;
  double paint_p50 = 0, paint_p99 = 0;
  double total_p50 = 0, total_p99 = 0;  // build + paint of the same frame
};

// Whether a QOpenGLWidget can be shown here. The offscreen, minimal, vnc and eglfs platforms cannot, and
// crash when asked (Qt 6.4.2).
bool platform_has_gl();

// Call before QApplication: shared contexts (floating a dock keeps its context) and a 3.3 core format.
void prepare_gl_defaults();

class LiveViewWidget : public QWidget {
 public:
  // source outlives the widget.
  LiveViewWidget(std::unique_ptr<View> view, const ViewSource& source, QWidget* parent = nullptr);
  ~LiveViewWidget() override;

  View& view() const { return *view_; }
  const ItemMap& items() const;     // of the last repaint; empty without OpenGL
  void data_changed();              // new frame, selection, theme or setting: repaint soon
  void set_max_rate(double hertz) { max_rate_ = hertz; }
  bool has_gl() const { return canvas_ != nullptr; }

  FrameStats stats() const;
  void reset_stats();
  void set_measuring(bool on);      // waits for the pixels of each frame; costs overlap
  QImage grab_picture();            // the framebuffer; null without OpenGL
  void set_anti_aliasing(bool on);
  // Called after a repaint with the item under the pointer or cell cursor; empty: none.
  std::function<void(const std::optional<Item>&)> on_hover;

 protected:
  void showEvent(QShowEvent* event) override;

 private:
  class GlCanvas;
  void refresh_placeholder();
  std::unique_ptr<View> view_;
  const ViewSource& source_;
  GlCanvas* canvas_ = nullptr;      // child widget; nullptr: placeholder
  QTableView* table_ = nullptr;     // the placeholder
  double max_rate_ = 60;
};

}  // namespace switchyard
