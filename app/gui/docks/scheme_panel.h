// The Scheme dock: which gating scheme routes the selected layer, or all of them, with its parameters and a live
// histogram of active experts, and the path through the layers. Every change is one edit. GUI thread.
#pragma once

#include <functional>
#include <vector>

#include <QWidget>

#include "engine/routing/scheme.h"

class QComboBox;
class QFormLayout;
class QLabel;
class QPushButton;
class QScrollArea;
class QToolButton;

namespace switchyard {

class ActiveExpertsPlot;
class AdapterSection;
class Jobs;
class PathBudget;
class PathStrip;
class RunModel;

class SchemePanel : public QWidget {
  Q_OBJECT
 public:
  SchemePanel(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  bool all_layers() const { return all_layers_; }
  void set_all_layers(bool on);
  void choices_changed();  // what can be chosen is asked anew
  // The scheme shown: in force in the selected layer, or chosen and still waiting for what it needs.
  const SchemeChoice& shown() const { return draft_; }
  void choose(const QString& name);  // with its standard parameters; "native" is the model's own router
  void set_parameter(const QString& name, const SchemeValue& value);
  // Why a scheme cannot be chosen now; empty: it can.
  QString why_not(const QString& name) const;
  QString message() const;  // what keeps the shown choice from being in force; empty: nothing
  const ActiveExpertsPlot& plot() const { return *plot_; }
  AdapterSection& adapters() { return *adapters_; }
  PathStrip& path() { return *path_; }
  PathBudget& budget() { return *budget_; }

 Q_SIGNALS:
  void scheme_shown(const QString& name);  // another one than before

 private:
  // One row of the form; `show` puts a value into it without sending anything.
  struct Field {
    const SchemeParameter* parameter;
    std::function<void(const SchemeValue&)> show;
  };
  void refresh();
  void refresh_choices();  // greys what cannot be chosen
  void show_choice(const SchemeChoice& choice);
  void build_fields(const SchemeInfo* scheme);
  void add_number(const SchemeParameter& parameter);
  void add_switch(const SchemeParameter& parameter);
  void add_options(const SchemeParameter& parameter);
  void add_words(const SchemeParameter& parameter);
  void add_row(const SchemeParameter& parameter, QWidget* editor, std::function<void(const SchemeValue&)> show);
  void apply();
  void put_in_force(Result<Scheme> scheme);
  int row() const;

  RunModel& model_;
  Jobs& jobs_;
  bool all_layers_ = false;
  SchemeChoice draft_{"native", {}};
  SchemeChoice in_force_{"native", {}};  // as last seen in the selected row
  int experts_ = 0;                      // of the router that the fields were built for
  std::vector<QString> reasons_;         // of each scheme
  const void* reasons_for_ = nullptr;    // the plan they were made for
  int reasons_row_ = -1;
  bool reasons_all_ = false;

  QComboBox *scheme_, *scope_;
  QPushButton* native_;
  QLabel *facts_, *formula_, *message_, *hint_;
  QScrollArea* scroll_;
  QWidget* form_ = nullptr;
  QFormLayout* rows_ = nullptr;
  std::vector<Field> fields_;
  ActiveExpertsPlot* plot_;
  AdapterSection* adapters_;
  PathStrip* path_;
  PathBudget* budget_;
};

}  // namespace switchyard
