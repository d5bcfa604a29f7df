// switchyard-gui: from the command line to the event loop. GUI thread.
#include <sys/socket.h>
#include <unistd.h>
#include <csignal>

#include <QApplication>
#include <QFile>
#include <QSocketNotifier>
#include <QTimer>

#include "app/gui/behaviors/crash_recovery.h"
#include "app/gui/behaviors/drop_open.h"
#include "app/gui/behaviors/layout_memory.h"
#include "app/gui/behaviors/plugin_watch.h"
#include "app/gui/behaviors/recent_files.h"
#include "app/gui/behaviors/screenshot_run.h"
#include "app/gui/behaviors/settings.h"
#include "app/gui/docks/generation_panel.h"
#include "app/gui/main_window.h"
#include "app/gui/options.h"
#include "app/gui/style.h"
#include "engine/model/checkpoint.h"
#include "engine/plugin_host/host.h"
#include "engine/trace/replay.h"
#include "views/host/live_view_widget.h"

namespace {

int g_signal_pipe[2] = {-1, -1};

void on_signal(int number) {
  const char byte = static_cast<char>(number);
  [[maybe_unused]] const ssize_t wrote = ::write(g_signal_pipe[0], &byte, 1);
}

// SIGTERM and SIGINT end the program like Quit does: traces and journal are closed cleanly.
void quit_on_signals(QApplication& app, int& exit_code) {
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, g_signal_pipe) != 0) return;
  auto* notifier = new QSocketNotifier(g_signal_pipe[1], QSocketNotifier::Read, &app);
  QObject::connect(notifier, &QSocketNotifier::activated, &app, [&exit_code] {
    char byte = 0;
    if (::read(g_signal_pipe[1], &byte, 1) == 1) exit_code = 128 + byte;
    QApplication::exit(exit_code);
  });
  std::signal(SIGTERM, on_signal);
  std::signal(SIGINT, on_signal);
}

// assets/icons; installed desktops have the same from the icon theme.
QIcon window_icon() {
  QIcon icon;
  if (const auto assets = switchyard::find_assets())
    for (const int size : {16, 24, 32, 48, 64, 128, 256})
      icon.addFile(QString::fromStdString((*assets / "icons" / (std::to_string(size) + ".png")).string()));
  return icon;
}

// --prompt-file and --trace without --screenshot: the prompt is filled in and recording begins with the model.
void apply_run_options(switchyard::MainWindow& window) {
  using namespace switchyard;
  const WindowOptions& options = window.options();
  if (!options.prompt_file.isEmpty()) {
    QFile file(options.prompt_file);
    if (file.open(QIODevice::ReadOnly))
      window.generation().set_prompt(QString::fromUtf8(file.readAll()));
    else
      window.log().add(
          Error{ErrorCode::kNotFound, "The prompt file cannot be read.", options.prompt_file.toStdString(), ""});
  }
  if (options.trace.isEmpty()) return;
  QObject::connect(&window.model(), &RunModel::model_changed, &window, [&window, begun = false]() mutable {
    if (begun || !window.model().has_session()) return;
    begun = true;
    window.model().record_to(window.options().trace.toStdString(), false);
  });
}

// Before threads start and before anything lists what plugins add.
void start_plugins(const switchyard::WindowOptions& options) {
  switchyard::PluginOptions plugins;
  for (const QString& folder : options.plugin_path) plugins.path.push_back(folder.toStdString());
  for (const QString& hash : options.trust_plugin) plugins.trust.push_back(hash.toStdString());
  plugins.safe_mode = options.safe_mode;
  switchyard::PluginHost::instance().start(plugins);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace switchyard;
  read_schemes_from_traces();
  prepare_gl_defaults();
  QStringList arguments;
  for (int i = 0; i < argc; ++i) arguments << QString::fromLocal8Bit(argv[i]);
  int exit_code = 0;
  const auto options = parse_options(arguments, exit_code);
  if (!options) return exit_code;
  start_plugins(*options);

  QApplication app(argc, argv);
  QApplication::setApplicationName("switchyard");
  QApplication::setApplicationDisplayName("Switchyard");
  QApplication::setWindowIcon(window_icon());
  QApplication::setDesktopFileName("org.switchyard.Switchyard");
  QLocale::setDefault(QLocale::c());
  const bool remembers = options->screenshot.isEmpty() && !options->safe_mode;
  if (remembers) set_ui_scale(window_settings()->value("scale", 1.0).toDouble());
  const QString saved_theme = remembers ? window_settings()->value("theme", "dark").toString() : QString("dark");
  apply_theme(app, theme_by_name(options->theme.isEmpty() ? saved_theme : options->theme));
  quit_on_signals(app, exit_code);

  int result = 0;
  {
    MainWindow window(*options);
    new DropOpen(window);
    new PluginWatch(window);
    std::unique_ptr<CrashRecovery> recovery;
    if (remembers) {
      new LayoutMemory(window, !options->reset_layout);
      new RecentFiles(window);
      recovery = std::make_unique<CrashRecovery>(window);
    } else if (!options->screenshot.isEmpty()) {
      new ScreenshotRun(window);
    }
    window.show();
    window.setFocus();
    if (options->screenshot.isEmpty()) apply_run_options(window);
    const bool recovering = recovery && recovery->offer();
    const QString first = options->workspace.isEmpty() ? options->target : options->workspace;
    if (!first.isEmpty() && !recovering) QTimer::singleShot(0, &window, [&window, first] { window.open_path(first); });
    result = QApplication::exec();
    window.model().close();
  }
  return exit_code != 0 ? exit_code : result;
}
