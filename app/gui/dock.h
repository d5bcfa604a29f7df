// A dock as the whole window uses it: a QDockWidget under a one-line header (title, what is shown, its
// switches, `table`, `?`) over one body. GUI thread.
#pragma once

#include <functional>
#include <vector>

#include <QDockWidget>
#include <QLabel>
#include <QString>
#include <QToolButton>

#include "views/view.h"

class QHBoxLayout;
class QStackedWidget;
class QVBoxLayout;

namespace switchyard {

// One line of text that ends in "…" where it does not fit, with the whole text as tooltip.
class ElidedLabel : public QLabel {
  Q_OBJECT
 public:
  explicit ElidedLabel(const QString& text = {}, QWidget* parent = nullptr);
  void set_full_text(const QString& text);
  const QString& full_text() const { return full_; }
  QSize minimumSizeHint() const override;
  QSize sizeHint() const override;

 protected:
  void paintEvent(QPaintEvent*) override;

 private:
  QString full_;
};

// The row above a dock; says when its width changes.
class DockHeader : public QWidget {
  Q_OBJECT
 public:
  using QWidget::QWidget;
  QSize minimumSizeHint() const override { return {60, QWidget::minimumSizeHint().height()}; }

 Q_SIGNALS:
  void resized();

 protected:
  void resizeEvent(QResizeEvent*) override { Q_EMIT resized(); }
};

QToolButton* flat_button(const QString& text, const QString& tip, QWidget* parent);

class Dock : public QDockWidget {
  Q_OBJECT
 public:
  // id: stable, names the dock in layouts, help pages and actions.
  Dock(const QString& id, const QString& title, QWidget* parent);

  void set_subtitle(const QString& text);
  QString subtitle() const { return subtitle_->full_text(); }
  void set_body(QWidget* body);    // the picture
  void set_table(QWidget* table);  // its twin, behind the same header
  bool shows_table() const;
  void show_table(bool on);
  bool has_table() const { return table_ != nullptr; }
  QWidget* body() const { return body_; }
  QWidget* table() const { return table_; }

  // Flat menus, one per setting; `changed` gets the setting's id and the chosen option.
  void set_settings(const std::vector<ViewSetting>& settings, std::function<void(const QString&, int)> changed);
  void update_settings(const std::vector<ViewSetting>& settings);  // titles and marks only
  // A switch left of `table`; where the header is narrow it waits in the "⋯" menu.
  void add_to_header(QToolButton* button);
  // `?` and F1 open this page of assets/help.
  void set_help(const QString& page) { help_ = page; }
  const QString& help_page() const { return help_; }

 Q_SIGNALS:
  void help_asked(const QString& page);
  void table_shown(bool on);

 protected:
  void contextMenuEvent(QContextMenuEvent* event) override;

 private:
  void fit_header();
  void fill_more_menu();

  DockHeader* header_;
  QHBoxLayout* row_;
  QLabel* name_;
  ElidedLabel* subtitle_;
  QToolButton *table_button_, *help_button_, *more_;
  std::vector<QToolButton*> switches_;
  QStackedWidget* stack_;
  QWidget *body_ = nullptr, *table_ = nullptr;
  std::vector<QToolButton*> setting_buttons_;
  std::function<void(const QString&, int)> setting_changed_;
  QString help_;
};

}  // namespace switchyard
