// See adapter_section.h.
#include "app/gui/docks/adapter_section.h"

#include <algorithm>
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
#include <QToolButton>
#include <QVBoxLayout>

#include "app/gui/dock.h"
#include "app/gui/style.h"
#include "app/gui/words.h"
#include "app/session/run_model.h"
#include "engine/routing/edit.h"

namespace switchyard {
namespace {

using Type = AdapterParameter::Type;

// "a; b" of paths, which may hold spaces and commas.
QString joined(const std::vector<std::string>& words, const char* between) {
  QStringList out;
  for (const std::string& word : words) out << QString::fromStdString(word);
  return out.join(between);
}

std::vector<std::string> split(const QString& text, const QRegularExpression& between) {
  std::vector<std::string> out;
  for (const QString& word : text.split(between, Qt::SkipEmptyParts))
    if (!word.trimmed().isEmpty()) out.push_back(word.trimmed().toStdString());
  return out;
}

// "0.5, 1"; nullopt where something else stands there.
std::optional<std::vector<double>> numbers_of(const QString& text) {
  std::vector<double> out;
  for (const QString& word : text.split(QRegularExpression("[,\\s]+"), Qt::SkipEmptyParts)) {
    bool ok = false;
    out.push_back(QLocale::c().toDouble(word, &ok));
    if (!ok) return std::nullopt;
  }
  return out;
}

}  // namespace

AdapterSection::AdapterSection(RunModel& model, Jobs& jobs, QWidget* parent)
    : QWidget(parent), model_(model), jobs_(jobs) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 6, 0, 0);
  column->setSpacing(5);
  auto* title = new QLabel(tr("Adapters"));
  title->setProperty("kind", "title");
  column->addWidget(title);

  files_ = new QLineEdit;
  files_->setObjectName("adapters.files");
  files_->setAccessibleName(tr("Adapter files"));
  files_->setPlaceholderText(tr("PEFT folders or adapter files, with ; between"));
  auto* folder = flat_button(tr("folder…"), tr("Add a PEFT folder"), this);
  auto* file = flat_button(tr("file…"), tr("Add an adapter file"), this);
  auto* demo = flat_button(tr("demo"), tr("The example for the demo model: adapters.safetensors"), this);
  auto* first = new QHBoxLayout;
  first->addWidget(files_, 1);
  first->addWidget(folder);
  first->addWidget(file);
  first->addWidget(demo);
  column->addLayout(first);
  modules_edit_ = new QLineEdit;
  modules_edit_->setObjectName("adapters.modules");
  modules_edit_->setAccessibleName(tr("Linear layers"));
  modules_edit_->setPlaceholderText(tr("all linear layers that the files have; or q_proj, o_proj"));
  column->addWidget(modules_edit_);
  router_ = new QComboBox;
  router_->setObjectName("adapters.router");
  router_->setAccessibleName(tr("Adapter router"));
  router_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
  for (const AdapterRouterInfo& info : adapter_routers())
    router_->addItem(QString::fromUtf8(info.title), QString::fromUtf8(info.name));
  column->addWidget(router_);
  facts_ = text_label("muted");
  column->addWidget(facts_);
  auto* form = new QWidget;
  rows_ = new QFormLayout(form);
  rows_->setContentsMargins(0, 0, 0, 0);
  rows_->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  column->addWidget(form);
  attach_ = new QPushButton(tr("Attach"));
  attach_->setObjectName("adapters.attach");
  remove_ = new QPushButton(tr("Take away"));
  remove_->setObjectName("adapters.remove");
  auto* last = new QHBoxLayout;
  last->addWidget(attach_);
  last->addWidget(remove_);
  last->addStretch(1);
  column->addLayout(last);
  message_ = text_label("error");
  message_->setObjectName("adapters.message");
  message_->hide();
  column->addWidget(message_);
  decisions_ = text_label("faint");
  decisions_->setObjectName("adapters.decisions");
  decisions_->setAccessibleName(tr("What the adapter routers decide"));
  decisions_->setFont(number_font());
  column->addWidget(decisions_);

  const auto add = [this](const QString& path) {
    if (!path.isEmpty()) files_->setText(files_->text().isEmpty() ? path : files_->text() + "; " + path);
  };
  connect(folder, &QToolButton::clicked, this,
          [this, add] { add(QFileDialog::getExistingDirectory(this, tr("PEFT folder"))); });
  connect(file, &QToolButton::clicked, this, [this, add] {
    add(QFileDialog::getOpenFileName(this, tr("Adapter file"), {}, tr("safetensors (*.safetensors)")));
  });
  connect(demo, &QToolButton::clicked, this, [this] { set_files({"adapters.safetensors"}); });
  connect(files_, &QLineEdit::textChanged, this, [this](const QString& text) {
    choice_.files = split(text, QRegularExpression(";"));
    attach_->setEnabled(model_.has_session() && !choice_.files.empty());
  });
  connect(modules_edit_, &QLineEdit::textChanged, this,
          [this](const QString& text) { modules_ = split(text, QRegularExpression("[,;\\s]+")); });
  connect(router_, &QComboBox::activated, this,
          [this](int index) { choose_router(router_->itemData(index).toString()); });
  connect(attach_, &QPushButton::clicked, this, &AdapterSection::attach);
  connect(remove_, &QPushButton::clicked, this, &AdapterSection::take_away);
  for (const auto signal :
       {&RunModel::model_changed, &RunModel::data_changed, &RunModel::selection_changed, &RunModel::history_changed})
    connect(&model_, signal, this, &AdapterSection::refresh);
  choice_.router = "fixed";
  build_fields();
  refresh();
}

std::vector<int> AdapterSection::layers() const {
  return all_layers_ ? std::vector<int>{} : std::vector<int>{model_.model_layer()};
}
QString AdapterSection::message() const {
  return message_->text();
}
QString AdapterSection::decisions() const {
  return decisions_->text();
}
void AdapterSection::set_files(const std::vector<std::string>& files) {
  files_->setText(joined(files, "; "));
}
void AdapterSection::set_modules(const std::vector<std::string>& modules) {
  modules_edit_->setText(joined(modules, ", "));
}

void AdapterSection::choose_router(const QString& name) {
  if (!find_adapter_router(name.toStdString())) return;
  choice_.router = name.toStdString();
  choice_.parameters.clear();
  router_->setCurrentIndex(router_->findData(name));
  build_fields();
  if (attached_) attach();
}

void AdapterSection::set_parameter(const QString& name, const AdapterValue& value) {
  choice_.parameters[name.toStdString()] = value;
  for (const Field& field : fields_)
    if (name == QString::fromUtf8(field.parameter->name)) field.show(value);
  if (attached_) attach();
}

void AdapterSection::attach() {
  const ModelPlan* plan = model_.data().plan;
  if (!model_.has_session() || !plan || choice_.files.empty()) return;
  jobs_.start(
      "adapters", tr("Reading adapters"),
      [choice = choice_, where = layers(), modules = modules_, plan = *plan](Task&) {
        return make_adapters(choice, where, modules, plan);
      },
      [this, where = layers(), modules = modules_](Result<std::shared_ptr<const AdapterSet>> set) {
        if (set && model_.has_session() &&
            model_.edit(EditCommand{SetAdapters{{where}, modules, {*set}}, std::nullopt}))
          in_force_ = (*set)->choice;
        const QString text = set ? QString() : QString::fromStdString(set.error().message());
        message_->setText(text);
        message_->setVisible(!text.isEmpty());
      });
}

void AdapterSection::take_away() {
  if (model_.has_session()) model_.edit(EditCommand{SetAdapters{{layers()}, modules_, {}}, std::nullopt});
}

void AdapterSection::refresh() {
  const RunData& data = model_.data();
  const bool ready = model_.has_session() && data.plan && !data.plan->moe_layers.empty();
  for (QWidget* widget : std::initializer_list<QWidget*>{files_, modules_edit_, router_}) widget->setEnabled(ready);
  attach_->setEnabled(ready && !choice_.files.empty());
  const Recipe* recipe = ready ? model_.recipe_ahead() : nullptr;
  const AdapterSet* here = nullptr;
  if (recipe && !recipe->adapters.empty()) {
    int place = 0;
    for (int layer = 0; layer <= model_.model_layer(); ++layer)
      for (const Sublayer& sublayer : data.plan->layers[size_t(layer)].sublayers)
        for (const int end = place + places_of(sublayer.op); place < end; ++place)
          if (layer == model_.model_layer() && !here) here = recipe->adapters_at(place);
  }
  attached_ = here != nullptr;
  remove_->setEnabled(ready && recipe && !recipe->adapters.empty());
  const AdapterChoice now = here ? here->choice : AdapterChoice{};
  if (here && now != in_force_) {  // another hand: undo, a script, another layer
    choice_ = now;
    set_files(now.files);
    router_->setCurrentIndex(router_->findData(QString::fromStdString(now.router)));
    build_fields();
  }
  in_force_ = now;
  show_decisions();
}

void AdapterSection::show_decisions() {
  const RunData& data = model_.data();
  QStringList lines;
  if (attached_ && data.snapshot && data.snapshot->adapters && data.plan && isVisible()) {
    const Recipe* recipe = model_.recipe_ahead();
    if (linears_for_ != data.plan) linears_ = linears_of(*data.plan), linears_for_ = data.plan;
    for (const auto& [place, tally] : data.snapshot->adapters->linears) {
      const AdapterSet* set = recipe ? recipe->adapters_at(place) : nullptr;
      if (!set || linears_[size_t(place)].layer != model_.model_layer()) continue;
      const AdaptedLinear& linear = set->linears.at(place);
      if (tally.last.size() != linear.names.size()) continue;
      QStringList parts;
      for (size_t i = 0; i < tally.last.size(); ++i)
        if (tally.last[i] != 0)
          parts << QString("%1 %2").arg(QString::fromStdString(linear.names[i]),
                                        QLocale::c().toString(tally.last[i], 'f', 3));
      lines << QString::fromStdString(linears_[size_t(place)].local).section('.', -1) + ": " +
                   (parts.isEmpty() ? tr("none") : parts.join(" · "));
    }
  }
  decisions_->setText(lines.join('\n'));
  decisions_->setVisible(!lines.isEmpty());
}

AdapterValue AdapterSection::value_of(const AdapterParameter& parameter) const {
  const auto own = choice_.parameters.find(parameter.name);
  return own == choice_.parameters.end() ? parameter.standard : own->second;
}

void AdapterSection::build_fields() {
  fields_.clear();
  while (rows_->rowCount() > 0) rows_->removeRow(0);
  const AdapterRouterInfo* info = find_adapter_router(choice_.router);
  if (!info) return;
  QString facts = QString(info->exact ? "exact" : "inspired by") + " · " + QString::fromUtf8(info->source);
  if (*info->needs) facts += tr(" · needs ") + QString::fromUtf8(info->needs);
  facts_->setText(facts + "\n" + QString::fromUtf8(info->formula));
  for (const AdapterParameter& parameter : info->parameters) {
    const QString name = QString::fromUtf8(parameter.name);
    if (parameter.type == Type::kBoolean) {
      auto* box = new QCheckBox;
      connect(box, &QCheckBox::toggled, this, [this, name](bool on) { set_parameter(name, on); });
      add_row(parameter, box, [box](const AdapterValue& value) {
        const QSignalBlocker quiet(box);
        if (const bool* on = std::get_if<bool>(&value)) box->setChecked(*on);
      });
    } else if (parameter.type == Type::kChoice) {
      auto* box = new QComboBox;
      for (const char* option : parameter.choices) box->addItem(QString::fromUtf8(option));
      connect(box, &QComboBox::textActivated, this,
              [this, name](const QString& text) { set_parameter(name, text.toStdString()); });
      add_row(parameter, box, [box](const AdapterValue& value) {
        if (const auto* text = std::get_if<std::string>(&value)) box->setCurrentText(QString::fromStdString(*text));
      });
    } else if (parameter.type == Type::kReals) {
      auto* words = new QLineEdit;
      words->setFont(number_font());
      connect(words, &QLineEdit::editingFinished, this, [this, name, words] {
        if (!words->isModified()) return;
        words->setModified(false);
        if (auto numbers = numbers_of(words->text())) return set_parameter(name, std::move(*numbers));
        message_->setText(tr("%1: “%2” is no list of numbers. Write them like 0.5, 1.").arg(name, words->text()));
        message_->show();
      });
      add_row(parameter, words, [words](const AdapterValue& value) {
        const auto* numbers = std::get_if<std::vector<double>>(&value);
        if (!numbers) return;
        QStringList out;
        for (const double number : *numbers) out << QLocale::c().toString(number);
        words->setText(out.join(", "));
        words->setModified(false);
      });
    } else {
      auto* number = new QDoubleSpinBox;
      const bool whole = parameter.type == Type::kInteger;
      number->setLocale(QLocale::c());
      number->setDecimals(whole ? 0 : 4);
      number->setRange(parameter.min, parameter.max);
      number->setSingleStep(whole ? 1 : std::min(0.1, (parameter.max - parameter.min) / 20));
      number->setKeyboardTracking(false);
      number->setFont(number_font());
      connect(number, &QDoubleSpinBox::valueChanged, this, [this, name](double value) { set_parameter(name, value); });
      add_row(parameter, number, [number](const AdapterValue& value) {
        const QSignalBlocker quiet(number);
        if (const double* given = std::get_if<double>(&value)) number->setValue(*given);
      });
    }
    fields_.back().show(value_of(parameter));
  }
}

void AdapterSection::add_row(const AdapterParameter& parameter, QWidget* editor,
                             std::function<void(const AdapterValue&)> show) {
  const QString name = QString::fromUtf8(parameter.name), words = QString(name).replace('_', ' ');
  auto* label = new QLabel(words);
  for (QWidget* widget : std::initializer_list<QWidget*>{label, editor})
    widget->setToolTip(QString::fromUtf8(parameter.meaning));
  editor->setAccessibleName(words);
  editor->setObjectName("adapters." + name);
  label->setBuddy(editor);
  rows_->addRow(label, editor);
  fields_.push_back({&parameter, std::move(show)});
}

}  // namespace switchyard
