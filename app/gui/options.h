// The command line of the window. `switchyard open` passes the same words on.
#pragma once

#include <cstdint>
#include <optional>

#include <QString>
#include <QStringList>

namespace switchyard {

struct WindowOptions {
  QString target;              // model, trace or workspace; empty: the start page
  QString screenshot;          // draw, save here, exit
  uint64_t after_tokens = 64;  // tokens to generate before the screenshot
  QString trace;               // record to this file from the first token on
  QString prompt_file;
  QString workspace;
  QString theme;  // "dark", "light"; empty: as last time
  QString backend = "auto";
  int threads = 0;         // 0: cores - 1
  QString size;            // "1280x720"
  bool safe_mode = false;  // no recovery, no restored layout, no recent files
  bool reset_layout = false;
  QStringList plugin_path, trust_plugin;  // further folders; hashes that are trusted for this run
};

// nullopt: told the user on stderr; `exit_code` says how to end (0 after --help).
std::optional<WindowOptions> parse_options(const QStringList& arguments, int& exit_code);

}  // namespace switchyard
