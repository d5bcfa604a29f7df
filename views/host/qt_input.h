// Qt events into one ImGui context: keys, text, mouse, wheel, input methods, clipboard.
// The caller makes the context current first. GUI thread only.
#pragma once

#include <QRectF>

class QEvent;
class QKeyEvent;
class QWidget;
class QVariant;

namespace switchyard {

class QtInput {
 public:
  explicit QtInput(QWidget& widget) : widget_(widget) {}
  void attach();  // clipboard and input-method hooks of the current context

  // True: ImGui was told something, so repaint. Events that stay Qt's (shortcuts, Tab, F-keys) are left unaccepted.
  bool feed(QEvent& event);
  QRectF text_cursor() const { return text_cursor_; }  // of the active text field, for input methods

 private:
  bool feed_key(QKeyEvent& event, bool down);
  QWidget& widget_;
  QRectF text_cursor_;
};

}  // namespace switchyard
