// The Report panel in the window: what is added to it, exported, and kept in workspaces. Created once by the window,
// found through report_of(). GUI thread.
#pragma once

#include <QObject>
#include <QPointer>
#include <QString>

#include "engine/base/result.h"

namespace switchyard {

class AnalysisPanel;
class Dock;
class MainWindow;
class ReportPanel;

class ReportBuilding : public QObject {
  Q_OBJECT
 public:
  // Adds the dock; the window's other panels are there already.
  ReportBuilding(MainWindow& window, AnalysisPanel& analysis);

  ReportPanel& panel() const { return *panel_; }
  // The panel in focus, else the last one that had numbers, as a section with its present settings.
  void add_focused();
  void ask_to_export_focused();

 private:
  void add(Dock& dock);

  MainWindow& window_;
  AnalysisPanel& analysis_;
  ReportPanel* panel_;
  QPointer<Dock> pictured_;  // the last panel with numbers that had the keyboard
};
ReportBuilding& report_of(MainWindow& window);

// By the suffix: .svg, .pdf, .png (300 dpi), or the numbers as .csv or .json. kUsage: it has no chart, or another
// suffix.
Result<void> export_picture(const Dock& dock, const QString& file);

}  // namespace switchyard
