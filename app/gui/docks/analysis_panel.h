// Analyses of the trace that is shown, or of the recording that goes on: choose one, set its options, see its picture and
// its tables, and act on what they name. GUI thread; the work is a job.
#pragma once

#include <functional>
#include <optional>

#include <QWidget>

#include "app/session/jobs.h"
#include "app/session/trace_analysis.h"

class QCheckBox;
class QComboBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QPushButton;

namespace switchyard {

class ResultPicture;
class RunModel;
class TablePanel;
class TableTwin;

class AnalysisPanel : public QWidget {
  Q_OBJECT
 public:
  AnalysisPanel(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  // The trace that an analysis would read: the one shown, else that of the recording; empty: none.
  std::filesystem::path subject() const;
  void choose(const QString& analysis);
  void run();
  const std::optional<TraceAnalysis>& result() const { return result_; }
  ResultPicture& picture() const { return *picture_; }
  TablePanel& table() const { return *table_; }

 Q_SIGNALS:
  void failed(const switchyard::Error& error);
  void finished();

 private:
  void refresh();           // what can be done now
  void build_options();     // of the chosen analysis
  Result<std::pair<AnalysisOptions, WalkFilter>> options() const;
  void show_table(int index);
  void save_tables();
  std::vector<std::pair<int, int>> experts_of_selection() const;  // (model layer, expert) that chosen rows name
  void mute_selected();

  RunModel& model_;
  Jobs& jobs_;
  Jobs::Id running_ = 0;
  std::optional<TraceAnalysis> result_;
  QLabel *subject_, *about_;
  QComboBox *choice_, *tables_, *quantity_;
  QFormLayout* form_;
  QLineEdit *layers_ = nullptr, *domain_ = nullptr;
  QComboBox* phase_ = nullptr;
  std::vector<std::pair<QString, QWidget*>> fields_;  // of the chosen analysis, by option name
  QPushButton *run_, *cancel_, *mute_, *save_;
  ResultPicture* picture_;
  TableTwin* twin_;
  TablePanel* table_;
};

}  // namespace switchyard
