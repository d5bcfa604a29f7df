// Chips and transport buttons. GUI thread.
#include "app/gui/tool_row.h"

#include <algorithm>
#include <thread>

#include <QAction>
#include <QHBoxLayout>
#include <QMenu>
#include <QPainter>
#include <QStyle>
#include <QStyleOptionToolButton>
#include <QTextDocument>

#include "app/gui/action_table.h"
#include "app/gui/style.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

QString plan_text(const RunModel& model) {
  const ModelPlan& plan = *model.data().plan;
  QString text = QString::fromStdString(plan.family);
  const auto add = [&](const QString& part) { text += (text.isEmpty() ? "" : " · ") + part; };
  add(QObject::tr("%1 layers").arg(plan.layers.size()));
  add(QObject::tr("%1 experts").arg(plan.max_experts()));
  add(QObject::tr("top-%1").arg(plan.max_experts_per_token()));
  if (model.has_session())
    add(QString::fromUtf8(name(plan.dtype).data(), qsizetype(name(plan.dtype).size())).toLower());
  return text;
}

const char* capture_name(CaptureLevel level) {
  static const char* const names[] = {"off", "ids", "weights", "logits"};
  return names[size_t(level)];
}

}  // namespace

Chip::Chip(const QString& label, QWidget* parent) : QToolButton(parent), label_(label) {
  setProperty("kind", "chip");
  setPopupMode(QToolButton::InstantPopup);
  setFocusPolicy(Qt::TabFocus);
  setSizePolicy(QSizePolicy::Fixed, QSizePolicy::Fixed);
}

void Chip::set_value(const QString& strong, const QString& quiet) {
  if (strong == strong_ && quiet == quiet_) return;
  strong_ = strong;
  quiet_ = quiet;
  setAccessibleName((label_ + " " + strong_ + " " + quiet_).trimmed());
  setToolTip(Qt::convertFromPlainText((label_ + " " + strong_ + (quiet_.isEmpty() ? "" : "\n" + quiet_)).trimmed()));
  updateGeometry();
  update();
}

void Chip::set_dot(QColor dot) {
  if (dot == dot_) return;
  dot_ = dot;
  updateGeometry();
  update();
}

void Chip::set_room(int width) {
  if (width == room_) return;
  room_ = width;
  updateGeometry();
}

QSize Chip::sizeHint() const {
  QFont bold = font();
  bold.setWeight(label_.isEmpty() ? QFont::DemiBold : QFont::Normal);
  int width = 24 + (dot_.isValid() ? 16 : 0);
  if (!label_.isEmpty()) width += fontMetrics().horizontalAdvance(label_) + 7;
  width += QFontMetrics(bold).horizontalAdvance(strong_) + 1;
  if (!quiet_.isEmpty()) width += fontMetrics().horizontalAdvance(quiet_) + 8;
  return {std::min(width, room_), fontMetrics().height() + 12};
}

void Chip::paintEvent(QPaintEvent*) {
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  QStyleOptionToolButton option;
  initStyleOption(&option);
  option.text.clear();
  option.subControls = QStyle::SC_ToolButton;
  style()->drawComplexControl(QStyle::CC_ToolButton, &option, &p, this);
  const Theme& theme = current_theme();
  QRect box = rect().adjusted(12, 0, -10, 0);
  if (dot_.isValid()) {
    p.setPen(Qt::NoPen);
    p.setBrush(dot_);
    p.drawEllipse(QPointF(box.left() + 4, box.center().y() + 0.5), 4.5, 4.5);
    box.setLeft(box.left() + 16);
  }
  const auto put = [&](const QString& text, QColor ink, QFont::Weight weight) {
    if (text.isEmpty() || box.width() <= 0) return;
    QFont font = this->font();
    font.setWeight(weight);
    p.setFont(font);
    p.setPen(isEnabled() ? ink : color(theme.faint));
    const QString shown = QFontMetrics(font).elidedText(text, Qt::ElideRight, box.width());
    p.drawText(box, Qt::AlignLeft | Qt::AlignVCenter, shown);
    box.setLeft(box.left() + QFontMetrics(font).horizontalAdvance(shown) + 7);
  };
  put(label_, color(theme.muted), QFont::Normal);
  put(strong_, color(theme.text), label_.isEmpty() ? QFont::DemiBold : QFont::Normal);
  put(quiet_, color(theme.muted), QFont::Normal);
}

ToolRow::ToolRow(RunModel& model, ActionTable& actions, QWidget* parent)
    : QWidget(parent), model_(model), actions_(actions) {
  setObjectName("toolRow");
  setAttribute(Qt::WA_StyledBackground);
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(12, 5, 8, 7);
  row->setSpacing(8);

  model_chip_ = new Chip({}, this);
  auto* model_menu = new QMenu(model_chip_);
  for (const char* id : {"file.open_demo", "file.open_model", "file.open_trace", "file.close"})
    model_menu->addAction(actions_.action(id));
  model_chip_->setMenu(model_menu);

  backend_chip_ = new Chip(tr("backend"), this);
  auto* backend_menu = new QMenu(backend_chip_);
  for (const char* id : {"run.backend_auto", "run.backend_cpu", "run.backend_reference"})
    backend_menu->addAction(actions_.action(id));
  backend_menu->addSeparator();
  const int cores = int(std::thread::hardware_concurrency());
  for (const int threads : std::vector<int>{1, std::max(1, cores - 1), cores}) {
    const QString text = threads == 1 ? tr("1 thread") : tr("%1 threads").arg(threads);
    bool known = false;
    for (QAction* action : backend_menu->actions()) known = known || action->text() == text;
    if (!known) backend_menu->addAction(text, this, [this, threads] { model_.set_threads(threads); });
  }
  backend_chip_->setMenu(backend_menu);

  capture_chip_ = new Chip(tr("capture"), this);
  auto* capture_menu = new QMenu(capture_chip_);
  for (const char* id : {"run.capture_off", "run.capture_ids", "run.capture_weights", "run.capture_logits", "run.taps", "run.taps_ahead", "run.record_routers"})
    capture_menu->addAction(actions_.action(id));
  capture_chip_->setMenu(capture_menu);

  record_chip_ = new Chip({}, this);
  connect(record_chip_, &QToolButton::clicked, this, [this] { actions_.run("trace.record"); });

  run_ = button("run.toggle", tr("Run"));
  run_->setProperty("kind", "primary");
  step_ = button("run.step", tr("Step"));
  stop_ = button("run.stop", tr("Stop"));
  undo_ = button("edit.undo", tr("Undo"));
  redo_ = button("edit.redo", tr("Redo"));
  search_ = button("help.palette", {});
  search_->setProperty("kind", "search");
  search_->setAccessibleName(tr("Search actions, experts, tokens"));

  row->addWidget(model_chip_);
  row->addWidget(backend_chip_);
  for (QPushButton* b : {run_, step_, stop_, undo_, redo_}) row->addWidget(b);
  row->addWidget(capture_chip_);
  row->addWidget(record_chip_);
  row->addStretch(1);
  row->addWidget(search_);
  refresh();
}

QPushButton* ToolRow::button(const QString& action_id, const QString& text) {
  auto* out = new QPushButton(text, this);
  out->setObjectName("tool." + action_id);
  out->setFocusPolicy(Qt::TabFocus);
  out->setAccessibleName(text);
  connect(out, &QPushButton::clicked, this, [this, action_id] { actions_.run(action_id); });
  return out;
}

void ToolRow::refresh() {
  const Theme& theme = current_theme();
  const SessionSnapshot* s = model_.snapshot();
  if (model_.is_empty())
    model_chip_->set_value(tr("No model"), tr("open one or try the demo"));
  else if (model_.has_trace())
    model_chip_->set_value(QString::fromStdString(model_.trace()->info.path.filename().string()), plan_text(model_));
  else
    model_chip_->set_value(QString::fromStdString(model_.checkpoint()->name), plan_text(model_));

  if (s) {
    const QString detail = QString::fromStdString(s->backend.detail);
    backend_chip_->set_value(QString::fromStdString(s->backend.name) +
                             (detail.isEmpty() || model_.has_trace() ? QString() : " · " + detail));
    if (!s->backend.note.empty())
      backend_chip_->setToolTip(Qt::convertFromPlainText(QString::fromStdString(s->backend.note)));
  }
  if (s) capture_chip_->set_value(capture_name(s->capture));
  record_chip_->setVisible(model_.has_session());
  if (model_.recording()) {
    record_chip_->set_dot(color(theme.error));
    record_chip_->set_value({}, QString::fromStdString(model_.recording_path().filename().string()));
    record_chip_->setToolTip(Qt::convertFromPlainText(tr("Recording to %1, %2 tokens written. Click to stop.")
                                                          .arg(QString::fromStdString(model_.recording_path().string()))
                                                          .arg(model_.recorded_tokens())));
  } else {
    record_chip_->set_dot(color(theme.faint));
    record_chip_->set_value({}, tr("record"));
    record_chip_->setToolTip(tr("Record every routing decision to a trace file"));
  }

  const QColor ink = color(theme.text), on_selection = color(theme.dark ? theme.window : theme.dock);
  const bool running = model_.running();
  const auto dress = [&](QPushButton* b, const char* id, Glyph glyph, const QString& text, QColor tint) {
    const ActionRow& row = *actions_.row(id);
    const QString why = actions_.why_blocked(row);
    b->setEnabled(why.isEmpty());
    const QString keys = actions_.keys_text(row);
    b->setToolTip(why.isEmpty() ? text + (keys.isEmpty() ? QString() : " (" + keys + ")") : text + ": " + why);
    b->setAccessibleName(text);
    const QString mark = QString("%1/%2/%3").arg(int(glyph)).arg(tint.rgba()).arg(text + (icons_only_ ? "-" : "+"));
    if (b->property("mark").toString() == mark) return;  // icons are drawn anew only when they differ
    b->setProperty("mark", mark);
    b->setIcon(glyph_icon(glyph, tint));
    b->setText(icons_only_ ? QString() : text);
  };
  dress(run_, "run.toggle", running ? Glyph::kPause : Glyph::kPlay, running ? tr("Pause") : tr("Run"), on_selection);
  dress(step_, "run.step", Glyph::kStep, tr("Step"), ink);
  dress(stop_, "run.stop", Glyph::kStop, tr("Stop"), ink);
  dress(undo_, "edit.undo", Glyph::kUndo, tr("Undo"), ink);
  dress(redo_, "edit.redo", Glyph::kRedo, tr("Redo"), ink);
  fit();
}

void ToolRow::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  fit();
}

// What gives way first when the window is narrow: search text, chip details, button words.
void ToolRow::fit() {
  const int w = int(width() / ui_scale());
  const bool icons = w < 1180;
  model_chip_->set_room(w >= 1500 ? 400 : w >= 1180 ? 250 : w >= 900 ? 150 : 110);
  backend_chip_->set_room(w >= 1500 ? 260 : w >= 1180 ? 180 : 120);
  record_chip_->set_room(w >= 1500 ? 220 : w >= 1180 ? 130 : 90);
  capture_chip_->setVisible(model_.snapshot() && w >= 760);
  backend_chip_->setVisible(model_.snapshot() && w >= 680);
  const QString keys = actions_.keys_text(*actions_.row("help.palette"));
  int taken = layout()->contentsMargins().left() + layout()->contentsMargins().right() +
              layout()->spacing() * (layout()->count() + 1);
  for (const QWidget* w : std::initializer_list<const QWidget*>{model_chip_, backend_chip_, capture_chip_, record_chip_,
                                                                run_, step_, stop_, undo_, redo_})
    if (!w->isHidden()) taken += w->sizeHint().width();
  const int room = width() - taken - 30;
  QString words = tr("Search…");
  for (const QString& text : {tr("Search…  %1").arg(keys), tr("Search actions, experts, tokens…     %1").arg(keys)})
    if (search_->fontMetrics().horizontalAdvance(text) <= room) words = text;
  search_->setText(words);
  if (icons == icons_only_) return;
  icons_only_ = icons;
  refresh();
}

}  // namespace switchyard
