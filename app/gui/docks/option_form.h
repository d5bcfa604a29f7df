// The options of an analysis or of a study as fields, made from their table. GUI thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <QWidget>

#include "engine/analysis/analysis.h"
#include "engine/studies/study.h"
#include "engine/trace/walk.h"

class QComboBox;
class QFormLayout;
class QLineEdit;

namespace switchyard {

class OptionForm : public QWidget {
  Q_OBJECT
 public:
  explicit OptionForm(QWidget* parent = nullptr);

  void show_analysis(const AnalysisInfo& info);  // and which tokens and layers
  void show_study(const StudyInfo& info);

  // What stands in the fields; a value that does not fit is an error that names the field.
  Result<std::pair<AnalysisOptions, WalkFilter>> analysis_options() const;
  Result<StudyOptions> study_options() const;

  // The options that differ from the standard, as the command line names them.
  std::map<std::string, std::string> given() const;
  bool is_filtered() const;  // layers, domain or phase are chosen

  void set(const QString& option, const QString& text);
  // An entry of a file field that stands for something in memory: chosen() while it does, and the option is then empty.
  void offer(const QString& option, const QString& entry);
  bool chosen(const QString& option, const QString& entry) const;

 Q_SIGNALS:
  void submitted();  // Enter in a field

 private:
  void clear();
  void add(const QString& name, const QString& help, QWidget* field, QWidget* row = nullptr);
  QLineEdit* line(const QString& text);
  QWidget* file(const StudyOption& option);
  QWidget* field(const QString& option) const;

  QFormLayout* form_;
  std::vector<std::pair<QString, QWidget*>> fields_;  // by option
  const StudyInfo* study_ = nullptr;
  QLineEdit *layers_ = nullptr, *domain_ = nullptr;
  QComboBox* phase_ = nullptr;
};

}  // namespace switchyard
