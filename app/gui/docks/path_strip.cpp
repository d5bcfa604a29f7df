// See path_strip.h.
#include "app/gui/docks/path_strip.h"

#include <algorithm>
#include <array>

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>

#include "app/gui/style.h"
#include "app/gui/words.h"
#include "app/session/edits_in_force.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

constexpr int kMargin = 4, kGap = 3;

int line_height() {
  return QFontMetrics(word_font()).lineSpacing();
}
int cell_width() {
  return QFontMetrics(number_font()).horizontalAdvance("00×0") + 8;
}
int cell_height() {
  return line_height() + 8;
}

// Some of them are shortcuts of the window; while the strip has the keyboard they are the strip's.
bool is_of_strip(const QKeyEvent& event) {
  constexpr std::array kKeys = {Qt::Key_Left, Qt::Key_Right, Qt::Key_Up, Qt::Key_Down, Qt::Key_Home,
                                Qt::Key_End,  Qt::Key_Space, Qt::Key_S,  Qt::Key_0,    Qt::Key_R,
                                Qt::Key_1,    Qt::Key_2,     Qt::Key_3,  Qt::Key_4};
  return (event.modifiers() & ~Qt::KeypadModifier) == Qt::NoModifier &&
         std::find(kKeys.begin(), kKeys.end(), event.key()) != kKeys.end();
}

}  // namespace

PathStrip::PathStrip(RunModel& model, QWidget* parent) : QWidget(parent), model_(model) {
  setObjectName("scheme.path");
  setAccessibleName(tr("Layer path"));
  setFocusPolicy(Qt::StrongFocus);
  QSizePolicy policy(QSizePolicy::Expanding, QSizePolicy::Minimum);
  policy.setHeightForWidth(true);
  setSizePolicy(policy);
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed, &RunModel::history_changed})
    connect(&model_, signal, this, &PathStrip::refresh);
  refresh();
}

int PathStrip::layers() const {
  return model_.has_session() && model_.data().plan ? int(model_.data().plan->layers.size()) : 0;
}

int PathStrip::passes(int layer) const {
  return model_.path_ahead().passes_of(layer);
}

bool PathStrip::waits() const {
  static const LayerPath kOnce;
  const SessionSnapshot* snapshot = model_.snapshot();
  const Recipe* now = snapshot ? recipe_in_force(*snapshot) : nullptr;
  return model_.data().tokens() > 0 && (now ? now->path : kOnce) != model_.path_ahead() && !model_.path_ahead().chooser;
}

QString PathStrip::note() const {
  if (const PathChooser& chooser = model_.path_ahead().chooser)
    return tr("Chosen at the next prefill by the routers of %1.").arg(QString::fromStdString(chooser.file));
  if (waits()) return tr("Waits: at the next prefill.");
  return model_.path_ahead().native() ? tr("A change takes effect at the next prefill.")
                                      : tr("In force; a change takes effect at the next prefill.");
}

void PathStrip::set_passes(int layer, int passes) {
  if (layer < 0 || layer >= layers() || passes < 0 || passes > kMostLayerPasses || passes == this->passes(layer))
    return;
  LayerPath path{.passes = model_.path_ahead().passes};
  path.passes.resize(size_t(layers()), 1);
  path.passes[size_t(layer)] = uint8_t(passes);
  if (std::all_of(path.passes.begin(), path.passes.end(), [](uint8_t n) { return n == 1; })) path.passes.clear();
  model_.edit(EditCommand{std::move(path), std::nullopt});
  refresh();
}

void PathStrip::set_current(int layer) {
  current_ = std::clamp(layer, 0, std::max(0, layers() - 1));
  refresh();
}

void PathStrip::refresh() {
  setEnabled(layers() > 0);
  current_ = std::clamp(current_, 0, std::max(0, layers() - 1));
  if (layers() > 0) setAccessibleDescription(sentence(current_) + ". " + note());
  updateGeometry();
  update();
}

QString PathStrip::sentence(int layer) const {
  const int n = passes(layer);
  const bool routes = model_.data().plan->layers[size_t(layer)].routes();
  const QString what = n == 0   ? tr("layer %1 is skipped").arg(layer)
                       : n == 1 ? tr("layer %1 runs once").arg(layer)
                                : tr("layer %1 runs %2 times").arg(layer).arg(n);
  return routes ? what : what + tr(" (no experts)");
}

int PathStrip::columns(int width) const {
  return std::max(1, (width - 2 * kMargin + kGap) / (cell_width() + kGap));
}

int PathStrip::heightForWidth(int width) const {
  const int rows = (std::max(1, layers()) + columns(width) - 1) / columns(width);
  return 2 * line_height() + rows * (cell_height() + kGap) + 2;
}

QSize PathStrip::sizeHint() const {
  return {240, heightForWidth(240)};
}
QSize PathStrip::minimumSizeHint() const {
  return {120, heightForWidth(std::max(width(), 120))};
}

QRectF PathStrip::cell(int layer) const {
  const int across = columns(width());
  return QRectF(kMargin + layer % across * (cell_width() + kGap),
                line_height() + 2 + layer / across * (cell_height() + kGap), cell_width(), cell_height());
}

int PathStrip::layer_at(QPointF at) const {
  for (int layer = 0; layer < layers(); ++layer)
    if (cell(layer).contains(at)) return layer;
  return -1;
}

// Skip, once, twice, and round again.
void PathStrip::mousePressEvent(QMouseEvent* event) {
  const int layer = layer_at(event->position());
  if (layer < 0 || event->button() != Qt::LeftButton) return QWidget::mousePressEvent(event);
  current_ = layer;
  const int n = passes(layer);
  set_passes(layer, n == 1 ? 0 : n == 0 ? 2 : 1);
}

void PathStrip::keyPressEvent(QKeyEvent* event) {
  if (!is_of_strip(*event)) return QWidget::keyPressEvent(event);
  const int across = columns(width()), n = layers() > 0 ? passes(current_) : 1;
  switch (event->key()) {
    case Qt::Key_Left:
      return set_current(current_ - 1);
    case Qt::Key_Right:
      return set_current(current_ + 1);
    case Qt::Key_Up:
      return set_current(current_ - across);
    case Qt::Key_Down:
      return set_current(current_ + across);
    case Qt::Key_Home:
      return set_current(0);
    case Qt::Key_End:
      return set_current(layers() - 1);
    case Qt::Key_Space:
      return set_passes(current_, n == 1 ? 0 : n == 0 ? 2 : 1);
    case Qt::Key_S:
    case Qt::Key_0:
      return set_passes(current_, 0);
    case Qt::Key_R:
    case Qt::Key_1:
      return set_passes(current_, 1);
    case Qt::Key_2:
      return set_passes(current_, 2);
    case Qt::Key_3:
      return set_passes(current_, 3);
    case Qt::Key_4:
      return set_passes(current_, 4);
    default:
      return QWidget::keyPressEvent(event);
  }
}

bool PathStrip::event(QEvent* event) {
  if (event->type() == QEvent::ShortcutOverride && is_of_strip(*static_cast<QKeyEvent*>(event))) {
    event->accept();
    return true;
  }
  return show_tip(this, event, [this](const QPoint& at) {
    const int layer = layer_at(at);
    return layer < 0 ? QString() : sentence(layer) + "\n" + note() + "\n" + tr("Click or space: skip, repeat, run. S, R, 2 to 4.");
  }) || QWidget::event(event);
}

void PathStrip::paintEvent(QPaintEvent*) {
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  const Theme& theme = current_theme();
  const QFontMetrics words(word_font());
  p.setFont(word_font());
  p.setPen(color(theme.text));
  p.drawText(QRect(kMargin, 0, width() - 2 * kMargin, line_height()), Qt::AlignVCenter,
             words.elidedText(tr("Layer path"), Qt::ElideRight, width()));
  p.setPen(color(waits() ? theme.edit : theme.muted));
  p.drawText(QRect(kMargin, height() - line_height(), width() - 2 * kMargin, line_height()), Qt::AlignVCenter,
             words.elidedText(layers() > 0 ? note() : tr("Open a model to skip or repeat its layers."), Qt::ElideRight,
                              width() - 2 * kMargin));
  p.setFont(number_font());
  for (int layer = 0; layer < layers(); ++layer) {
    const int n = passes(layer);
    const QRectF box = cell(layer).adjusted(0.5, 0.5, -0.5, -0.5);
    p.setPen(QPen(color(n == 1 ? theme.line : theme.edit), 1, n == 0 ? Qt::DashLine : Qt::SolidLine));
    p.setBrush(n == 0 ? QBrush(Qt::NoBrush)
                      : QBrush(n == 1 ? color(theme.raised) : mix(theme.raised, theme.edit, 0.25 + 0.1 * n)));
    p.drawRoundedRect(box, 3, 3);
    p.setPen(color(n == 0 ? theme.muted : theme.text));
    p.drawText(box, Qt::AlignCenter, n > 1 ? QString("%1×%2").arg(layer).arg(n) : QString::number(layer));
    if (n == 0) p.drawLine(QPointF(box.left() + 4, box.center().y()), QPointF(box.right() - 4, box.center().y()));
    if (hasFocus() && layer == current_) {
      p.setPen(QPen(color(theme.selection), 2));
      p.setBrush(Qt::NoBrush);
      p.drawRoundedRect(box.adjusted(-1, -1, 1, 1), 4, 4);
    }
  }
}

}  // namespace switchyard
