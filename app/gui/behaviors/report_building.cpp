// See report_building.h.
#include "app/gui/behaviors/report_building.h"

#include <QApplication>
#include <QFileDialog>
#include <QFileInfo>

#include "app/gui/dock_copy.h"
#include "app/gui/docks/analysis_panel.h"
#include "app/gui/docks/generation_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/docks/report_panel.h"
#include "app/gui/main_window.h"
#include "app/gui/workbench.h"
#include "engine/base/atomic_file.h"
#include "engine/report/report_files.h"
#include "engine/report/table_text.h"

namespace switchyard {

ReportBuilding::ReportBuilding(MainWindow& window, AnalysisPanel& analysis)
    : QObject(&window), window_(window), analysis_(analysis) {
  panel_ = new ReportPanel(window.jobs(), [&analysis] { return analysis.subject(); });
  auto* dock = new Dock("report", tr("Report"), &window.workbench());
  dock->set_body(panel_);
  dock->set_help("reports");
  window.workbench().add(dock);
  for (Dock* other : window.workbench().docks())
    if (other->has_table()) add_copy_button(*other);
  connect(panel_, &ReportPanel::failed, this, [this](const Error& error) { window_.log().add(error); });
  connect(panel_, &ReportPanel::exported, this,
          [this](const QString& file) { window_.log().add(LogEntry::kNote, tr("Exported %1").arg(file)); });
  connect(panel_, &ReportPanel::view_asked, this, &ReportBuilding::add_focused);
  connect(&window, &MainWindow::theme_changed, panel_, &ReportPanel::show_again);
  connect(&analysis, &AnalysisPanel::report_asked, this, [this] { add(*window_.workbench().dock("analysis")); });
  connect(qApp, &QApplication::focusChanged, this, [this](QWidget*, QWidget* now) {
    for (Dock* one : window_.workbench().docks())
      if (now && one->isAncestorOf(now) && (one->has_table() || one->objectName() == "analysis")) pictured_ = one;
  });
}

ReportBuilding& report_of(MainWindow& window) {
  return *window.findChild<ReportBuilding*>();
}

void ReportBuilding::add_focused() {
  if (!pictured_)
    return window_.log().add(LogEntry::kNote, tr("Click into a picture first: it is what is added to the report."));
  add(*pictured_);
}

void ReportBuilding::add(Dock& dock) {
  if (dock.objectName() == "analysis") {
    auto item = analysis_.report_item();
    if (!item)
      return window_.log().add(LogEntry::kNote,
                               tr("Run an analysis first: its result is what is added to the report."));
    window_.show_dock("report");
    return panel_->add(std::move(*item));
  }
  Copyable shown = copyable_of(dock);
  ReportItem item;
  item.source = "view";
  item.heading = dock.windowTitle().toStdString();
  QStringList facts;
  if (!dock.subtitle().isEmpty()) facts << dock.subtitle();
  if (const auto* live = qobject_cast<LiveDock*>(&dock))
    for (const ViewSetting& setting : live->view().settings()) {
      const QString title = QString::fromStdString(setting.title),
                    option = QString::fromStdString(setting.options[size_t(setting.value)]);
      facts << (option.startsWith(title, Qt::CaseInsensitive) ? option : title + ": " + option);
    }
  RunModel& model = window_.model();
  if (model.has_session())
    facts << tr("model %1, %2 tokens, seed %3")
                 .arg(model.opened().model)
                 .arg(model.data().tokens())
                 .arg(window_.generation().sampling().seed);
  item.note = markdown_text(facts.join(" · ").toStdString());
  if (!shown.chart.empty())
    item.chart = std::move(shown.chart);
  else
    item.table = std::move(shown.table);
  window_.show_dock("report");
  panel_->add(std::move(item));
}

void ReportBuilding::ask_to_export_focused() {
  const Dock* dock = window_.workbench().focused();
  if (dock == nullptr || !dock->has_table()) return;
  const QString file =
      QFileDialog::getSaveFileName(&window_, tr("Export the picture"), dock->objectName() + ".svg",
                                   tr("Vector picture (*.svg *.pdf);;Picture (*.png);;Numbers (*.csv *.json)"));
  if (file.isEmpty()) return;
  if (const auto done = export_picture(*dock, file); !done) window_.log().add(done.error());
}

Result<void> export_picture(const Dock& dock, const QString& file) {
  const Copyable shown = copyable_of(dock);
  const std::string suffix = QFileInfo(file).suffix().toLower().toStdString(), path = file.toStdString();
  if (suffix == "csv") return write_file(path, csv_of(shown.table), Overwrite::kAllow);
  if (suffix == "json") return write_file(path, json_of(shown.table), Overwrite::kAllow);
  if (shown.chart.empty())
    return fail(ErrorCode::kUsage, "has no chart to export.", dock.windowTitle().toStdString(),
                "Export its numbers as .csv or .json.");
  SY_TRY(const std::string bytes, bytes_of(shown.chart, suffix, kTwoColumns, print_colors(), 300.0 / 72));
  return write_file(path, bytes, Overwrite::kAllow);
}

}  // namespace switchyard
