// Analyses, simulations and placements of the trace that is shown, or of the recording that goes on: choose one, set its
// options, see its picture and its tables, and act on what they name. GUI thread; the work is a job.
#pragma once

#include <memory>
#include <optional>

#include <QWidget>

#include "app/session/jobs.h"
#include "app/session/trace_analysis.h"
#include "engine/report/request.h"

class QComboBox;
class QLabel;
class QPushButton;
class QStackedWidget;

namespace switchyard {

class ElidedLabel;
class OptionForm;
class PlacementPicture;
class ResultPicture;
class RunModel;
struct Copyable;
class TablePanel;
class TableTwin;

class AnalysisPanel : public QWidget {
  Q_OBJECT
 public:
  AnalysisPanel(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  // The trace that an analysis would read: the one shown, else that of the recording; empty: none.
  std::filesystem::path subject() const;
  void choose(const QString& name);  // "load", "simulate cache", "place affinity"
  void run();
  const std::optional<TraceAnalysis>& result() const { return result_; }
  ResultPicture& picture() const { return *picture_; }
  PlacementPicture& placement() const { return *placement_; }
  // By the suffix: the shown table as CSV, Markdown or LaTeX, or the whole result as JSON.
  Result<void> save_to(const QString& file) const;
  TablePanel& table() const { return *table_; }
  // What is shown, as an item of a report: run again from the trace, or, where tokens are filtered or a kept placement was
  // used, its numbers as they are. nullopt: nothing was run yet.
  std::optional<ReportItem> report_item() const;

 Q_SIGNALS:
  void failed(const switchyard::Error& error);
  void finished();
  void report_asked();  // "Add to the report"

 private:
  QWidget* build_left();
  QWidget* build_right();
  void add_choices();
  void refresh();         // what can be done now
  void refresh_choices(); // greyed with the reason
  void show_options();    // of what is chosen
  void take(Result<TraceAnalysis> result);
  void show_table(int index);
  void show_picture(const ResultTable& table);
  Copyable copyable() const;
  void ask_to_save(bool whole);
  void use_placement();
  std::vector<std::pair<int, int>> experts_of_selection() const;  // (model layer, expert) that chosen rows name
  void mute_selected();
  void mark_selected();           // the point of the one chosen row
  void select_point(size_t row);  // of the shown table: there, and layer and expert everywhere

  RunModel& model_;
  Jobs& jobs_;
  Jobs::Id running_ = 0;
  std::optional<TraceAnalysis> result_;
  std::map<std::string, std::string> given_;   // options of the result
  bool frozen_ = false;                        // the result cannot be asked for by options alone
  std::shared_ptr<const KeptPlacement> kept_;  // for the traffic study
  QLabel* about_;
  ElidedLabel *subject_, *notes_;
  QComboBox *choice_, *tables_, *quantity_;
  OptionForm* form_;
  QPushButton *run_, *cancel_, *mute_, *save_, *use_;
  QStackedWidget* pictures_;
  ResultPicture* picture_;
  PlacementPicture* placement_;
  TableTwin* twin_;
  TablePanel* table_;
};

}  // namespace switchyard
