// Fields, buttons and curves of an adaptation. GUI thread.
#include "app/gui/docks/adaptation_panel.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QRegularExpression>
#include <QScrollArea>
#include <QSignalBlocker>
#include <QStandardItemModel>
#include <QVBoxLayout>

#include "app/gui/adaptation_plot.h"
#include "app/gui/panel_parts.h"
#include "app/gui/style.h"
#include "app/gui/words.h"
#include "app/session/adaptation_log.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

constexpr AdaptMethod kMethods[] = {AdaptMethod::kRewire, AdaptMethod::kSpsa, AdaptMethod::kUsageBias, AdaptMethod::kEma};

QString title_of(AdaptMethod method) {
  switch (method) {
    case AdaptMethod::kRewire: return AdaptationPanel::tr("Rewire: exact gradient");
    case AdaptMethod::kSpsa: return AdaptationPanel::tr("Rewire: SPSA, any backend");
    case AdaptMethod::kUsageBias: return AdaptationPanel::tr("Usage bias (ExpertCondenser)");
    case AdaptMethod::kEma: return AdaptationPanel::tr("Moving centres (AdaptDHM)");
  }
  return {};
}

}  // namespace

AdaptationPanel::AdaptationPanel(RunModel& model, std::function<void(const QString&)> run_action, QWidget* parent)
    : QWidget(parent), model_(model) {
  plan_.options.method = AdaptMethod::kSpsa;
  plan_.options.lr = 0.02;
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  column->setSpacing(6);
  method_ = new QComboBox;
  method_->setObjectName("adaptation.method");
  method_->setAccessibleName(tr("Method"));
  method_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
  for (const AdaptMethod method : kMethods) method_->addItem(title_of(method), int(method));
  column->addWidget(method_);

  auto* buttons = new QHBoxLayout;
  start_ = new QPushButton(tr("Start"));
  freeze_ = new QPushButton(tr("Freeze"));
  revert_ = new QPushButton(tr("Revert"));
  const std::pair<QPushButton*, const char*> actions[] = {{start_, "adapt.start"}, {freeze_, "adapt.freeze"}, {revert_, "adapt.revert"}};
  for (const auto& [button, id] : actions) {
    button->setObjectName(QString("adaptation.") + (id + 6));
    buttons->addWidget(button);
    connect(button, &QPushButton::clicked, this, [run_action, id] { run_action(id); });
  }
  start_->setToolTip(tr("Adapts from the next token on; where the prompt was not routed yet, on the prompt first"));
  revert_->setToolTip(tr("Puts back all that its steps changed, as one step of the history"));
  buttons->addStretch(1);
  column->addLayout(buttons);
  status_ = text_label("muted", "adaptation.status");
  message_ = text_label("error", "adaptation.message");
  column->addWidget(status_);
  column->addWidget(message_);

  auto* body = new QWidget;
  rows_ = new QFormLayout(body);
  rows_->setContentsMargins(0, 0, 4, 0);
  rows_->setHorizontalSpacing(10);
  rows_->setVerticalSpacing(5);
  rows_->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  QScrollArea* scroll = scrolled(body);
  column->addWidget(scroll, 3);
  plot_ = new AdaptationPlot(this);
  column->addWidget(plot_, 3);

  connect(method_, &QComboBox::activated, this, [this](int index) {
    AdaptationPlan plan = plan_;
    plan.options.method = AdaptMethod(method_->itemData(index).toInt());
    set_plan(plan);
  });
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed}) connect(&model_, signal, this, &AdaptationPanel::refresh);
  build_fields();
  refresh();
}

void AdaptationPanel::set_plan(const AdaptationPlan& plan) {
  plan_ = plan;
  build_fields();
  refresh();
}

QString AdaptationPanel::why_not() const {
  if (!model_.has_session()) return tr("open a model first");
  const SessionSnapshot* s = model_.snapshot();
  if (plan_.options.method == AdaptMethod::kRewire && s && s->backend.name != "reference")
    return tr("the exact gradient needs the reference backend (Run, Backend: reference); SPSA runs on any");
  if (const auto fits = validate(plan_, *model_.data().plan); !fits) return QString::fromStdString(fits.error().message());
  return {};
}

void AdaptationPanel::refresh() {
  const SessionSnapshot* s = model_.has_session() ? model_.snapshot() : nullptr;
  const auto state = s ? s->adaptation : nullptr;
  using Phase = AdaptationState::Phase;
  const bool going = state && (state->phase == Phase::kActive || state->phase == Phase::kFrozen);
  const QString why = why_not();
  start_->setEnabled(why.isEmpty());
  start_->setText(going ? tr("Start anew") : tr("Start"));
  freeze_->setEnabled(going);
  freeze_->setText(going && state->phase == Phase::kFrozen ? tr("Go on") : tr("Freeze"));
  freeze_->setToolTip(going && state->phase == Phase::kFrozen ? tr("Takes further steps") : tr("Takes no more steps; what was found stays in force"));
  revert_->setEnabled(state && state->phase != Phase::kReverted);
  status_->setText(state ? QString::fromStdString(adaptation_status(*state, s->sequence))
                   : model_.has_trace() ? tr("A trace shows what was recorded; adaptation is for a model that runs.")
                                        : tr("Nothing is adapted."));
  message_->setText(model_.has_session() ? why : QString());
  message_->setVisible(!message_->text().isEmpty());
  plot_->show_state(state);
}

void AdaptationPanel::add_number(const char* name, const QString& title, const QString& tip, double min, double max, int decimals, double step,
                                 std::function<double()> get, std::function<void(double)> set) {
  auto* number = new QDoubleSpinBox;
  number->setLocale(QLocale::c());
  number->setDecimals(decimals);
  number->setRange(min, max);
  number->setSingleStep(step);
  number->setKeyboardTracking(false);
  number->setFont(number_font());
  number->setObjectName(QString("adaptation.") + name);
  number->setAccessibleName(title);
  number->setToolTip(tr("%1. From %2 to %3.").arg(tip, QLocale::c().toString(min, 'g', 6), QLocale::c().toString(max, 'g', 6)));
  number->setValue(get());
  connect(number, &QDoubleSpinBox::valueChanged, this, [this, set = std::move(set)](double value) {
    set(value);
    refresh();
  });
  auto* label = new QLabel(title);
  label->setToolTip(number->toolTip());
  label->setBuddy(number);
  rows_->addRow(label, number);
}

void AdaptationPanel::add_switch(const char* name, const QString& title, const QString& tip, bool* value) {
  auto* box = new QCheckBox;
  box->setObjectName(QString("adaptation.") + name);
  box->setAccessibleName(title);
  box->setToolTip(tip);
  box->setChecked(*value);
  connect(box, &QCheckBox::toggled, this, [value](bool on) { *value = on; });
  auto* label = new QLabel(title);
  label->setToolTip(tip);
  label->setBuddy(box);
  rows_->addRow(label, box);
}

void AdaptationPanel::build_fields() {
  while (rows_->rowCount() > 0) rows_->removeRow(0);
  const QSignalBlocker quiet(method_);
  method_->setCurrentIndex(method_->findData(int(plan_.options.method)));
  AdaptOptions& o = plan_.options;
  const auto number = [this](const char* name, const QString& title, const QString& tip, double min, double max, int decimals, double step, auto* value) {
    add_number(name, title, tip, min, max, decimals, step, [value] { return double(*value); },
               [value](double given) { *value = std::remove_pointer_t<decltype(value)>(given); });
  };
  const bool gradient = o.method == AdaptMethod::kRewire || o.method == AdaptMethod::kSpsa;
  number("every", tr("a step every"), tr("Tokens generated between two steps (m)"), 1, 65536, 0, 8, &plan_.every);
  number("max_steps", tr("steps at most"), tr("Of a sequence: the budget"), 1, 10000, 0, 1, &plan_.max_steps);
  number("steps", tr("iterations"), tr("Of each step (n)"), 1, 1000, 0, 1, &o.steps);
  if (gradient) number("lr", tr("rate"), tr("Learning rate of Adam"), 0, 10, 4, 0.005, &o.lr);
  if (o.method == AdaptMethod::kSpsa) number("perturbation", tr("perturbation"), tr("Size of the random step c"), 0.0001, 10, 4, 0.01, &o.perturbation);
  if (o.method == AdaptMethod::kSpsa) number("seed", tr("seed"), tr("Of the random directions; the same seed repeats"), 0, 2147483647, 0, 1, &o.seed);
  if (o.method == AdaptMethod::kUsageBias)
    number("lr", tr("γ"), tr("Added to the bias of experts used more than on average, taken from the others; negative: balances"), -10, 10, 4, 0.005, &o.lr);
  if (o.method == AdaptMethod::kEma) number("eta", tr("η"), tr("Share of the new mean in a centre"), 0, 1, 4, 0.01, &o.eta);
  if (o.method != AdaptMethod::kEma) {
    number("max_norm", tr("‖δ‖ at most"), tr("Length of a layer's biases; 0: no bound"), 0, 1000000, 3, 0.1, &o.max_norm);
    number("layer_share", tr("share of layers"), tr("Those of largest C, minus the mean log probability of the chosen"), 0, 1, 2, 0.05, &o.layer_share);
    add_switch("least_uncertain", tr("smallest C instead"), tr("The layers that are most certain; the paper's words and formula disagree"), &o.least_uncertain);
  }
  number("loss_tokens", tr("loss over the last"), tr("Tokens that the loss counts; 0: all"), 0, 65536, 0, 16, &o.loss_tokens);
  layers_ = new QLineEdit;
  layers_->setObjectName("adaptation.layers");
  layers_->setAccessibleName(tr("layers"));
  layers_->setFont(number_font());
  layers_->setPlaceholderText(tr("all, or 1, 2, 5"));
  QStringList shown;
  for (const int layer : o.layers) shown << QString::number(layer);
  layers_->setText(shown.join(", "));
  connect(layers_, &QLineEdit::editingFinished, this, [this] {
    plan_.options.layers.clear();
    for (const QString& word : layers_->text().split(QRegularExpression("[,\\s]+"), Qt::SkipEmptyParts)) {
      bool ok = false;
      const int layer = word.toInt(&ok);
      plan_.options.layers.push_back(ok ? layer : -1);  // no layer: refused by name
    }
    refresh();
  });
  rows_->addRow(tr("layers"), layers_);
  add_switch("keep", tr("keep for the next prompt"), tr("Otherwise every sequence begins as before the adaptation"), &plan_.keep);
}

}  // namespace switchyard
