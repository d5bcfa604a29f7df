// QCommandLineParser does the reading. GUI thread, before any window.
#include "app/gui/options.h"

#include <cstdio>

#include <QCommandLineParser>
#include <QRegularExpression>

#include "app/version.h"

namespace switchyard {
namespace {

void say(const QString& text, FILE* to) {
  std::fputs((text + "\n").toUtf8().constData(), to);
}

}  // namespace

std::optional<WindowOptions> parse_options(const QStringList& arguments, int& exit_code) {
  QCommandLineParser parser;
  parser.setApplicationDescription(
      "Opens a Mixture-of-Experts checkpoint, or a recorded trace, in the Switchyard window.\n\n"
      "  switchyard-gui demo\n"
      "  switchyard-gui ~/models/Qwen3-30B-A3B\n"
      "  switchyard-gui demo --screenshot out.png --after-tokens 64");
  parser.addPositionalArgument(
      "model", "A checkpoint folder, org/name of the Hugging Face cache, demo, or a *.moetrace.h5 file.",
      "[MODEL|TRACE]");
  const QCommandLineOption help({"h", "help"}, "Shows this text."), version({"v", "version"}, "Shows the version.");
  const QCommandLineOption screenshot(
      "screenshot", "Generates, saves a picture of the window, tells the times of its frames and exits.", "OUT.png");
  const QCommandLineOption after("after-tokens", "Tokens to generate before the picture (64).", "N");
  const QCommandLineOption trace("trace", "Records every routing decision to this file.", "OUT.moetrace.h5");
  const QCommandLineOption prompt("prompt-file", "The prompt, byte for byte.", "FILE");
  const QCommandLineOption workspace("workspace", "Opens a saved workspace.", "FILE");
  const QCommandLineOption theme("theme", "dark or light.", "NAME");
  const QCommandLineOption backend("backend", "auto, cpu or reference.", "NAME");
  const QCommandLineOption threads("threads", "Worker threads (cores - 1).", "N");
  const QCommandLineOption size("size", "Size of the window, 1600x900.", "WxH");
  const QCommandLineOption safe("safe-mode", "Starts without recovery, saved layout, recent files and plugins.");
  const QCommandLineOption plugin_path("plugin-path", "A further folder of plugins.", "FOLDER");
  const QCommandLineOption trust("trust-plugin", "Trusts a plugin's library by its hash for this run.", "sha256:HASH");
  const QCommandLineOption reset("reset-layout", "Forgets the saved layout.");
  parser.addOptions(
      {help, version, screenshot, after, trace, prompt, workspace, theme, backend, threads, size, safe, reset, plugin_path, trust});
  const auto refuse = [&](const QString& text) {
    say("switchyard-gui: " + text + "\nTry --help.", stderr);
    exit_code = 2;
    return std::nullopt;
  };
  if (!parser.parse(arguments)) return refuse(parser.errorText());
  if (parser.isSet(help) || parser.isSet(version)) {
    say(parser.isSet(help) ? parser.helpText() : QString::fromStdString(version_text()), stdout);
    exit_code = 0;
    return std::nullopt;
  }
  WindowOptions out;
  if (parser.positionalArguments().size() > 1) return refuse("more than one model or trace was named.");
  if (!parser.positionalArguments().isEmpty()) out.target = parser.positionalArguments().first();
  out.screenshot = parser.value(screenshot);
  out.trace = parser.value(trace);
  out.prompt_file = parser.value(prompt);
  out.workspace = parser.value(workspace);
  out.theme = parser.value(theme);
  out.size = parser.value(size);
  out.safe_mode = parser.isSet(safe);
  out.reset_layout = parser.isSet(reset);
  out.plugin_path = parser.values(plugin_path);
  out.trust_plugin = parser.values(trust);
  if (parser.isSet(backend)) out.backend = parser.value(backend);
  if (!out.theme.isEmpty() && out.theme != "dark" && out.theme != "light") return refuse("--theme is dark or light.");
  if (!out.size.isEmpty() && !QRegularExpression("^[0-9]{2,5}x[0-9]{2,5}$").match(out.size).hasMatch())
    return refuse("--size is WIDTHxHEIGHT, as in 1280x720.");
  bool ok = true;
  if (parser.isSet(after)) out.after_tokens = parser.value(after).toULongLong(&ok);
  if (!ok || (parser.isSet(after) && out.after_tokens < 1)) return refuse("--after-tokens is a whole number from 1.");
  if (parser.isSet(threads)) out.threads = parser.value(threads).toInt(&ok);
  if (!ok || out.threads < 0) return refuse("--threads is a whole number from 0.");
  return out;
}

}  // namespace switchyard
