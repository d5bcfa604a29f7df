#include "views/host/qt_input.h"

#include <cfloat>

#include <QClipboard>
#include <QFocusEvent>
#include <QGuiApplication>
#include <QInputMethod>
#include <QInputMethodEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QWheelEvent>
#include <QWidget>

#include <imgui.h>

#include "views/ui/canvas.h"

namespace switchyard {
namespace {

ImGuiKey imgui_key(int key, bool keypad) {
  if (keypad && key >= Qt::Key_0 && key <= Qt::Key_9) return ImGuiKey(ImGuiKey_Keypad0 + (key - Qt::Key_0));
  if (key >= Qt::Key_A && key <= Qt::Key_Z) return ImGuiKey(ImGuiKey_A + (key - Qt::Key_A));
  if (key >= Qt::Key_0 && key <= Qt::Key_9) return ImGuiKey(ImGuiKey_0 + (key - Qt::Key_0));
  if (key >= Qt::Key_F1 && key <= Qt::Key_F12) return ImGuiKey(ImGuiKey_F1 + (key - Qt::Key_F1));
  switch (key) {
    case Qt::Key_Tab:
    case Qt::Key_Backtab:
      return ImGuiKey_Tab;
    case Qt::Key_Left:
      return ImGuiKey_LeftArrow;
    case Qt::Key_Right:
      return ImGuiKey_RightArrow;
    case Qt::Key_Up:
      return ImGuiKey_UpArrow;
    case Qt::Key_Down:
      return ImGuiKey_DownArrow;
    case Qt::Key_PageUp:
      return ImGuiKey_PageUp;
    case Qt::Key_PageDown:
      return ImGuiKey_PageDown;
    case Qt::Key_Home:
      return ImGuiKey_Home;
    case Qt::Key_End:
      return ImGuiKey_End;
    case Qt::Key_Insert:
      return ImGuiKey_Insert;
    case Qt::Key_Delete:
      return ImGuiKey_Delete;
    case Qt::Key_Backspace:
      return ImGuiKey_Backspace;
    case Qt::Key_Space:
      return ImGuiKey_Space;
    case Qt::Key_Return:
      return ImGuiKey_Enter;
    case Qt::Key_Enter:
      return ImGuiKey_KeypadEnter;
    case Qt::Key_Escape:
      return ImGuiKey_Escape;
    case Qt::Key_Comma:
      return ImGuiKey_Comma;
    case Qt::Key_Period:
      return ImGuiKey_Period;
    case Qt::Key_Minus:
      return ImGuiKey_Minus;
    case Qt::Key_Plus:
    case Qt::Key_Equal:
      return ImGuiKey_Equal;
    case Qt::Key_Slash:
      return ImGuiKey_Slash;
    case Qt::Key_BracketLeft:
      return ImGuiKey_LeftBracket;
    case Qt::Key_BracketRight:
      return ImGuiKey_RightBracket;
    case Qt::Key_Control:
      return ImGuiKey_LeftCtrl;
    case Qt::Key_Shift:
      return ImGuiKey_LeftShift;
    case Qt::Key_Alt:
      return ImGuiKey_LeftAlt;
    case Qt::Key_Meta:
      return ImGuiKey_LeftSuper;
    default:
      return ImGuiKey_None;
  }
}

int imgui_button(Qt::MouseButton button) {
  switch (button) {
    case Qt::LeftButton:
      return 0;
    case Qt::RightButton:
      return 1;
    case Qt::MiddleButton:
      return 2;
    default:
      return -1;
  }
}

void feed_modifiers(Qt::KeyboardModifiers modifiers) {
  ImGuiIO& io = ImGui::GetIO();
  io.AddKeyEvent(ImGuiMod_Ctrl, modifiers.testFlag(Qt::ControlModifier));
  io.AddKeyEvent(ImGuiMod_Shift, modifiers.testFlag(Qt::ShiftModifier));
  io.AddKeyEvent(ImGuiMod_Alt, modifiers.testFlag(Qt::AltModifier));
  io.AddKeyEvent(ImGuiMod_Super, modifiers.testFlag(Qt::MetaModifier));
}

void feed_text(const QString& text) {
  QString printable;
  for (const QChar c : text)  // Ctrl+Z arrives as 0x1a
    if (c.category() != QChar::Other_Control) printable += c;
  if (!printable.isEmpty()) ImGui::GetIO().AddInputCharactersUTF8(printable.toUtf8().constData());
}

void feed_position(const QPointF& at) {
  ImGui::GetIO().AddMousePosEvent(float(at.x()), float(at.y()));
}

}  // namespace

void QtInput::attach() {
  ImGuiPlatformIO& platform = ImGui::GetPlatformIO();
  platform.Platform_GetClipboardTextFn = [](ImGuiContext*) -> const char* {
    static QByteArray text;
    text = QGuiApplication::clipboard()->text().toUtf8();
    return text.constData();
  };
  platform.Platform_SetClipboardTextFn = [](ImGuiContext*, const char* text) {
    QGuiApplication::clipboard()->setText(QString::fromUtf8(text));
  };
  platform.Platform_ImeUserData = this;
  platform.Platform_SetImeDataFn = [](ImGuiContext*, ImGuiViewport*, ImGuiPlatformImeData* data) {
    auto& self = *static_cast<QtInput*>(ImGui::GetPlatformIO().Platform_ImeUserData);
    self.text_cursor_ = QRectF(data->InputPos.x, data->InputPos.y, 1, data->InputLineHeight);
    self.widget_.setAttribute(Qt::WA_InputMethodEnabled, data->WantTextInput);
    if (data->WantTextInput) QGuiApplication::inputMethod()->update(Qt::ImCursorRectangle);
  };
}

bool QtInput::feed_key(QKeyEvent& event, bool down) {
  if (event.isAutoRepeat() && !down) return false;
  ImGuiIO& io = ImGui::GetIO();
  feed_modifiers(event.modifiers());
  if (const ImGuiKey key = imgui_key(event.key(), event.modifiers().testFlag(Qt::KeypadModifier));
      key != ImGuiKey_None) {
    // ImGui repeats held keys by itself; Qt's repeats are presses of their own, so that the repeat
    // delay is the desktop's.
    if (down && event.isAutoRepeat()) io.AddKeyEvent(key, false);
    io.AddKeyEvent(key, down);
    const Qt::KeyboardModifiers mods = event.modifiers();
    if (down && !mods.testFlag(Qt::ControlModifier) && !mods.testFlag(Qt::AltModifier))
      canvas().presses.push_back({key, mods.testFlag(Qt::ShiftModifier), event.isAutoRepeat()});
  }
  if (down && !event.modifiers().testFlag(Qt::ControlModifier)) feed_text(event.text());
  return true;
}

bool QtInput::feed(QEvent& event) {
  ImGuiIO& io = ImGui::GetIO();
  switch (event.type()) {
    case QEvent::ShortcutOverride:
      // Without this a QAction with a plain key fires while somebody types into a field.
      if (io.WantTextInput) event.accept();
      return false;
    case QEvent::KeyPress:
      return feed_key(static_cast<QKeyEvent&>(event), true);
    case QEvent::KeyRelease:
      return feed_key(static_cast<QKeyEvent&>(event), false);
    case QEvent::InputMethod: {
      feed_text(static_cast<QInputMethodEvent&>(event).commitString());
      event.accept();
      return true;
    }
    case QEvent::MouseMove: {
      auto& mouse = static_cast<QMouseEvent&>(event);
      feed_modifiers(mouse.modifiers());
      feed_position(mouse.position());
      return true;
    }
    case QEvent::MouseButtonPress:
    case QEvent::MouseButtonDblClick:
    case QEvent::MouseButtonRelease: {
      auto& mouse = static_cast<QMouseEvent&>(event);
      feed_modifiers(mouse.modifiers());
      feed_position(mouse.position());
      if (const int button = imgui_button(mouse.button()); button >= 0)
        io.AddMouseButtonEvent(button, event.type() != QEvent::MouseButtonRelease);
      event.accept();
      return true;
    }
    case QEvent::Wheel: {
      auto& wheel = static_cast<QWheelEvent&>(event);
      feed_modifiers(wheel.modifiers());
      feed_position(wheel.position());
      io.AddMouseWheelEvent(float(wheel.angleDelta().x()) / 120.0f, float(wheel.angleDelta().y()) / 120.0f);
      event.accept();
      return true;
    }
    case QEvent::Leave:
      io.AddMousePosEvent(-FLT_MAX, -FLT_MAX);
      return true;
    case QEvent::FocusIn:
      io.AddFocusEvent(true);
      return true;
    case QEvent::FocusOut:
      io.AddFocusEvent(false);  // releases held keys
      return true;
    default:
      return false;
  }
}

}  // namespace switchyard
