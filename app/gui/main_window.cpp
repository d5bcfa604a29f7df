// Building the window and what its actions do. GUI thread.
#include "app/gui/main_window.h"

#include <filesystem>

#include <QAction>
#include <QApplication>
#include <QCloseEvent>
#include <QDateTime>
#include <QElapsedTimer>
#include <QFileDialog>
#include <QFileInfo>
#include <QInputDialog>
#include <QLabel>
#include <QMenuBar>
#include <QScreen>
#include <QStackedWidget>
#include <QStandardPaths>
#include <QVBoxLayout>

#include "app/gui/action_table.h"
#include "app/gui/actions.h"
#include "app/gui/active_experts_plot.h"
#include "app/gui/behaviors/drop_open.h"
#include "app/gui/behaviors/report_building.h"
#include "app/gui/behaviors/workspace.h"
#include "app/gui/docks/adaptation_panel.h"
#include "app/gui/docks/branch_panel.h"
#include "app/gui/docks/generation_panel.h"
#include "app/gui/docks/gradient_panel.h"
#include "app/gui/docks/effect_panel.h"
#include "app/gui/docks/lens_panel.h"
#include "app/gui/docks/history_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/docks/log_panel.h"
#include "app/gui/docks/plugin_panel.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/scheme_panel.h"
#include "app/gui/go_to.h"
#include "app/gui/help_dialog.h"
#include "app/gui/palette.h"
#include "app/gui/start_page.h"
#include "app/gui/status_row.h"
#include "app/gui/style.h"
#include "app/gui/table_panel.h"
#include "app/gui/toasts.h"
#include "app/gui/token_text_view.h"
#include "app/gui/tool_row.h"
#include "app/gui/workbench.h"
#include "app/session/adaptation_log.h"
#include "engine/plugin_host/host.h"
#include "views/plugin/view.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

constexpr int kMinimumWidth = 720, kMinimumHeight = 480;

QSize first_size(const WindowOptions& options) {
  const auto parts = options.size.split('x');
  if (parts.size() == 2) return {parts[0].toInt(), parts[1].toInt()};
  if (!options.screenshot.isEmpty()) return {1600, 900};
  constexpr int kFrame = 32;  // what a window manager puts on top
  return QSize(1600, 900).boundedTo(QGuiApplication::primaryScreen()->availableSize() - QSize(0, kFrame));
}

QString workspace_filter() {
  return QObject::tr("Workspaces (*.switchyard.json)");
}
QString script_filter() {
  return QObject::tr("Edit scripts (*.edits.json);;All files (*)");
}

}  // namespace

MainWindow::MainWindow(const WindowOptions& options, RunModel::OpenSession open)
    : options_(options), model_(jobs_, std::move(open)) {
  setWindowTitle("Switchyard");
  setMinimumSize(kMinimumWidth, kMinimumHeight);
  resize(first_size(options_));
  commands_.select = [this](const Selection& s) { model_.select(s); };
  commands_.set_cursor = [this](const TimeCursor& c) { model_.set_cursor(c); };
  commands_.edit = [this](EditCommand e) { model_.edit(std::move(e)); };
  commands_.edit_all = [this](std::vector<EditCommand> e) { model_.edit(std::move(e), "user"); };
  commands_.run_action = [this](std::string_view id) {
    actions_->run(QString::fromUtf8(id.data(), qsizetype(id.size())));
  };
  commands_.remove_shadow = [this](size_t index) { model_.remove_shadow(index); };
  commands_.set_setting = [this](std::string_view view, std::string_view setting, int value) {
    if (LiveDock* dock = live_dock(QString::fromUtf8(view.data(), qsizetype(view.size()))))
      dock->set_setting(QString::fromUtf8(setting.data(), qsizetype(setting.size())), value);
  };

  workbench_ = new Workbench(this);
  build_docks();
  actions_ = new ActionTable(this, action_rows(*this));
  connect(actions_, &ActionTable::refused, this, [this](const QString& why) { log_.add(LogEntry::kNote, why); });

  auto* brand = new QLabel("Switchyard");
  brand->setObjectName("brand");
  menuBar()->setCornerWidget(brand, Qt::TopLeftCorner);
  actions_->fill(menuBar());

  auto* body = new QWidget(this);
  auto* column = new QVBoxLayout(body);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  tools_ = new ToolRow(model_, *actions_, body);
  pages_ = new QStackedWidget(body);
  start_ = new StartPage(
      model_, jobs_, [this](const QString& id) { actions_->run(id); }, [this](const QString& path) { open_path(path); },
      pages_);
  pages_->addWidget(start_);
  pages_->addWidget(workbench_);
  status_ = new StatusRow(model_, jobs_, body);
  column->addWidget(tools_);
  column->addWidget(pages_, 1);
  column->addWidget(status_);
  setCentralWidget(body);
  palette_ = new Palette(this);
  toasts_ = new Toasts(this, log_);
  connect(toasts_, &Toasts::log_asked, this, [this] {
    if (!workbench_->dock("log")->isVisible()) toggle_dock("log");
  });
  workbench_->arrange_default();
  connect_model();
  refresh();
}

MainWindow::~MainWindow() {
  model_.disconnect(this);
  jobs_.disconnect(this);
  disconnect(qApp, nullptr, actions_, nullptr);  // the focus leaves this window after its model is gone
}

void MainWindow::build_docks() {
  generation_ = new GenerationPanel(model_);
  generation_dock_ = new Dock("generation", tr("Generation"), workbench_);
  generation_dock_->set_body(generation_);
  generation_dock_->set_help("generation");
  generation_settings_ = {
      {"tint",
       "Tint of the tokens",
       {"tint: none", "tint: router entropy", "tint: margin", "tint: first expert", "tint: changed by edits"},
       int(TokenQuantity::kEntropy)}};
  generation_dock_->set_settings(generation_settings_, [this](const QString&, int value) {
    generation_settings_[0].value = value;
    generation_->text()->set_quantity(TokenQuantity(value));
    generation_dock_->update_settings(generation_settings_);
  });
  workbench_->add(generation_dock_);

  auto* history = new Dock("edit_history", tr("Edit history"), workbench_);
  history->set_body(new HistoryPanel(model_, [this](const QString& id) { actions_->run(id); }));
  history->set_help("edit_history");
  workbench_->add(history);

  scheme_ = new SchemePanel(model_, jobs_);
  auto* scheme = new Dock("scheme", tr("Scheme"), workbench_);
  scheme->set_body(scheme_);
  scheme->set_help("schemes");
  connect(scheme_, &SchemePanel::scheme_shown, scheme,
          [scheme](const QString& name) { 
            const SchemeInfo* info = find_scheme(name.toStdString());
            scheme->set_help(info && info->origin ? "plugins" : name == "native" ? "schemes" : "schemes/" + name);
          });
  auto* counts = new TableTwin(scheme);
  auto* table = new TablePanel(counts, [this, counts] { counts->set(active_experts_table(scheme_->plot().counts())); });
  scheme->set_table(table);
  connect(&model_, &RunModel::data_changed, table, &TablePanel::data_changed);
  connect(&model_, &RunModel::selection_changed, table, &TablePanel::data_changed);
  connect(&model_, &RunModel::cursor_changed, table, &TablePanel::data_changed);
  workbench_->add(scheme);

  analysis_ = new AnalysisPanel(model_, jobs_);
  auto* analysis = new Dock("analysis", tr("Analysis"), workbench_);
  analysis->set_body(analysis_);
  analysis->set_help("analyses");
  connect(analysis_, &AnalysisPanel::failed, this, [this](const Error& error) { log_.add(error); });
  workbench_->add(analysis);
  adaptation_ = new AdaptationPanel(model_, [this](const QString& id) { actions_->run(id); });
  auto* adaptation = new Dock("adaptation", tr("Adaptation"), workbench_);
  adaptation->set_body(adaptation_);
  adaptation->set_help("adaptation");
  auto* steps = new TableTwin(adaptation);
  auto* log_table = new TablePanel(steps, [this, steps] {
    const SessionSnapshot* s = model_.has_session() ? model_.snapshot() : nullptr;
    steps->set(s && s->adaptation ? adaptation_table(*s->adaptation, *model_.data().plan) : TableData{});
  });
  adaptation->set_table(log_table);
  connect(&model_, &RunModel::data_changed, log_table, &TablePanel::data_changed);
  workbench_->add(adaptation);

  gradients_ = new GradientPanel(model_, jobs_);
  auto* gradients = new Dock("router_gradients", tr("Router gradients"), workbench_);
  gradients->set_body(gradients_);
  gradients->set_help("router_gradients");
  auto* wanted = new TableTwin(gradients);
  auto* wanted_table = new TablePanel(wanted, [this, wanted] { wanted->set(gradients_->table()); });
  gradients->set_table(wanted_table);
  connect(gradients_, &GradientPanel::lens_changed, wanted_table, &TablePanel::data_changed);
  connect(&model_, &RunModel::selection_changed, wanted_table, &TablePanel::data_changed);
  workbench_->add(gradients);

  lens_ = new LensPanel(model_, jobs_);
  auto* lens = new Dock("logit_lens", tr("Logit lens"), workbench_);
  lens->set_body(lens_);
  lens->set_help("logit_lens");
  auto* read = new TableTwin(lens);
  auto* read_table = new TablePanel(read, [this, read] { read->set(lens_->table()); });
  lens->set_table(read_table);
  connect(lens_, &LensPanel::lens_changed, read_table, &TablePanel::data_changed);
  workbench_->add(lens);

  effects_ = new EffectPanel(model_, jobs_);
  auto* effects = new Dock("edit_effects", tr("Edit effects"), workbench_);
  effects->set_body(effects_);
  effects->set_help("edit_effects");
  auto* positions = new TableTwin(effects);
  auto* effect_rows = new TablePanel(positions, [this, positions] { positions->set(effects_->table()); });
  effects->set_table(effect_rows);
  connect(effects_, &EffectPanel::effect_changed, effect_rows, &TablePanel::data_changed);
  workbench_->add(effects);

  auto* branches = new Dock("branches", tr("Branches"), workbench_);
  branches->set_body(new BranchPanel(model_, [this](const QString& id) { actions_->run(id); }));
  branches->set_help("branches");
  workbench_->add(branches);

  for (auto& view : make_builtin_views()) {
    auto* dock = new LiveDock(std::move(view), model_, commands_, workbench_);
    live_.push_back(dock);
    workbench_->add(dock);
  }
  for (auto& view : make_plugin_views(PluginHost::instance())) {
    auto* dock = new LiveDock(std::move(view), model_, commands_, workbench_);
    dock->set_help("plugins");
    live_.push_back(dock);
    workbench_->add(dock);
  }
  const auto add_table = [&](const char* id, const QString& title, const char* view) {
    LiveDock* source = live_dock(view);
    if (!source) return;
    auto* dock = new Dock(id, title, workbench_);
    dock->set_body(source->make_table_panel(dock));
    dock->set_help("tables");
    workbench_->add(dock);
  };
  add_table("token_table", tr("Token table"), "token_strip");
  add_table("load_table", tr("Load table"), "expert_load");
  plugins_ = new PluginPanel(PluginHost::instance());
  auto* plugins = new Dock("plugins", tr("Plugins"), workbench_);
  plugins->set_body(plugins_);
  plugins->set_help("plugins");
  connect(plugins_, &PluginPanel::failed, this, [this](const Error& error) { log_.add(error); });
  connect(plugins_, &PluginPanel::changed, this, [this] {
    scheme_->choices_changed();
    for (LiveDock* dock : live_) dock->live()->data_changed();
    refresh();
  });
  workbench_->add(plugins);
  new ReportBuilding(*this, *analysis_);
  auto* log = new Dock("log", tr("Log"), workbench_);
  log->set_body(new LogPanel(log_));
  log->set_help("log");
  workbench_->add(log);
  for (Dock* dock : workbench_->docks())
    connect(dock, &Dock::help_asked, this, [this](const QString& page) { help().show_page(page); });
}

void MainWindow::connect_model() {
  connect(&model_, &RunModel::model_changed, this, &MainWindow::refresh);
  connect(&model_, &RunModel::data_changed, this, &MainWindow::refresh);
  connect(&model_, &RunModel::cursor_changed, this, &MainWindow::refresh);
  connect(&model_, &RunModel::selection_changed, this, &MainWindow::refresh);
  connect(&model_, &RunModel::recording_changed, this, &MainWindow::refresh);
  connect(qApp, &QApplication::focusChanged, actions_, &ActionTable::refresh);  // some depend on the panel in use
  connect(&model_, &RunModel::failed, this, [this](const Error& error) { log_.add(error); });
  connect(&model_, &RunModel::note, this, [this](const QString& text) { log_.add(LogEntry::kNote, text); });
}

void MainWindow::refresh() {
  QWidget* page = model_.is_empty() ? static_cast<QWidget*>(start_) : workbench_;
  if (pages_->currentWidget() != page) pages_->setCurrentWidget(page);
  actions_->refresh();
  tools_->refresh();
  status_->refresh();
  const QString what = model_.is_empty()    ? QString()
                       : model_.has_trace() ? QFileInfo(model_.opened().model).fileName()
                                            : QString::fromStdString(model_.checkpoint()->name);
  setWindowTitle(what.isEmpty() ? QString("Switchyard") : what + " – Switchyard");
  generation_dock_->set_subtitle(model_.data().plan ? tr("layer %1").arg(model_.model_layer()) : QString());
}

LiveDock* MainWindow::live_dock(const QString& id) const {
  for (LiveDock* dock : live_)
    if (dock->objectName() == id) return dock;
  return nullptr;
}

HelpDialog& MainWindow::help() {
  if (!help_) help_ = new HelpDialog(*actions_, this);
  return *help_;
}

void MainWindow::open_path(const QString& path) {
  const Dropped dropped = what_is(path);
  switch (dropped.kind) {
    case Dropped::kModel:
      return model_.open_model({path, options_.backend.toStdString(), options_.threads});
    case Dropped::kTrace:
      return model_.open_trace(path.toStdString());
    case Dropped::kScript:
      return model_.load_script(path.toStdString());
    case Dropped::kWorkspace:
      return open_workspace(*this, path.toStdString());
    case Dropped::kUnknown:
      break;
  }
  log_.add(Error{QFileInfo::exists(path) ? ErrorCode::kMalformed : ErrorCode::kNotFound, dropped.sentence.toStdString(),
                 path.toStdString(),
                 "Open a folder with config.json and safetensors, a *.moetrace.h5 trace or an *.edits.json script."});
}

void MainWindow::ask_for_model() {
  const QString folder = QFileDialog::getExistingDirectory(this, tr("Open a checkpoint folder"));
  if (!folder.isEmpty()) open_path(folder);
}

void MainWindow::ask_for_trace() {
  const QString file =
      QFileDialog::getOpenFileName(this, tr("Open a trace"), {}, tr("Traces (*.moetrace.h5 *.part);;All files (*)"));
  if (!file.isEmpty()) open_path(file);
}

void MainWindow::start_run() {
  model_.start(generation_->prompt(), generation_->max_new_tokens(), RunModel::kRun, generation_->chat());
}

void MainWindow::toggle_run() {
  if (model_.running()) return model_.pause();
  const SessionSnapshot* s = model_.snapshot();
  const bool ended = s && s->state == RunState::kFinished && s->finish != Finish::kLength;
  if (generation_->starts_anew() || !s || s->state == RunState::kIdle || s->state == RunState::kFailed || ended)
    return start_run();
  model_.play(generation_->max_new_tokens());
}

void MainWindow::step_run() {
  if (!generation_->starts_anew() && model_.state() != RunState::kIdle) return model_.step();
  model_.start(generation_->prompt(), generation_->max_new_tokens(), RunModel::kStep, generation_->chat());
}

void MainWindow::toggle_recording() {
  if (model_.recording()) return model_.stop_recording();
  const QString folder = QStandardPaths::writableLocation(QStandardPaths::DocumentsLocation);
  const QString name = QString::fromStdString(model_.checkpoint()->name).replace('/', '-') +
                       QDateTime::currentDateTime().toString("-yyyyMMdd-hhmmss") + ".moetrace.h5";
  QString file = QFileDialog::getSaveFileName(this, tr("Record to"), folder + "/" + name, tr("Traces (*.moetrace.h5)"));
  if (file.isEmpty()) return;
  if (!file.endsWith(".moetrace.h5")) file += ".moetrace.h5";
  model_.record_to(file.toStdString(), true);  // the dialog asked before replacing
}

void MainWindow::ask_to_save_script() {
  QString file = QFileDialog::getSaveFileName(this, tr("Save edits as a script"), {}, script_filter());
  if (file.isEmpty()) return;
  if (!file.endsWith(".json")) file += ".edits.json";
  model_.save_script(file.toStdString(), Overwrite::kAllow);  // the dialog asked before replacing
}

void MainWindow::ask_to_export() {
  const QString folder = QFileDialog::getSaveFileName(this, tr("Export the edited model to a new folder"), {}, {}, nullptr,
                                                      QFileDialog::DontConfirmOverwrite);
  if (!folder.isEmpty()) model_.export_model(folder.toStdString());  // refuses what is there already
}

void MainWindow::ask_to_load_script() {
  const QString file = QFileDialog::getOpenFileName(this, tr("Load an edit script"), {}, script_filter());
  if (!file.isEmpty()) model_.load_script(file.toStdString());
}

void MainWindow::ask_to_save_workspace() {
  QString file = QFileDialog::getSaveFileName(this, tr("Save workspace"), {}, workspace_filter());
  if (file.isEmpty()) return;
  if (!file.endsWith(".switchyard.json")) file += ".switchyard.json";
  save_workspace(*this, file.toStdString());
}

void MainWindow::ask_to_open_workspace() {
  const QString file = QFileDialog::getOpenFileName(this, tr("Open a workspace"), {}, workspace_filter());
  if (!file.isEmpty()) open_path(file);
}

void MainWindow::ask_for_shadow() {
  const QString file = QFileDialog::getOpenFileName(this, tr("Compare with an edit script"), {}, script_filter());
  if (file.isEmpty()) return;
  model_.add_shadow(std::filesystem::path(file.toStdString()));
  show_dock("compare");
}

void MainWindow::ask_for_replay() {
  const QString file = QFileDialog::getOpenFileName(this, tr("Replay a trace"), {}, tr("Traces (*.moetrace.h5)"));
  if (!file.isEmpty()) model_.replay(std::filesystem::path(file.toStdString()));
}

// Those schemes that this model can run with their defaults and that one token's logits decide.
void MainWindow::ask_for_shadow_scheme() {
  const ModelPlan& plan = model_.checkpoint()->plan;
  QStringList titles;
  std::vector<std::pair<QString, Edit>> found;
  for (const SchemeInfo& info : schemes()) {
    const auto scheme = make_scheme({info.name, {}});
    if (!scheme || !*scheme) continue;
    const Edit edit = SetScheme{{}, *scheme};
    Recipe recipe;
    if (!validate(edit, plan, recipe)) continue;
    apply(edit, plan, recipe);
    if (!ShadowRouter::unavailable(recipe).empty()) continue;
    titles << QString::fromUtf8(info.title);
    found.emplace_back(QString::fromUtf8(info.name), edit);
  }
  bool chosen = false;
  const QString title = QInputDialog::getItem(this, tr("Compare with a scheme"),
                                              tr("In all layers, with its defaults; a script sets parameters:"), titles, 0, false, &chosen);
  const qsizetype at = titles.indexOf(title);
  if (!chosen || at < 0) return;
  model_.add_shadow(found[size_t(at)].first, {{found[size_t(at)].second, std::nullopt}});
  show_dock("compare");
}

void MainWindow::rewind_to_shown() {
  model_.rewind(model_.data().shown_index(model_.cursor()));
  show_dock("branches");
}

void MainWindow::show_palette() {
  std::vector<PaletteItem> items;
  for (const ActionRow& row : actions_->rows()) {
    QString group = row.menu;
    if (group.startsWith('-')) group.remove(0, 1);
    const QString id = row.id;
    items.push_back(
        {row.title, group, actions_->keys_text(row), actions_->why_blocked(row), [this, id] { actions_->run(id); }});
  }
  palette_->open(tr("Type an action; Ctrl+P goes to layers, experts and tokens"), std::move(items),
                 [this](const QString& query) { return go_to_items(model_, query, false); });
}

void MainWindow::show_go_to() {
  palette_->open(tr("layer 5, expert 12, token 66, or words of the text"), {},
                 [this](const QString& query) { return go_to_items(model_, query, true); });
}

void MainWindow::show_help_of_focus() {
  const Dock* dock = workbench_->focused();
  help().show_page(dock ? dock->help_page() : "index");
}

void MainWindow::set_theme(const QString& name) { use_theme(theme_by_name(name)); }

void MainWindow::use_theme(const Theme& theme) {
  apply_theme(*qApp, theme);
  for (LiveDock* dock : live_) dock->theme_changed();
  refresh();
  Q_EMIT theme_changed();
}

void MainWindow::set_scale(double scale) {
  set_ui_scale(scale);
  set_theme(current_theme().dark ? "dark" : "light");
}

void MainWindow::show_dock(const QString& id) {
  Dock* dock = workbench_->dock(id);
  if (!dock) return;
  dock->show();
  dock->raise();
}

void MainWindow::toggle_dock(const QString& id) {
  Dock* dock = workbench_->dock(id);
  if (!dock) return;
  dock->setVisible(!dock->isVisible());
  if (dock->isVisible()) dock->raise();
}

bool MainWindow::event(QEvent* event) {
  if (event->type() != QEvent::UpdateRequest || model_.state() != RunState::kGenerating)
    return QMainWindow::event(event);
  QElapsedTimer clock;
  clock.start();
  const bool done = QMainWindow::event(event);  // paints and composes what is dirty
  frame_times_.add(double(clock.nsecsElapsed()) / 1e6);
  return done;
}

void MainWindow::closeEvent(QCloseEvent* event) {
  QMainWindow::closeEvent(event);
  event->accept();
  QApplication::quit();
}

}  // namespace switchyard
