// Joins a View to the run model, its header and its table. GUI thread.
#include "app/gui/docks/live_dock.h"

#include <QAbstractTableModel>

#include "app/gui/style.h"
#include "app/gui/table_panel.h"
#include "app/session/run_model.h"

namespace switchyard {

LiveDock::LiveDock(std::unique_ptr<View> view, RunModel& model, const ViewCommands& commands, QWidget* parent)
    : Dock(QString::fromUtf8(view->id().data(), qsizetype(view->id().size())),
           QString::fromUtf8(view->title().data(), qsizetype(view->title().size())), parent),
      model_(model),
      theme_(current_theme()) {
  source_ = {&model_.data(), &selection_, &cursor_, &commands, &theme_, float(ui_scale())};
  live_ = new LiveViewWidget(std::move(view), source_, this);
  live_->set_max_rate(30);
  set_body(live_);
  panel_ = make_table_panel(this);
  set_table(panel_);
  set_settings(live_->view().settings(), [this](const QString& id, int value) { set_setting(id, value); });

  pin_ = flat_button(tr("pin"), tr("Stop following the selection and the time cursor (P)"), this);
  pin_->setCheckable(true);
  add_to_header(pin_);
  connect(pin_, &QToolButton::clicked, this, &LiveDock::set_pinned);
  connect(&model_, &RunModel::data_changed, this, &LiveDock::refresh);
  connect(&model_, &RunModel::model_changed, this, [this] {
    set_pinned(false);
    refresh();
  });
  connect(&model_, &RunModel::selection_changed, this, &LiveDock::follow);
  connect(&model_, &RunModel::cursor_changed, this, &LiveDock::follow);
  follow();
}

TablePanel* LiveDock::make_table_panel(QWidget* parent) {
  QAbstractTableModel* rows = live_->view().make_table(this);
  auto* panel = new TablePanel(
      rows, [this, rows] { live_->view().refresh_table(rows, model_.data(), selection_, cursor_); }, parent);
  panels_.push_back(panel);
  return panel;
}

void LiveDock::follow() {
  if (pinned_) return;
  selection_ = model_.selection();
  cursor_ = model_.cursor();
  refresh();
}

void LiveDock::refresh() {
  if (pinned_ && cursor_ && *cursor_ >= model_.data().tokens()) return set_pinned(false);
  if (isVisible() && !shows_table()) live_->data_changed();
  for (TablePanel* panel : panels_) panel->data_changed();
  refresh_header();
}

void LiveDock::refresh_header() {
  if (!isVisible()) return;
  std::string text = live_->view().subtitle(model_.data(), selection_, cursor_);
  set_subtitle(QString::fromStdString(text) + (pinned_ ? tr(" · pinned") : QString()));
  update_settings(live_->view().settings());
}

void LiveDock::set_pinned(bool on) {
  if (on && !cursor_ && model_.data().tokens() > 0) cursor_ = model_.data().shown_index(cursor_);
  pinned_ = on && model_.data().tokens() > 0;
  pin_->setChecked(pinned_);
  if (!pinned_) follow();
  refresh_header();
}

void LiveDock::set_setting(const QString& id, int value) {
  for (ViewSetting& setting : live_->view().settings()) {
    if (QString::fromStdString(setting.id) != id || value < 0 || size_t(value) >= setting.options.size()) continue;
    setting.value = value;
  }
  refresh();
  Q_EMIT setting_changed();
}

void LiveDock::theme_changed() {
  theme_ = current_theme();
  source_.scale = float(ui_scale());
  live_->data_changed();
}

void LiveDock::showEvent(QShowEvent* event) {
  Dock::showEvent(event);
  live_->data_changed();
  refresh_header();
}

}  // namespace switchyard
