#include "app/gui/plugin_actions.h"

#include "app/gui/behaviors/report_building.h"
#include "app/gui/dock.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/plugin_panel.h"
#include "app/gui/docks/report_panel.h"
#include "app/gui/main_window.h"
#include "app/gui/style.h"
#include "app/gui/workbench.h"
#include "engine/plugin_host/host.h"

namespace switchyard {
namespace {

QString text(std::string_view words) {
  return QString::fromUtf8(words.data(), qsizetype(words.size()));
}
QString tr(const char* words) {
  return QObject::tr(words);
}

// "What it does." of a contribution, as one sentence.
QString sentence(const Contribution& one, const Plugin& plugin) {
  QString what = text(one.description.empty() ? one.title : one.description);
  if (what.endsWith('.')) what.chop(1);
  return tr("%1 (plugin %2).").arg(what, text(plugin.id()));
}

// Edits first, as one step, then the actions.
void run_command(MainWindow& window, const Contribution& command) {
  if (!command.edits.empty()) {
    const ModelPlan* plan = window.model().data().plan;
    if (!plan) return;
    auto script = parse_script(nlohmann::json{{"schema", 1}, {"edits", command.edits}}.dump(), *plan);
    if (!script) return window.log().add(script.error());
    if (!window.model().edit(std::move(*script), "plugin")) return;
  }
  for (const std::string& id : command.actions) {
    if (!window.actions().row(text(id))) {
      window.log().add(Error{ErrorCode::kPlugin,
                             "the command " + command.id + " names the action " + id + ", which is not there.",
                             {},
                             {}});
      return;
    }
    window.actions().run(text(id));
  }
}

void use_theme(MainWindow& window, const Plugin& plugin, const Contribution& theme) {
  const auto loaded = load_theme((plugin.folder() / theme.file).string());
  if (!loaded) return window.log().add(loaded.error());
  window.use_theme(*loaded);
}

}  // namespace

std::vector<ActionRow> plugin_action_rows(MainWindow& w) {
  PluginHost& host = PluginHost::instance();
  std::vector<ActionRow> rows;
  rows.push_back({"plugins.panel", tr("Plugins…"), "Plugins", "",
                  tr("Shows what is found, what it adds and whether it may run."), [&w] { w.show_dock("plugins"); }});
  rows.push_back({"plugins.trust", tr("Trust the chosen plugin…"), "Plugins", "",
                  tr("Shows its hash and asks whether its native code may run."),
                  [&w] {
                    w.show_dock("plugins");
                    w.plugins().ask_to_trust();
                  },
                  [&w, &host] {
                    const auto plugin = host.find(w.plugins().selected().toStdString());
                    if (!plugin) return tr("no plugin is chosen");
                    return plugin->status().state == PluginState::kUntrusted
                               ? QString()
                               : tr("it is %1").arg(text(name(plugin->status().state)));
                  }});
  const auto no_model = [&w] { return w.model().has_session() ? QString() : tr("open a model first"); };
  for (const auto& [plugin, one] : host.contributions(PluginKind::kView)) {
    const QString id = text(one->id);
    rows.push_back({"view.dock." + id, text(one->title), "Plugins", "", sentence(*one, *plugin),
                    [&w, id] { w.toggle_dock(id); },
                    [&w] { return w.model().is_empty() ? tr("open a model or a trace first") : QString(); },
                    [&w, id] { return w.workbench().dock(id) && !w.workbench().dock(id)->isHidden(); }});
  }
  for (const auto& [plugin, one] : host.contributions(PluginKind::kCommand))
    rows.push_back({text(one->id), text(one->title), "Plugins", "", sentence(*one, *plugin),
                    [&w, command = one] { run_command(w, *command); },
                    [no_model, command = one] { return command->edits.empty() ? QString() : no_model(); }});
  for (const auto& [plugin, one] : host.contributions(PluginKind::kMetric)) {
    const QString id = text(one->id);
    rows.push_back({"analysis." + id, tr("Analysis: %1").arg(text(one->title)), "Plugins", "", sentence(*one, *plugin),
                    [&w, id] {
                      w.show_dock("analysis");
                      w.analysis().choose(id);
                    },
                    [plugin = plugin] { return QString::fromStdString(plugin->why_not()); }});
  }
  for (const PluginKind kind : {PluginKind::kReport, PluginKind::kSection})
    for (const auto& [plugin, one] : host.contributions(kind))
      rows.push_back({"report." + text(one->id), tr("Add to the report: %1").arg(text(one->title)), "Plugins", "",
                      sentence(*one, *plugin),
                      [&w, source = one->id] {
                        w.show_dock("report");
                        ReportItem item;
                        item.source = source;
                        report_of(w).panel().add(std::move(item));
                      },
                      [plugin = plugin] { return QString::fromStdString(plugin->why_not()); }});
  for (const auto& [plugin, one] : host.contributions(PluginKind::kTheme))
    rows.push_back({text(one->id), tr("Theme: %1").arg(text(one->title)), "Plugins", "", sentence(*one, *plugin),
                    [&w, plugin = plugin, theme = one] { use_theme(w, *plugin, *theme); }});
  return rows;
}

}  // namespace switchyard
