#include "views/host/live_view_widget.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include <QAbstractTableModel>
#include <QAccessible>
#include <QCoreApplication>
#include <QGuiApplication>
#include <QHeaderView>
#include <QLabel>
#include <QMouseEvent>
#include <QOpenGLContext>
#include <QOpenGLExtraFunctions>
#include <QOpenGLWidget>
#include <QSurfaceFormat>
#include <QTableView>
#include <QTimer>
#include <QToolTip>
#include <QVBoxLayout>

#include <imgui.h>
#include <imgui_impl_opengl3.h>

#include "views/host/qt_input.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_now() {
  static const Clock::time_point start = Clock::now();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double percentile(std::vector<float> values, double part) {
  if (values.empty()) return 0;
  const size_t rank = std::min(values.size() - 1, size_t(std::ceil(part * double(values.size()))) - (part > 0 ? 1 : 0));
  std::nth_element(values.begin(), values.begin() + long(rank), values.end());
  return values[rank];
}

QString tooltip_of(const Item& item) {
  const auto html = [](const std::string& text) {
    return QString::fromStdString(text).toHtmlEscaped().replace(u'\n', "<br>");
  };
  QString text = "<div style='white-space:pre'><b>" + html(item.label) + "</b>";
  if (!item.unit.empty() || item.value != 0)
    text += "<br><span style=\"font-family:'JetBrains Mono','DejaVu Sans Mono'\">" + html(value_text(item)) + "</span>";
  if (!item.detail.empty()) text += "<br>" + html(item.detail);
  return text + "</div>";
}

}  // namespace

bool platform_has_gl() {
  const QString platform = QGuiApplication::platformName();
  return platform == "xcb" || platform.startsWith("wayland") || platform == "windows" || platform == "cocoa";
}

void prepare_gl_defaults() {
  QCoreApplication::setAttribute(Qt::AA_ShareOpenGLContexts);
  QSurfaceFormat format;
  format.setVersion(3, 3);
  format.setProfile(QSurfaceFormat::CoreProfile);
  format.setDepthBufferSize(0);
  format.setStencilBufferSize(0);
  QSurfaceFormat::setDefaultFormat(format);
}

class LiveViewWidget::GlCanvas : public QOpenGLWidget {
 public:
  explicit GlCanvas(LiveViewWidget& owner) : QOpenGLWidget(&owner), owner_(owner), stage_(*owner.view_), input_(*this) {
    setMouseTracking(true);
    setFocusPolicy(Qt::StrongFocus);
    setAccessibleName(QString::fromStdString(std::string(owner.view_->title())));
    throttle_.setSingleShot(true);
    QObject::connect(&throttle_, &QTimer::timeout, this, [this] { update(); });
  }

  ~GlCanvas() override {
    QObject::disconnect(context_gone_);  // it also fires from ~QOpenGLWidget, after this destructor
    makeCurrent();
    shut_down_renderer();
    doneCurrent();
  }

  void data_changed() {
    if (!isVisible()) return;  // showEvent paints
    const double wait = last_paint_ + 1.0 / owner_.max_rate_ - seconds_now();
    if (throttle_.isActive()) return;
    if (wait <= 0)
      update();
    else
      throttle_.start(int(std::ceil(wait * 1000)));
  }

  FrameStats stats() const {
    FrameStats out;
    out.frames = painted_;
    const size_t kept = std::min<size_t>(painted_, build_ms_.size());
    std::vector<float> build(build_ms_.begin(), build_ms_.begin() + long(kept)),
        paint(paint_ms_.begin(), paint_ms_.begin() + long(kept)), total(kept);
    for (size_t i = 0; i < kept; ++i) total[i] = build[i] + paint[i];
    out.build_p50 = percentile(build, 0.5), out.build_p99 = percentile(build, 0.99);
    out.paint_p50 = percentile(paint, 0.5), out.paint_p99 = percentile(paint, 0.99);
    out.total_p50 = percentile(total, 0.5), out.total_p99 = percentile(total, 0.99);
    return out;
  }

  ViewStage& stage() { return stage_; }
  const ViewStage& stage() const { return stage_; }
  void reset_stats() { painted_ = 0; }
  void set_measuring(bool on) { measuring_ = on; }

 protected:
  void initializeGL() override {
    stage_.activate();
    shut_down_renderer();  // the context was re-created: the old objects are gone with it
    renderer_ready_ = ImGui_ImplOpenGL3_Init("#version 330");
    input_.attach();
    QObject::disconnect(context_gone_);
    context_gone_ = QObject::connect(context(), &QOpenGLContext::aboutToBeDestroyed, this, [this] {
      makeCurrent();
      shut_down_renderer();
      doneCurrent();
    });
  }

  void paintGL() override {
    stage_.activate();
    if (!renderer_ready_) return;
    ImGui_ImplOpenGL3_NewFrame();
    const Clock::time_point begin = Clock::now();
    stage_.build(owner_.source_, float(width()), float(height()), float(devicePixelRatioF()), seconds_now());
    const Clock::time_point built = Clock::now();
    auto* gl = QOpenGLContext::currentContext()->functions();
    const Rgb ground = owner_.source_.theme->dock;
    gl->glClearColor(ground.r / 255.0f, ground.g / 255.0f, ground.b / 255.0f, 1.0f);
    gl->glClear(GL_COLOR_BUFFER_BIT);
    ImGui_ImplOpenGL3_RenderDrawData(ImGui::GetDrawData());
    if (measuring_) gl->glFinish();
    const Clock::time_point painted = Clock::now();

    const size_t slot = painted_++ % build_ms_.size();
    build_ms_[slot] = std::chrono::duration<float, std::milli>(built - begin).count();
    paint_ms_[slot] = std::chrono::duration<float, std::milli>(painted - built).count();
    last_paint_ = seconds_now();
    if (frames_after_input_ > 0 && frames_after_input_-- > 0) QTimer::singleShot(0, this, [this] { update(); });
    announce_hovered();
  }

  bool event(QEvent* event) override {
    stage_.activate();
    const bool fed = input_.feed(*event);
    if (fed) {
      // A press and release within one frame register one frame later; a move is answered in its own.
      frames_after_input_ = std::max(frames_after_input_, event->type() == QEvent::MouseMove ? 1 : 2);
      update();
    }
    if (event->type() == QEvent::MouseMove) mouse_ = static_cast<QMouseEvent*>(event)->globalPosition().toPoint();
    if (event->type() == QEvent::Leave) mouse_inside_ = false;
    if (event->type() == QEvent::Enter) mouse_inside_ = true;
    if (event->type() == QEvent::ToolTip) return true;  // ours follow the pointer
    if (event->type() == QEvent::KeyPress || event->type() == QEvent::KeyRelease) {
      // Tab leaves the view unless a text field has it; other keys end here when the view uses them.
      const auto* key = static_cast<QKeyEvent*>(event);
      if (key->key() != Qt::Key_Tab && key->key() != Qt::Key_Backtab) {
        event->setAccepted(ImGui::GetIO().WantTextInput || view_key(*key));
        return event->isAccepted();
      }
    }
    return QOpenGLWidget::event(event);
  }

  bool focusNextPrevChild(bool next) override {
    stage_.activate();
    return ImGui::GetIO().WantTextInput ? false : QOpenGLWidget::focusNextPrevChild(next);
  }

  QVariant inputMethodQuery(Qt::InputMethodQuery query) const override {
    if (query == Qt::ImCursorRectangle) return input_.text_cursor();
    return QOpenGLWidget::inputMethodQuery(query);
  }

 private:
  // Keys the views answer (interface.md section 7); the rest goes on to the window's actions, which step through the
  // tokens from every panel.
  static bool view_key(const QKeyEvent& event) {
    switch (event.key()) {
      case Qt::Key_Left:
      case Qt::Key_Right:
      case Qt::Key_Up:
      case Qt::Key_Down:
      case Qt::Key_M:
      case Qt::Key_G:
      case Qt::Key_BracketLeft:
      case Qt::Key_BracketRight:
      case Qt::Key_W:
      case Qt::Key_S:
      case Qt::Key_A:
      case Qt::Key_D:
      case Qt::Key_F:
        return !event.modifiers().testFlag(Qt::ControlModifier) && !event.modifiers().testFlag(Qt::AltModifier);
      default:
        return false;
    }
  }

  void shut_down_renderer() {
    stage_.activate();
    if (renderer_ready_) ImGui_ImplOpenGL3_Shutdown();
    renderer_ready_ = false;
  }

  void announce_hovered() {
    const std::string& id = stage_.items().hovered();
    if (id == announced_ && id.empty()) return;
    const auto item = id.empty() ? std::nullopt : stage_.items().find(id);
    const QString description = item ? QString::fromStdString(item->label + ", " + value_text(*item)) : QString();
    const bool changed = id != announced_ || description != accessibleDescription();
    announced_ = id;
    if (!changed) return;
    setAccessibleDescription(description);
    QAccessibleEvent changed_event(this, QAccessible::DescriptionChanged);
    QAccessible::updateAccessibility(&changed_event);
    if (!item || !mouse_inside_ || ImGui::IsMouseDown(ImGuiMouseButton_Left))
      QToolTip::hideText();
    else
      QToolTip::showText(mouse_ + QPoint(14, 6), tooltip_of(*item), this);
    if (owner_.on_hover) owner_.on_hover(item);
  }

  LiveViewWidget& owner_;
  ViewStage stage_;
  QtInput input_;
  QMetaObject::Connection context_gone_;
  QTimer throttle_;
  bool renderer_ready_ = false, measuring_ = false, mouse_inside_ = false;
  int frames_after_input_ = 0;
  double last_paint_ = -1;
  uint64_t painted_ = 0;
  std::array<float, 512> build_ms_{}, paint_ms_{};
  QPoint mouse_;
  std::string announced_;
};

LiveViewWidget::LiveViewWidget(std::unique_ptr<View> view, const ViewSource& source, QWidget* parent)
    : QWidget(parent), view_(std::move(view)), source_(source) {
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  if (platform_has_gl()) {
    canvas_ = new GlCanvas(*this);
    layout->addWidget(canvas_);
    setFocusProxy(canvas_);
    return;
  }
  auto* note = new QLabel(tr("No OpenGL on this platform: the picture's numbers as a table."), this);
  note->setMargin(6);
  note->setWordWrap(true);
  table_ = new QTableView(this);
  table_->setAccessibleName(QString::fromStdString(std::string(view_->title())));
  table_->setModel(view_->make_table(table_));
  table_->setSortingEnabled(true);
  table_->verticalHeader()->hide();
  layout->addWidget(note);
  layout->addWidget(table_);
  setFocusProxy(table_);
}

LiveViewWidget::~LiveViewWidget() {
  delete canvas_;  // before the view it draws
  delete table_;
}

const ItemMap& LiveViewWidget::items() const {
  static const ItemMap none;
  return canvas_ ? canvas_->stage().items() : none;
}

void LiveViewWidget::data_changed() {
  if (canvas_)
    canvas_->data_changed();
  else if (isVisible())
    refresh_placeholder();
}

void LiveViewWidget::refresh_placeholder() {
  view_->refresh_table(static_cast<QAbstractTableModel*>(table_->model()), *source_.data, *source_.selection,
                       *source_.cursor);
}

void LiveViewWidget::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  if (table_) refresh_placeholder();
}

FrameStats LiveViewWidget::stats() const {
  return canvas_ ? canvas_->stats() : FrameStats{};
}
void LiveViewWidget::reset_stats() {
  if (canvas_) canvas_->reset_stats();
}
void LiveViewWidget::set_measuring(bool on) {
  if (canvas_) canvas_->set_measuring(on);
}
void LiveViewWidget::set_anti_aliasing(bool on) {
  if (canvas_) canvas_->stage().set_anti_aliasing(on);
}
QImage LiveViewWidget::grab_picture() {
  return canvas_ ? canvas_->grabFramebuffer() : QImage();
}

}  // namespace switchyard
