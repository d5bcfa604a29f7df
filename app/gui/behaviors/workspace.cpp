// Reading, writing and applying a workspace. GUI thread; files through jobs.
#include "app/gui/behaviors/workspace.h"

#include <fstream>
#include <iterator>

#include "app/gui/behaviors/report_building.h"
#include "app/gui/docks/generation_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/docks/report_panel.h"
#include "app/gui/main_window.h"
#include "app/gui/style.h"
#include "app/gui/workbench.h"
#include "app/session/edits_in_force.h"
#include "engine/base/json.h"

namespace switchyard {
namespace {

constexpr size_t kLargest = size_t(16) << 20;

Result<Workspace> read_workspace(const std::filesystem::path& file) {
  std::error_code problem;
  const auto size = std::filesystem::file_size(file, problem);
  if (problem)
    return fail(ErrorCode::kNotFound, "The workspace cannot be read: " + problem.message() + ".", file.string());
  if (size > kLargest) return fail(ErrorCode::kMalformed, "The workspace is larger than 16 MiB.", file.string());
  std::ifstream in(file, std::ios::binary);
  return parse_workspace(std::string((std::istreambuf_iterator<char>(in)), {}), file.string());
}

// Edits wait for the model they are for.
void send_when_open(MainWindow& window, const Workspace& w) {
  RunModel& model = window.model();
  auto* once = new QObject(&window);
  QObject::connect(&model, &RunModel::model_changed, once, [&window, &model, once, w] {
    if (model.opening()) return;
    QObject::disconnect(&model, nullptr, once, nullptr);
    once->deleteLater();
    if (!model.has_session()) return;
    window.generation().set_prompt(QString::fromStdString(w.prompt));
    window.generation().set_sampling(w.sampling);
    window.generation().set_max_new_tokens(w.max_new_tokens);
    model.select({w.moe_layer, std::nullopt, std::nullopt});
    if (w.script_json.empty()) return;
    const auto edits = parse_script(w.script_json, model.checkpoint()->plan);
    if (!edits) return window.log().add(edits.error());
    model.edit(*edits, "script");
  });
}

void apply(MainWindow& window, const Workspace& w) {
  if (!w.theme.empty()) window.set_theme(QString::fromStdString(w.theme));
  for (const Workspace::Setting& s : w.settings)
    if (LiveDock* dock = window.live_dock(QString::fromStdString(s.view)))
      dock->set_setting(QString::fromStdString(s.id), s.value);
  if (!w.report_json.empty())
    if (const auto json = parse_json(w.report_json, "workspace"))
      if (auto request = request_from_json(JsonView(*json, "workspace"))) report_of(window).panel().set_request(std::move(*request));
  if (!w.layout.isEmpty()) window.workbench().restore_layout(w.layout);
  window.generation().set_prompt(QString::fromStdString(w.prompt));
  window.generation().set_chat(w.chat);
  if (w.model.empty()) return;
  send_when_open(window, w);
  window.model().open_model({QString::fromStdString(w.model), w.backend, window.options().threads});
}

}  // namespace

std::string workspace_json(const Workspace& w) {
  Json settings = Json::array();
  for (const Workspace::Setting& s : w.settings)
    settings.push_back({{"view", s.view}, {"setting", s.id}, {"value", s.value}});
  Json out{{"schema", 1},
           {"model", w.model},
           {"backend", w.backend},
           {"prompt", w.prompt},
           {"chat", w.chat},
           {"max_new_tokens", w.max_new_tokens},
           {"sampling",
            {{"greedy", w.sampling.greedy},
             {"temperature", w.sampling.temperature},
             {"top_p", w.sampling.top_p},
             {"top_k", w.sampling.top_k},
             {"seed", w.sampling.seed}}},
           {"moe_layer", w.moe_layer},
           {"theme", w.theme},
           {"views", settings},
           {"layout", w.layout.toBase64().toStdString()}};
  if (!w.script_json.empty()) out["edits"] = Json::parse(w.script_json, nullptr, false);
  if (!w.report_json.empty()) out["report"] = Json::parse(w.report_json, nullptr, false);
  return out.dump(1, ' ', true, Json::error_handler_t::replace) + "\n";
}

Result<Workspace> parse_workspace(std::string_view text, std::string_view document) {
  SY_TRY(const Json json, parse_json(text, document));
  const JsonView view(json, std::string(document));
  SY_TRY(const int64_t schema, view.integer("schema", 1, 1));
  (void)schema;
  Workspace w;
  const auto words = [&](const char* key, std::string& out) -> Result<void> {
    if (!view.has(key)) return {};
    SY_TRY(const JsonView member, view.at(key));
    SY_TRY(out, member.as_text());
    return {};
  };
  std::string layout;
  for (const auto& [key, out] : std::initializer_list<std::pair<const char*, std::string*>>{{"model", &w.model},
                                                                                            {"backend", &w.backend},
                                                                                            {"prompt", &w.prompt},
                                                                                            {"theme", &w.theme},
                                                                                            {"layout", &layout}})
    SY_CHECK(words(key, *out));
  w.layout = QByteArray::fromBase64(QByteArray::fromStdString(layout));
  SY_TRY(w.chat, view.boolean_or("chat", false));
  SY_TRY(const int64_t tokens, view.integer_or("max_new_tokens", 256, 1, 1'000'000));
  SY_TRY(const int64_t row, view.integer_or("moe_layer", 0, 0, 65'535));
  w.max_new_tokens = uint64_t(tokens);
  w.moe_layer = int(row);
  if (view.has("sampling")) {
    SY_TRY(const JsonView s, view.at("sampling"));
    SY_TRY(const JsonView greedy, s.at("greedy"));
    SY_TRY(w.sampling.greedy, greedy.as_boolean());
    SY_TRY(const double temperature, s.number_or("temperature", 1.0));
    SY_TRY(const double top_p, s.number_or("top_p", 1.0));
    SY_TRY(const int64_t top_k, s.integer_or("top_k", 0, 0, 1'000'000));
    SY_TRY(const int64_t seed, s.integer_or("seed", 0, 0, std::numeric_limits<int64_t>::max()));
    if (!(temperature > 0) || !(top_p > 0) || top_p > 1)
      return fail(ErrorCode::kMalformed, "temperature must be above 0 and top_p in (0, 1].",
                  std::string(document) + ": /sampling");
    w.sampling.temperature = float(temperature);
    w.sampling.top_p = float(top_p);
    w.sampling.top_k = int(top_k);
    w.sampling.seed = uint64_t(seed);
  }
  if (view.has("views")) {
    SY_TRY(const JsonView list, view.at("views"));
    SY_TRY(const auto entries, list.as_array());
    for (const JsonView& entry : entries) {
      Workspace::Setting s;
      SY_TRY(const JsonView name, entry.at("view"));
      SY_TRY(const JsonView id, entry.at("setting"));
      SY_TRY(s.view, name.as_text());
      SY_TRY(s.id, id.as_text());
      SY_TRY(const int64_t value, entry.integer("value", 0, 1000));
      s.value = int(value);
      w.settings.push_back(std::move(s));
    }
  }
  if (view.has("edits")) {
    SY_TRY(const JsonView edits, view.at("edits"));
    w.script_json = edits.json().dump();
  }
  if (view.has("report")) {
    SY_TRY(const JsonView report, view.at("report"));
    SY_TRY(const ReportRequest request, request_from_json(report));  // refused here, before anything is applied
    w.report_json = to_json(request).dump();
  }
  return w;
}

Workspace workspace_of(MainWindow& window) {
  Workspace w;
  RunModel& model = window.model();
  if (model.has_session()) {
    w.model = model.opened().model.toStdString();
    w.backend = model.opened().backend;
  }
  w.prompt = window.generation().prompt().toStdString();
  w.chat = window.generation().chat();
  w.sampling = window.generation().sampling();
  w.max_new_tokens = window.generation().max_new_tokens();
  w.moe_layer = model.selection().moe_layer;
  w.theme = current_theme().dark ? "dark" : "light";
  if (model.snapshot() && model.has_session() && model.snapshot()->history_cursor > 0)
    w.script_json = to_json_script(script_of(*model.snapshot()));
  if (const ReportRequest& report = report_of(window).panel().request(); !report.items.empty()) w.report_json = to_json(report).dump(-1, ' ', false, Document::error_handler_t::replace);
  for (const LiveDock* dock : window.live_docks())
    for (const ViewSetting& setting : dock->view().settings())
      w.settings.push_back({dock->objectName().toStdString(), setting.id, setting.value});
  w.layout = window.workbench().layout();
  return w;
}

void save_workspace(MainWindow& window, const std::filesystem::path& file) {
  window.jobs().start(
      "", QObject::tr("Saving %1").arg(QString::fromStdString(file.filename().string())),
      [file, text = workspace_json(workspace_of(window))](Task&) { return write_file(file, text, Overwrite::kAllow); },
      [&window, file](Result<void> saved) {
        if (saved)
          window.log().add(LogEntry::kNote, QObject::tr("Saved %1").arg(QString::fromStdString(file.string())));
        else
          window.log().add(saved.error());
      });
}

void open_workspace(MainWindow& window, const std::filesystem::path& file) {
  window.jobs().start(
      "workspace", QObject::tr("Reading %1").arg(QString::fromStdString(file.filename().string())),
      [file](Task&) { return read_workspace(file); },
      [&window](Result<Workspace> workspace) {
        if (workspace)
          apply(window, *workspace);
        else
          window.log().add(workspace.error());
      });
}

}  // namespace switchyard
