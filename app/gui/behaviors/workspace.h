// A workspace file (*.switchyard.json): model, prompt, sampling, edits, selection, view settings and layout. Data
// stays apart. Strict JSON, written whole or not at all, by a job. GUI thread.
#pragma once

#include <filesystem>

#include <QByteArray>
#include <QString>

#include "engine/base/result.h"
#include "engine/runtime/sampler.h"
#include "views/view.h"

namespace switchyard {

class MainWindow;

struct Workspace {
  struct Setting {
    std::string view, id;
    int value = 0;
  };
  std::string model, backend = "auto", prompt, theme;
  Sampling sampling;
  uint64_t max_new_tokens = 256;
  int moe_layer = 0;
  bool chat = false;        // the prompt goes through the model's chat template
  std::string script_json;  // edits in force; empty: none
  std::vector<Setting> settings;
  std::string report_json;  // what the report is made of (engine/report/request.h); empty: nothing
  QByteArray layout;
};

std::string workspace_json(const Workspace& workspace);
Result<Workspace> parse_workspace(std::string_view text, std::string_view document);

Workspace workspace_of(MainWindow& window);
void save_workspace(MainWindow& window, const std::filesystem::path& file);
// Puts everything back; the edits are sent when the model is open.
void open_workspace(MainWindow& window, const std::filesystem::path& file);

}  // namespace switchyard
