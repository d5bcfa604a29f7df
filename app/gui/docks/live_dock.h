// A dock with one live view: its OpenGL widget, its table twin, its settings, and a pin that makes it stop
// following the shared selection and time cursor. GUI thread.
#pragma once

#include "app/gui/dock.h"
#include "views/host/live_view_widget.h"

namespace switchyard {

class RunModel;
class TablePanel;

class LiveDock : public Dock {
  Q_OBJECT
 public:
  LiveDock(std::unique_ptr<View> view, RunModel& model, const ViewCommands& commands, QWidget* parent);

  LiveViewWidget* live() const { return live_; }
  View& view() const { return live_->view(); }
  TablePanel* table_panel() const { return panel_; }

  bool pinned() const { return pinned_; }
  void set_pinned(bool on);
  void set_setting(const QString& id, int value);
  void theme_changed();

  // A second table twin of the same view, for a dock of its own.
  TablePanel* make_table_panel(QWidget* parent);

 Q_SIGNALS:
  void setting_changed();

 protected:
  void showEvent(QShowEvent* event) override;

 private:
  void follow();  // takes over the shared selection and cursor unless pinned
  void refresh();
  void refresh_header();

  RunModel& model_;
  Selection selection_;
  TimeCursor cursor_;
  Theme theme_;
  ViewSource source_;
  bool pinned_ = false;
  LiveViewWidget* live_;
  TablePanel* panel_;
  std::vector<TablePanel*> panels_;
  QToolButton* pin_;
};

}  // namespace switchyard
