// The part of the Scheme dock that attaches adapters: files, modules, router and its numbers, and what the routers
// decide, live. Every change is one edit. GUI thread.
#pragma once

#include <functional>
#include <vector>

#include <QWidget>

#include "engine/model/linears.h"
#include "engine/routing/adapters.h"

class QComboBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QPushButton;

namespace switchyard {

class Jobs;
class RunModel;

class AdapterSection : public QWidget {
  Q_OBJECT
 public:
  AdapterSection(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  void set_all_layers(bool on) { all_layers_ = on; }  // attach to all, or to the selected layer
  void set_files(const std::vector<std::string>& files);
  void set_modules(const std::vector<std::string>& modules);
  void choose_router(const QString& name);  // with its standard parameters
  void set_parameter(const QString& name, const AdapterValue& value);
  void attach();  // reads the files in a job, then sends the edit
  void take_away();
  bool attached() const { return attached_; }  // in the selected layer
  QString message() const;                     // what keeps the choice from being in force; empty: nothing
  QString decisions() const;  // "q_proj: chemistry 0.62 · physics 0.38", a line for each linear of the layer

 private:
  struct Field {
    const AdapterParameter* parameter;
    std::function<void(const AdapterValue&)> show;
  };
  void refresh();
  void show_decisions();
  void build_fields();
  void add_row(const AdapterParameter& parameter, QWidget* editor, std::function<void(const AdapterValue&)> show);
  AdapterValue value_of(const AdapterParameter& parameter) const;
  std::vector<int> layers() const;

  RunModel& model_;
  Jobs& jobs_;
  bool all_layers_ = false, attached_ = false;
  AdapterChoice choice_;              // shown
  std::vector<std::string> modules_;  // empty: all that the files have
  AdapterChoice in_force_;            // as last seen in the selected layer; no files: none
  QLineEdit *files_, *modules_edit_;
  QComboBox* router_;
  QPushButton *attach_, *remove_;
  QLabel *facts_, *message_, *decisions_;
  QFormLayout* rows_;
  std::vector<Field> fields_;
  std::vector<Linear> linears_;  // of the plan
  const void* linears_for_ = nullptr;
};

}  // namespace switchyard
