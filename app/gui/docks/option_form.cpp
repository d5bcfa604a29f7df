// Fields by kind of option. GUI thread.
#include "app/gui/docks/option_form.h"

#include <algorithm>

#include <QCheckBox>
#include <QComboBox>
#include <QFileDialog>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLineEdit>
#include <QToolButton>

#include "engine/base/number_list.h"

namespace switchyard {
namespace {

// The text of a line, of a choice; of a switch "" while it is off.
QString text_of(const QWidget* field) {
  if (const auto* box = qobject_cast<const QCheckBox*>(field)) return box->isChecked() ? "on" : "";
  if (const auto* choice = qobject_cast<const QComboBox*>(field)) {
    const bool entry = choice->isEditable() && choice->findText(choice->currentText(), Qt::MatchExactly) > 0;
    return entry ? QString() : choice->currentText().trimmed();
  }
  return qobject_cast<const QLineEdit*>(field)->text().trimmed();
}

bool is_off(const QWidget* field) {
  const auto* box = qobject_cast<const QCheckBox*>(field);
  return box && !box->isChecked();
}

QComboBox* narrow_choice() {
  auto* choice = new QComboBox;
  choice->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  choice->setMinimumContentsLength(5);
  return choice;
}

}  // namespace

OptionForm::OptionForm(QWidget* parent) : QWidget(parent), form_(new QFormLayout(this)) {
  form_->setContentsMargins(0, 4, 0, 4);
  form_->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  form_->setRowWrapPolicy(QFormLayout::WrapLongRows);  // narrow panels cut no field
}

void OptionForm::clear() {
  while (form_->rowCount() > 0) form_->removeRow(0);
  fields_.clear();
  study_ = nullptr;
  layers_ = domain_ = nullptr;
  phase_ = nullptr;
}

void OptionForm::add(const QString& name, const QString& help, QWidget* field, QWidget* row) {
  field->setToolTip(help);
  field->setAccessibleName(name);
  field->setObjectName("analysis.option." + name);
  if (qobject_cast<QCheckBox*>(field)) form_->addRow(field);
  else form_->addRow(name, row ? row : field);
  fields_.emplace_back(name, field);
}

QLineEdit* OptionForm::line(const QString& text) {
  auto* edit = new QLineEdit(text);
  connect(edit, &QLineEdit::returnPressed, this, &OptionForm::submitted);
  return edit;
}

void OptionForm::show_analysis(const AnalysisInfo& info) {
  clear();
  for (const AnalysisOption& option : switchyard::analysis_options()) {
    if (std::none_of(info.options.begin(), info.options.end(), [&](const char* one) { return std::string_view(one) == option.name; })) continue;
    const QString name = QString::fromUtf8(option.name), help = QString::fromUtf8(option.help);
    add(name, help, option.standard ? static_cast<QWidget*>(line(QString::fromUtf8(option.standard))) : new QCheckBox(name));
  }
  layers_ = line({});
  layers_->setObjectName("analysis.layers");
  layers_->setPlaceholderText(tr("all; or 3, 2-5, 1,4-6"));
  domain_ = line({});
  domain_->setObjectName("analysis.domain");
  domain_->setPlaceholderText(tr("all"));
  phase_ = narrow_choice();
  phase_->setObjectName("analysis.phase");
  phase_->addItems({tr("all tokens"), tr("prefill"), tr("decode")});
  form_->addRow(tr("layers"), layers_);
  form_->addRow(tr("domain"), domain_);
  form_->addRow(tr("phase"), phase_);
}

void OptionForm::show_study(const StudyInfo& info) {
  clear();
  study_ = &info;
  for (const StudyOption& option : info.options) {
    if (option.in_place_of_trace) continue;
    const QString name = QString::fromUtf8(option.name), help = QString::fromUtf8(option.help);
    switch (option.kind) {
      case OptionKind::kSwitch:
        add(name, help, new QCheckBox(name));
        break;
      case OptionKind::kChoice: {
        auto* choice = narrow_choice();
        for (const char* one : option.choices) choice->addItem(QString::fromUtf8(one));
        choice->setCurrentText(QString::fromUtf8(option.standard));
        add(name, help, choice);
        break;
      }
      case OptionKind::kFile: {
        QWidget* row = file(option);
        add(name, help, row->findChild<QComboBox*>(), row);
        break;
      }
      default: {
        auto* edit = line(QString::fromUtf8(*option.standard ? option.standard : option.suggested));
        edit->setCursorPosition(0);
        add(name, help, edit);
      }
    }
  }
}

// A path, or an entry that was offered, and a button that asks for a file.
QWidget* OptionForm::file(const StudyOption& option) {
  auto* row = new QWidget;
  auto* side = new QHBoxLayout(row);
  side->setContentsMargins(0, 0, 0, 0);
  auto* path = narrow_choice();
  path->setEditable(true);
  path->setInsertPolicy(QComboBox::NoInsert);
  path->addItem({});
  path->lineEdit()->setPlaceholderText(tr("none"));
  connect(path->lineEdit(), &QLineEdit::returnPressed, this, &OptionForm::submitted);
  auto* ask = new QToolButton;
  ask->setText("…");
  ask->setToolTip(tr("Choose a file"));
  ask->setAccessibleName(tr("Choose a file for %1").arg(QString::fromUtf8(option.name)));
  connect(ask, &QToolButton::clicked, this, [this, path] {
    const QString chosen = QFileDialog::getOpenFileName(this, tr("Choose a file"));
    if (!chosen.isEmpty()) path->setEditText(chosen);
  });
  side->addWidget(path, 1);
  side->addWidget(ask);
  return row;
}

QWidget* OptionForm::field(const QString& option) const {
  for (const auto& [name, field] : fields_)
    if (name == option) return field;
  return nullptr;
}

Result<std::pair<AnalysisOptions, WalkFilter>> OptionForm::analysis_options() const {
  AnalysisOptions out;
  WalkFilter filter;
  for (const auto& [name, field] : fields_)
    if (!is_off(field)) SY_CHECK(set_option(out, name.toStdString(), text_of(field).toStdString()));
  if (!layers_) return std::pair{out, filter};
  SY_TRY(filter.layers, number_list(layers_->text().trimmed().toStdString(), "layers"));
  filter.domain = domain_->text().trimmed().toStdString();
  if (phase_->currentIndex() > 0) filter.phase = uint8_t(phase_->currentIndex() - 1);
  return std::pair{out, filter};
}

Result<StudyOptions> OptionForm::study_options() const {
  if (!study_) return fail(ErrorCode::kInternal, "the form shows no study.");
  StudyOptions out(study_->options);
  for (const auto& [name, field] : fields_)
    if (!is_off(field)) SY_CHECK(out.set(name.toStdString(), text_of(field).toStdString()));
  SY_CHECK(out.complete());
  if (study_->check != nullptr) SY_CHECK(study_->check(out));
  return out;
}

std::map<std::string, std::string> OptionForm::given() const {
  std::map<std::string, std::string> out;
  for (const auto& [name, field] : fields_) {
    if (is_off(field)) continue;
    const std::string key = name.toStdString(), value = text_of(field).toStdString();
    std::string standard;
    if (study_) {
      for (const StudyOption& option : study_->options)
        if (key == option.name) standard = option.standard;
    } else {
      for (const AnalysisOption& option : switchyard::analysis_options())
        if (key == option.name && option.standard) standard = option.standard;
    }
    if (qobject_cast<QCheckBox*>(field) || value != standard) out[key] = value;
  }
  return out;
}

bool OptionForm::is_filtered() const {
  return layers_ && (!layers_->text().trimmed().isEmpty() || !domain_->text().trimmed().isEmpty() || phase_->currentIndex() > 0);
}

void OptionForm::set(const QString& option, const QString& text) {
  QWidget* at = field(option);
  if (auto* box = qobject_cast<QCheckBox*>(at)) box->setChecked(!text.isEmpty());
  if (auto* edit = qobject_cast<QLineEdit*>(at)) {
    edit->setText(text);
    edit->setCursorPosition(0);
  }
  if (auto* choice = qobject_cast<QComboBox*>(at)) {
    choice->setCurrentText(text);
    if (choice->lineEdit()) choice->lineEdit()->setCursorPosition(0);
  }
}

void OptionForm::offer(const QString& option, const QString& entry) {
  auto* choice = qobject_cast<QComboBox*>(field(option));
  if (choice && choice->findText(entry, Qt::MatchExactly) < 0) choice->addItem(entry);
}

bool OptionForm::chosen(const QString& option, const QString& entry) const {
  const auto* choice = qobject_cast<QComboBox*>(field(option));
  return choice && choice->currentText() == entry;
}

}  // namespace switchyard
