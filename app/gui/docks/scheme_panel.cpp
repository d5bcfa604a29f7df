// Choosing a scheme and its numbers. GUI thread.
#include "app/gui/docks/scheme_panel.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QRegularExpression>
#include <QScrollArea>
#include <QSlider>
#include <QStandardItemModel>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/gui/active_experts_plot.h"
#include "app/gui/docks/adapter_section.h"
#include "app/gui/dock.h"
#include "app/gui/docks/path_budget.h"
#include "app/gui/docks/path_strip.h"
#include "app/gui/panel_parts.h"
#include "app/gui/style.h"
#include "app/gui/words.h"
#include "app/session/run_model.h"
#include "app/session/scheme_choices.h"
#include "engine/routing/scheme_file.h"

namespace switchyard {
namespace {

using Type = SchemeParameter::Type;

constexpr int kSliderSteps = 1000;
constexpr double kMostSliderValues = 4096;  // a seed has no use for a slider

// Where a number stands on its slider; ranges over more than two decades go by ratio.
struct Scale {
  double min, max;  // min < max
  bool by_ratio() const { return min > 0 && max / min > 100; }
  int position(double value) const {
    const double part = by_ratio() ? std::log(value / min) / std::log(max / min) : (value - min) / (max - min);
    return int(std::lround(std::clamp(part, 0.0, 1.0) * kSliderSteps));
  }
  double value(int position) const {
    const double part = double(position) / kSliderSteps;
    return by_ratio() ? min * std::pow(max / min, part) : min + part * (max - min);
  }
};

int decimals_of(const SchemeParameter& parameter) {
  if (parameter.type == Type::kInteger) return 0;
  return parameter.max - parameter.min <= 0.01 ? 6 : parameter.max - parameter.min <= 1 ? 4 : 2;
}

QString ids_text(const std::vector<int>& ids) {
  QStringList out;
  for (const int id : ids) out << QString::number(id);
  return out.join(", ");
}

// "3, 7 9"; nullopt where something else stands there.
std::optional<std::vector<int>> ids_of(const QString& text) {
  std::vector<int> out;
  for (const QString& word : text.split(QRegularExpression("[,\\s]+"), Qt::SkipEmptyParts)) {
    bool ok = false;
    out.push_back(word.toInt(&ok));
    if (!ok) return std::nullopt;
  }
  return out;
}

QString in_lines(const Error& error) {
  QString text = QString::fromStdString(error.where.empty() ? error.what : error.where + ": " + error.what);
  if (!error.hint.empty()) text += "\n" + QString::fromStdString(error.hint);
  return text;
}

}  // namespace

SchemePanel::SchemePanel(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), jobs_(jobs) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  column->setSpacing(6);

  scheme_ = new QComboBox;
  scheme_->setObjectName("scheme.choice");
  scheme_->setAccessibleName(tr("Gating scheme"));
  scheme_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
  for (const SchemeInfo& info : schemes())
    scheme_->addItem(QString::fromUtf8(info.title), QString::fromUtf8(info.name));
  scope_ = new QComboBox;
  scope_->setObjectName("scheme.scope");
  scope_->setAccessibleName(tr("Layers"));
  scope_->addItems({tr("this layer"), tr("all layers")});
  native_ = new QPushButton(tr("Native"));
  native_->setObjectName("scheme.native");
  native_->setToolTip(tr("The model's own router again, as one edit"));
  auto* line = new QHBoxLayout;
  line->addWidget(scope_);
  line->addStretch(1);
  line->addWidget(native_);
  column->addWidget(scheme_);
  column->addLayout(line);

  facts_ = text_label("muted");
  formula_ = text_label("muted");
  message_ = text_label("error");
  message_->setObjectName("scheme.message");
  hint_ = text_label("faint");
  auto* body = new QWidget;
  auto* stack = new QVBoxLayout(body);
  stack->setContentsMargins(0, 0, 4, 0);
  stack->setSpacing(6);
  form_ = new QWidget;
  rows_ = new QFormLayout(form_);
  rows_->setContentsMargins(0, 0, 0, 0);
  rows_->setHorizontalSpacing(10);
  rows_->setVerticalSpacing(5);
  rows_->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  stack->addWidget(facts_);
  stack->addWidget(formula_);
  stack->addWidget(message_);
  stack->addWidget(form_);
  stack->addWidget(hint_);
  adapters_ = new AdapterSection(model_, jobs_);
  stack->addWidget(adapters_);
  stack->addStretch(1);
  scroll_ = scrolled(body);
  column->addWidget(scroll_, 3);
  plot_ = new ActiveExpertsPlot(this);
  column->addWidget(plot_, 2);
  path_ = new PathStrip(model_);
  column->addWidget(path_);
  budget_ = new PathBudget(model_, jobs_);
  column->addWidget(budget_);

  connect(scheme_, &QComboBox::activated, this, [this](int index) { choose(scheme_->itemData(index).toString()); });
  connect(budget_, &PathBudget::read, this, [this](const Error* error) {
    message_->setText(error ? in_lines(*error) : QString());
    message_->setVisible(error != nullptr);
  });
  connect(scope_, &QComboBox::activated, this, [this](int index) { set_all_layers(index == 1); });
  connect(native_, &QPushButton::clicked, this, [this] { choose("native"); });
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed, &RunModel::selection_changed,
                            &RunModel::cursor_changed, &RunModel::history_changed})
    connect(&model_, signal, this, &SchemePanel::refresh);
  show_choice(draft_);
  refresh();
}

int SchemePanel::row() const {
  return model_.selection().moe_layer;
}

QString SchemePanel::message() const {
  return message_->text();
}

void SchemePanel::set_all_layers(bool on) {
  all_layers_ = on;
  adapters_->set_all_layers(on);
  scope_->setCurrentIndex(on ? 1 : 0);
  refresh();
}

void SchemePanel::choices_changed() {
  reasons_.clear();
  refresh();
}

QString SchemePanel::why_not(const QString& name) const {
  if (!model_.has_session()) return tr("open a model first");
  for (size_t i = 0; i < schemes().size() && i < reasons_.size(); ++i)
    if (name == QString::fromUtf8(schemes()[i].name)) return reasons_[i];
  return tr("there is no scheme of that name");
}

void SchemePanel::choose(const QString& name) {
  if (!why_not(name).isEmpty()) return;
  show_choice({name.toStdString(), {}});
  apply();
}

void SchemePanel::set_parameter(const QString& name, const SchemeValue& value) {
  draft_.parameters[name.toStdString()] = value;
  for (const Field& field : fields_)
    if (name == QString::fromUtf8(field.parameter->name)) field.show(value);
  apply();
}

void SchemePanel::apply() {
  if (!names_file(draft_)) return put_in_force(make_scheme(draft_));
  jobs_.start(
      "scheme", tr("Reading the file of the scheme"), [choice = draft_](Task&) { return make_scheme(choice); },
      [this, choice = draft_](Result<Scheme> scheme) {
        if (choice == draft_) put_in_force(std::move(scheme));
      });
}

void SchemePanel::put_in_force(Result<Scheme> scheme) {
  const ModelPlan* plan = model_.data().plan;
  if (!model_.has_session() || !plan) return;
  Result<EditCommand> edit = scheme ? scheme_edit(*scheme, *plan, row(), all_layers_) : tl::unexpected(scheme.error());
  message_->setText(edit ? QString() : in_lines(edit.error()));
  message_->setVisible(!edit);
  if (edit && model_.edit(std::move(*edit))) in_force_ = scheme_in_force(model_.recipe_ahead(), row());
  native_->setEnabled(draft_.name != "native");
}

void SchemePanel::refresh() {
  const RunData& data = model_.data();
  const bool ready = model_.has_session() && data.plan && !data.plan->moe_layers.empty();
  for (QWidget* widget : std::initializer_list<QWidget*>{scheme_, scope_, form_}) widget->setEnabled(ready);
  hint_->setText(model_.has_trace() ? tr("A trace shows what was recorded; schemes are chosen for a model that runs.")
                 : !ready           ? tr("Open a model to choose how it routes.")
                                    : QString());
  hint_->setVisible(!hint_->text().isEmpty());
  refresh_choices();
  const SchemeChoice now = scheme_in_force(ready ? model_.recipe_ahead() : nullptr, row());
  if (now != in_force_ || (ready && data.plan->routed(row()).router.experts != experts_)) show_choice(in_force_ = now);
  native_->setEnabled(ready && draft_.name != "native");
  scope_->setItemText(0, data.plan ? tr("layer %1").arg(model_.model_layer()) : tr("this layer"));
  if (!data.plan || data.plan->moe_layers.empty()) return plot_->show_counts({}, 0, true);
  if (!isVisible()) return;
  const LayerRecipe* recipe = nullptr;
  if (data.snapshot && data.tokens() > 0)
    if (const Recipe* shown = data.snapshot->recipe_at(data.shown_index(model_.cursor()))) recipe = shown->layer(row());
  plot_->show_counts(active_experts(data, row(), data.shown_index(model_.cursor()), uint64_t(data.window)),
                     data.plan->routed(row()).router.experts_per_token, !recipe || !recipe->scheme);
}

void SchemePanel::refresh_choices() {
  const ModelPlan* plan = model_.has_session() ? model_.data().plan : nullptr;
  if (plan == reasons_for_ && row() == reasons_row_ && all_layers_ == reasons_all_ && !reasons_.empty()) return;
  reasons_for_ = plan, reasons_row_ = row(), reasons_all_ = all_layers_;
  reasons_.assign(schemes().size(), QString());
  auto* items = qobject_cast<QStandardItemModel*>(scheme_->model());
  for (size_t i = 0; i < schemes().size(); ++i) {
    const SchemeInfo& info = schemes()[i];
    if (plan && !plan->moe_layers.empty())
      reasons_[i] = QString::fromStdString(switchyard::why_not(info, *plan, row(), all_layers_));
    QStandardItem* item = items->item(int(i));
    item->setEnabled(reasons_[i].isEmpty());
    item->setToolTip(reasons_[i].isEmpty() ? QString::fromStdString(properties_of(info)) : reasons_[i]);
  }
}

void SchemePanel::show_choice(const SchemeChoice& choice) {
  const int experts = model_.data().plan && !model_.data().plan->moe_layers.empty()
                          ? model_.data().plan->routed(row()).router.experts
                          : 0;
  const bool other = choice.name != draft_.name || experts != experts_ || facts_->text().isEmpty();
  experts_ = experts;
  draft_ = choice;
  message_->clear();
  message_->hide();
  const SchemeInfo* info = find_scheme(choice.name);
  scheme_->setCurrentIndex(scheme_->findData(QString::fromStdString(choice.name)));
  if (other) {
    facts_->setText(info ? QString::fromStdString(properties_of(*info)) + " · " + QString::fromUtf8(info->source)
                         : QString());
    formula_->setText(info ? QString::fromUtf8(info->formula) : QString());
    build_fields(info);
    Q_EMIT scheme_shown(QString::fromStdString(choice.name));
  }
  for (const Field& field : fields_) field.show(value_of(draft_, *field.parameter));
}

void SchemePanel::build_fields(const SchemeInfo* scheme) {
  fields_.clear();
  while (rows_->rowCount() > 0) rows_->removeRow(0);
  if (!scheme) return;
  for (const SchemeParameter& parameter : scheme->parameters) {
    switch (parameter.type) {
      case Type::kReal:
      case Type::kInteger:
        add_number(parameter);
        break;
      case Type::kBoolean:
        add_switch(parameter);
        break;
      case Type::kChoice:
        add_options(parameter);
        break;
      case Type::kExperts:
      case Type::kFile:
        add_words(parameter);
        break;
    }
  }
}

void SchemePanel::add_row(const SchemeParameter& parameter, QWidget* editor,
                          std::function<void(const SchemeValue&)> show) {
  const QString name = QString::fromUtf8(parameter.name), words = QString(name).replace('_', ' ');
  auto* label = new QLabel(words);
  label->setToolTip(QString::fromUtf8(parameter.meaning));
  editor->setToolTip(QString::fromUtf8(parameter.meaning));
  editor->setAccessibleName(words);
  editor->setObjectName("scheme." + name);
  label->setBuddy(editor);
  rows_->addRow(label, editor);
  fields_.push_back({&parameter, std::move(show)});
}

void SchemePanel::add_number(const SchemeParameter& parameter) {
  // Up to the last expert id there can be: as many as this router has.
  const double most =
      parameter.max >= kNoExpert - 1 && parameter.max <= kNoExpert ? std::max(1, experts_) : parameter.max;
  const double span = most - parameter.min;
  const Scale scale{parameter.min, most};
  const QString name = QString::fromUtf8(parameter.name);
  auto* number = new QDoubleSpinBox;
  number->setLocale(QLocale::c());
  number->setDecimals(decimals_of(parameter));
  number->setRange(parameter.min, most);
  number->setSingleStep(parameter.type == Type::kInteger ? 1 : std::min(0.05, span / 20));
  number->setKeyboardTracking(false);
  number->setFont(number_font());
  number->setFixedWidth(QFontMetrics(number_font()).horizontalAdvance("0000.0000") + 12);
  number->setObjectName("scheme.number." + name);
  number->setAccessibleName(QString(name).replace('_', ' '));
  const bool whole = parameter.type == Type::kInteger;
  QSlider* slider = nullptr;
  if (span > 0 && (!whole || span <= kMostSliderValues)) {
    slider = new QSlider(Qt::Horizontal);
    slider->setRange(0, kSliderSteps);
    slider->setPageStep(kSliderSteps / 20);
    slider->setSingleStep(whole ? std::max(1, int(kSliderSteps / span)) : kSliderSteps / 100);
    slider->setObjectName("scheme.slider." + name);
    slider->setAccessibleName(number->accessibleName());
    connect(slider, &QSlider::valueChanged, this, [=, this](int position) {
      const double wanted = scale.value(position);
      number->setValue(whole ? std::round(wanted) : wanted);
    });
  }
  connect(number, &QDoubleSpinBox::valueChanged, this, [=, this](double value) {
    if (slider) {
      const QSignalBlocker quiet(slider);
      if (!slider->isSliderDown()) slider->setValue(scale.position(value));
    }
    set_parameter(name, SchemeValue(value));
  });
  auto* both = new QWidget;
  auto* line = new QHBoxLayout(both);
  line->setContentsMargins(0, 0, 0, 0);
  if (slider) line->addWidget(slider, 1);
  line->addWidget(number);
  if (!slider) line->addStretch(1);
  both->setFocusProxy(number);
  add_row(parameter, both, [=](const SchemeValue& value) {
    const double* given = std::get_if<double>(&value);
    if (!given) return;
    const QSignalBlocker quiet(number);
    number->setValue(*given);
    if (!slider || slider->isSliderDown()) return;
    const QSignalBlocker quiet_too(slider);
    slider->setValue(scale.position(*given));
  });
}

void SchemePanel::add_switch(const SchemeParameter& parameter) {
  auto* box = new QCheckBox;
  const QString name = QString::fromUtf8(parameter.name);
  connect(box, &QCheckBox::toggled, this, [this, name](bool on) { set_parameter(name, SchemeValue(on)); });
  add_row(parameter, box, [box](const SchemeValue& value) {
    const QSignalBlocker quiet(box);
    if (const bool* on = std::get_if<bool>(&value)) box->setChecked(*on);
  });
}

void SchemePanel::add_options(const SchemeParameter& parameter) {
  auto* box = new QComboBox;
  for (const char* option : parameter.choices) box->addItem(QString(option).replace('_', ' '), QString(option));
  const QString name = QString::fromUtf8(parameter.name);
  connect(box, &QComboBox::activated, this, [this, name, box](int index) {
    set_parameter(name, SchemeValue(box->itemData(index).toString().toStdString()));
  });
  add_row(parameter, box, [box](const SchemeValue& value) {
    if (const auto* option = std::get_if<std::string>(&value))
      box->setCurrentIndex(box->findData(QString::fromStdString(*option)));
  });
}

// Expert lists and files.
void SchemePanel::add_words(const SchemeParameter& parameter) {
  const bool file = parameter.type == Type::kFile;
  const QString name = QString::fromUtf8(parameter.name);
  auto* words = new QLineEdit;
  words->setFont(number_font());
  words->setPlaceholderText(file ? tr("path of a file") : tr("ids: 3, 7"));
  connect(words, &QLineEdit::editingFinished, this, [this, name, words, file] {
    if (!words->isModified()) return;
    words->setModified(false);
    if (file) return set_parameter(name, SchemeValue(words->text().trimmed().toStdString()));
    if (auto ids = ids_of(words->text())) return set_parameter(name, SchemeValue(std::move(*ids)));
    message_->setText(tr("%1: “%2” is no list of expert ids. Write numbers, like 3, 7.").arg(name, words->text()));
    message_->show();
  });
  QWidget* editor = words;
  if (file) {
    editor = new QWidget;
    auto* line = new QHBoxLayout(editor);
    line->setContentsMargins(0, 0, 0, 0);
    auto* browse = flat_button("…", tr("Choose the file"), editor);
    line->addWidget(words, 1);
    line->addWidget(browse);
    if (const QString example = QString::fromStdString(example_of(draft_.name)); !example.isEmpty()) {
      auto* demo = flat_button(tr("demo"), tr("The file of seeded weights for the demo model: %1").arg(example), editor);
      demo->setObjectName("scheme.example." + name);
      line->addWidget(demo);
      connect(demo, &QToolButton::clicked, this, [this, name, example] { set_parameter(name, SchemeValue(example.toStdString())); });
    }
    editor->setFocusProxy(words);
    connect(browse, &QToolButton::clicked, this, [this, name] {
      const QString path = QFileDialog::getOpenFileName(this, tr("File of the scheme"));
      if (!path.isEmpty()) set_parameter(name, SchemeValue(path.toStdString()));
    });
  }
  add_row(parameter, editor, [words](const SchemeValue& value) {
    if (const auto* path = std::get_if<std::string>(&value)) words->setText(QString::fromStdString(*path));
    if (const auto* ids = std::get_if<std::vector<int>>(&value)) words->setText(ids_text(*ids));
    words->setModified(false);
  });
}

}  // namespace switchyard
