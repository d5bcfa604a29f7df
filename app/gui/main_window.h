// The window: menus, tool row, docks or start page, status row; it joins the run model to everything that
// shows it. Features of their own live in behaviors/. GUI thread.
#pragma once

#include <memory>
#include <optional>

#include <QMainWindow>
#include <QTimer>

#include "app/gui/frame_times.h"
#include "app/gui/log.h"
#include "app/gui/options.h"
#include "app/session/jobs.h"
#include "app/session/run_model.h"

class QStackedWidget;

namespace switchyard {

class ActionTable;
class AnalysisPanel;
class AdaptationPanel;
class Dock;
class EffectPanel;
class GenerationPanel;
class GradientPanel;
class LensPanel;
class HelpDialog;
class LiveDock;
class Palette;
class PluginPanel;
class SchemePanel;
class StartPage;
class StatusRow;
class Toasts;
class ToolRow;
class Workbench;

class MainWindow : public QMainWindow {
  Q_OBJECT
 public:
  explicit MainWindow(const WindowOptions& options, RunModel::OpenSession open = RunModel::open_session);
  ~MainWindow() override;

  RunModel& model() { return model_; }
  Jobs& jobs() { return jobs_; }
  Log& log() { return log_; }
  ActionTable& actions() { return *actions_; }
  Workbench& workbench() { return *workbench_; }
  GenerationPanel& generation() { return *generation_; }
  SchemePanel& scheme() { return *scheme_; }
  AnalysisPanel& analysis() { return *analysis_; }
  AdaptationPanel& adaptation() { return *adaptation_; }
  GradientPanel& gradients() { return *gradients_; }
  LensPanel& lens() { return *lens_; }
  EffectPanel& effects() { return *effects_; }
  PluginPanel& plugins() { return *plugins_; }
  StatusRow& status() { return *status_; }
  Palette& palette_box() { return *palette_; }
  StartPage& start_page() { return *start_; }
  HelpDialog& help();
  Toasts& toasts() { return *toasts_; }
  const WindowOptions& options() const { return options_; }
  FrameTimes& frame_times() { return frame_times_; }  // while tokens are generated
  LiveDock* live_dock(const QString& id) const;
  std::vector<LiveDock*> live_docks() const { return live_; }

  // What the actions do.
  void open_path(const QString& path);  // model, trace, script or workspace, by what it is
  void ask_for_model();
  void ask_for_trace();
  void toggle_run();
  void start_run();
  void step_run();
  void toggle_recording();
  void ask_to_save_script();
  void ask_to_export();
  void ask_to_load_script();
  void ask_for_shadow();
  void ask_for_shadow_scheme();
  void ask_for_replay();
  void rewind_to_shown();  // a new branch from the shown token on
  void ask_to_save_workspace();
  void ask_to_open_workspace();
  void show_palette();
  void show_go_to();
  void show_help_of_focus();
  void set_theme(const QString& name);
  void use_theme(const Theme& theme);
  void set_scale(double scale);
  void toggle_dock(const QString& id);
  void show_dock(const QString& id);

 Q_SIGNALS:
  void theme_changed();

 protected:
  void closeEvent(QCloseEvent* event) override;
  bool event(QEvent* event) override;

 private:
  void build_docks();
  void connect_model();
  void refresh();

  const WindowOptions options_;
  Jobs jobs_;
  Log log_;
  FrameTimes frame_times_;
  RunModel model_;
  ViewCommands commands_;
  ActionTable* actions_ = nullptr;
  QStackedWidget* pages_ = nullptr;
  Workbench* workbench_ = nullptr;
  StartPage* start_ = nullptr;
  ToolRow* tools_ = nullptr;
  StatusRow* status_ = nullptr;
  Palette* palette_ = nullptr;
  Toasts* toasts_ = nullptr;
  HelpDialog* help_ = nullptr;
  GenerationPanel* generation_ = nullptr;
  SchemePanel* scheme_ = nullptr;
  AnalysisPanel* analysis_ = nullptr;
  AdaptationPanel* adaptation_ = nullptr;
  GradientPanel* gradients_ = nullptr;
  LensPanel* lens_ = nullptr;
  EffectPanel* effects_ = nullptr;
  PluginPanel* plugins_ = nullptr;
  Dock* generation_dock_ = nullptr;
  std::vector<LiveDock*> live_;
  std::vector<ViewSetting> generation_settings_;
};

}  // namespace switchyard
