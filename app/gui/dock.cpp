// Header and body of a dock. GUI thread.
#include "app/gui/dock.h"

#include <QTextDocument>
#include <algorithm>

#include <QAction>
#include <QActionGroup>
#include <QContextMenuEvent>
#include <QHBoxLayout>
#include <QMenu>
#include <QPainter>
#include <QStackedWidget>
#include <QStyle>
#include <QVBoxLayout>

#include "app/gui/style.h"

namespace switchyard {

ElidedLabel::ElidedLabel(const QString& text, QWidget* parent) : QLabel(parent) {
  setTextFormat(Qt::PlainText);
  setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);  // takes what is left: new words need no new layout
  set_full_text(text);
}

void ElidedLabel::set_full_text(const QString& text) {
  if (text == full_) return;
  full_ = text;
  setAccessibleName(text);
  update();
}

QSize ElidedLabel::minimumSizeHint() const {
  return {0, fontMetrics().height()};
}
QSize ElidedLabel::sizeHint() const {
  return {fontMetrics().horizontalAdvance(full_) + 2, fontMetrics().height()};
}

void ElidedLabel::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const QString shown = fontMetrics().elidedText(full_, Qt::ElideRight, width());
  const QString tip = shown == full_ ? QString() : Qt::convertFromPlainText(full_);
  if (tip != toolTip()) setToolTip(tip);
  painter.setPen(palette().color(foregroundRole()));
  painter.drawText(rect(), int(alignment() | Qt::AlignVCenter) | Qt::TextSingleLine, shown);
}

QToolButton* flat_button(const QString& text, const QString& tip, QWidget* parent) {
  auto* button = new QToolButton(parent);
  button->setProperty("kind", "flat");
  button->setText(text);
  button->setToolTip(tip);
  button->setAccessibleName(tip.isEmpty() ? text : tip);
  button->setFocusPolicy(Qt::TabFocus);
  button->setCursor(Qt::ArrowCursor);
  return button;
}

Dock::Dock(const QString& id, const QString& title, QWidget* parent) : QDockWidget(title, parent) {
  setObjectName(id);
  setAllowedAreas(Qt::AllDockWidgetAreas);
  header_ = new DockHeader(this);
  header_->setObjectName("dockHeader");
  header_->setAttribute(Qt::WA_StyledBackground);
  row_ = new QHBoxLayout(header_);
  row_->setContentsMargins(10, 4, 6, 4);
  row_->setSpacing(4);
  row_->setSizeConstraint(QLayout::SetNoConstraint);  // a dock may be narrower than its header's words
  name_ = new QLabel(title, header_);
  name_->setTextFormat(Qt::PlainText);
  name_->setProperty("kind", "title");
  subtitle_ = new ElidedLabel({}, header_);
  subtitle_->setProperty("kind", "muted");
  table_button_ = flat_button(tr("table"), tr("Show the numbers of this picture as a table (Ctrl+T)"), header_);
  table_button_->setCheckable(true);
  table_button_->hide();
  help_button_ = flat_button("?", tr("Help for %1 (F1)").arg(title), header_);
  more_ = flat_button("⋯", tr("More switches of %1").arg(title), header_);
  more_->setMenu(new QMenu(more_));
  more_->setPopupMode(QToolButton::InstantPopup);
  more_->hide();
  row_->addWidget(name_);
  row_->addSpacing(6);
  row_->addWidget(subtitle_, 1);
  row_->addWidget(more_);
  row_->addWidget(table_button_);
  row_->addWidget(help_button_);
  header_->setMinimumHeight(30);
  setTitleBarWidget(header_);

  auto* frame = new QWidget(this);
  frame->setObjectName("dockBody");
  frame->setAttribute(Qt::WA_StyledBackground);
  auto* layout = new QVBoxLayout(frame);
  layout->setContentsMargins(2, 2, 2, 4);
  stack_ = new QStackedWidget(frame);
  layout->addWidget(stack_);
  setWidget(frame);
  help_ = "views/" + id;

  connect(table_button_, &QToolButton::clicked, this, [this](bool on) { show_table(on); });
  connect(help_button_, &QToolButton::clicked, this, [this] { Q_EMIT help_asked(help_); });
  connect(header_, &DockHeader::resized, this, &Dock::fit_header);
  connect(more_->menu(), &QMenu::aboutToShow, this, &Dock::fill_more_menu);
}

void Dock::set_subtitle(const QString& text) {
  if (text == subtitle_->full_text()) return;
  subtitle_->set_full_text(text);
  fit_header();
}

// What is shown comes before its switches: they move into the "⋯" menu, the last ones first.
void Dock::fit_header() {
  const auto width_of = [](const QWidget* widget) { return widget->sizeHint().width() + 4; };
  int room = header_->width() - 24 - width_of(name_) - width_of(help_button_) - (table_ ? width_of(table_button_) : 0);
  room -= std::min(subtitle_->sizeHint().width(), std::max(room / 2, 0));
  std::vector<QToolButton*> order = setting_buttons_;
  order.insert(order.end(), switches_.begin(), switches_.end());
  int needed = 0;
  for (const QToolButton* button : order) needed += width_of(button);
  const bool all = needed <= room;
  if (!all) room -= width_of(more_);
  bool fits = true;
  for (QToolButton* button : order) {
    room -= width_of(button);
    fits = all || (fits && room >= 0);
    button->setVisible(fits);
  }
  more_->setVisible(!all);
}

void Dock::fill_more_menu() {
  QMenu* menu = more_->menu();
  menu->clear();
  for (QToolButton* button : setting_buttons_) {
    if (!button->isHidden()) continue;
    menu->addAction(button->toolTip())->setMenu(button->menu());
  }
  for (QToolButton* button : switches_) {
    if (!button->isHidden()) continue;
    QAction* action = menu->addAction(button->text());
    action->setCheckable(button->isCheckable());
    action->setChecked(button->isChecked());
    connect(action, &QAction::triggered, button, &QToolButton::click);
  }
}

void Dock::set_body(QWidget* body) {
  body_ = body;
  stack_->addWidget(body);
  setFocusProxy(body);
}

void Dock::set_table(QWidget* table) {
  table_ = table;
  stack_->addWidget(table);
  table_button_->show();
}

bool Dock::shows_table() const {
  return table_ && stack_->currentWidget() == table_;
}

void Dock::show_table(bool on) {
  if (!table_) return;
  stack_->setCurrentWidget(on ? table_ : body_);
  table_button_->setChecked(on);
  setFocusProxy(stack_->currentWidget());
  stack_->currentWidget()->setFocus();
  Q_EMIT table_shown(on);
}

void Dock::set_settings(const std::vector<ViewSetting>& settings, std::function<void(const QString&, int)> changed) {
  qDeleteAll(setting_buttons_);
  setting_buttons_.clear();
  setting_changed_ = std::move(changed);
  int at = row_->indexOf(more_);
  for (const ViewSetting& setting : settings) {
    QToolButton* button = flat_button({}, QString::fromStdString(setting.title), header_);
    auto* menu = new QMenu(button);
    auto* group = new QActionGroup(menu);
    const QString id = QString::fromStdString(setting.id);
    for (size_t i = 0; i < setting.options.size(); ++i) {
      QAction* action = menu->addAction(QString::fromStdString(setting.options[i]).replace("&", "&&"));
      action->setCheckable(true);
      group->addAction(action);
      connect(action, &QAction::triggered, this, [this, id, i] { setting_changed_(id, int(i)); });
    }
    button->setMenu(menu);
    button->setPopupMode(QToolButton::InstantPopup);
    row_->insertWidget(at++, button);
    setting_buttons_.push_back(button);
  }
  update_settings(settings);
}

void Dock::update_settings(const std::vector<ViewSetting>& settings) {
  for (size_t i = 0; i < settings.size() && i < setting_buttons_.size(); ++i) {
    const ViewSetting& setting = settings[i];
    if (setting.value < 0 || size_t(setting.value) >= setting.options.size()) continue;
    const QString text = QString::fromStdString(setting.options[size_t(setting.value)]).replace("&", "&&") + " ▾";
    if (setting_buttons_[i]->text() != text) {
      setting_buttons_[i]->setText(text);
      fit_header();
    }
    const auto actions = setting_buttons_[i]->menu()->actions();
    if (setting.value < actions.size()) actions[setting.value]->setChecked(true);
  }
}

void Dock::add_to_header(QToolButton* button) {
  row_->insertWidget(row_->indexOf(more_), button);
  switches_.push_back(button);
  fit_header();
}

void Dock::contextMenuEvent(QContextMenuEvent* event) {
  if (!header_->geometry().contains(event->pos())) return QDockWidget::contextMenuEvent(event);
  QMenu menu(this);
  QAction* floating = menu.addAction(isFloating() ? tr("Put back into the window") : tr("Float"));
  QAction* close = menu.addAction(tr("Close (View menu brings it back)"));
  QAction* chosen = menu.exec(event->globalPos());
  if (chosen == floating) setFloating(!isFloating());
  if (chosen == close) hide();
}

}  // namespace switchyard
