// See path_budget.h.
#include "app/gui/docks/path_budget.h"

#include <cmath>

#include <QFileDialog>
#include <QHBoxLayout>
#include <QLabel>
#include <QSignalBlocker>
#include <QSlider>
#include <QToolButton>

#include "app/gui/dock.h"
#include "app/gui/style.h"
#include "app/session/jobs.h"
#include "app/session/run_model.h"
#include "engine/routing/path_router.h"

namespace switchyard {
namespace {

constexpr int kSteps = 100;  // from 0 to 1

}  // namespace

PathBudget::PathBudget(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), jobs_(jobs) {
  file_ = flat_button(tr("Routers…"), tr("A file of layer routers that choose the path of each prompt"), this);
  file_->setObjectName("scheme.path.file");
  example_ =
      flat_button(tr("demo"), tr("The file of seeded layer routers for the demo model: %1").arg(kExampleRouters), this);
  example_->setObjectName("scheme.path.example");
  slider_ = new QSlider(Qt::Horizontal);
  slider_->setObjectName("scheme.path.budget");
  slider_->setAccessibleName(tr("Budget of the layer routers"));
  slider_->setToolTip(tr("−1 skips all it can, −0.5 is the routers alone, 0.5 runs all, 1 repeats all"));
  slider_->setRange(-kSteps, kSteps);
  slider_->setSingleStep(kSteps / 20);
  slider_->setValue(-kSteps / 2);
  number_ = new QLabel;
  number_->setFont(number_font());
  auto* line = new QHBoxLayout(this);
  line->setContentsMargins(0, 0, 0, 0);
  line->addWidget(file_);
  line->addWidget(example_);
  line->addWidget(slider_, 1);
  line->addWidget(number_);

  connect(file_, &QToolButton::clicked, this, [this] {
    const QString path =
        QFileDialog::getOpenFileName(this, tr("File of layer routers"), {}, tr("Weights (*.safetensors)"));
    if (!path.isEmpty()) take_file(path);
  });
  connect(example_, &QToolButton::clicked, this, [this] { take_file(kExampleRouters); });
  connect(slider_, &QSlider::valueChanged, this, [this] {
    refresh();
    if (!slider_->isSliderDown()) send();
  });
  connect(slider_, &QSlider::sliderReleased, this, &PathBudget::send);
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed, &RunModel::history_changed})
    connect(&model_, signal, this, &PathBudget::refresh);
  refresh();
}

double PathBudget::budget() const {
  return double(slider_->value()) / kSteps;
}

void PathBudget::set_budget(double budget) {
  slider_->setValue(int(std::lround(budget * kSteps)));
}

void PathBudget::take_file(const QString& path) {
  jobs_.start(
      "path", tr("Reading the layer routers"), [file = path.toStdString()](Task&) { return read_path_routers(file); },
      [this, file = path.toStdString()](Result<std::shared_ptr<const PathRouters>> routers) {
        Q_EMIT read(routers ? nullptr : &routers.error());
        if (!routers) return;
        model_.edit(EditCommand{
            LayerPath{.passes = {}, .chooser = {.file = file, .budget = budget(), .routers = *routers}}, std::nullopt});
      });
}

void PathBudget::send() {
  LayerPath path = model_.path_ahead();
  if (!path.chooser || path.chooser.budget == budget()) return;
  path.chooser.budget = budget();
  model_.edit(EditCommand{std::move(path), std::nullopt});
}

void PathBudget::refresh() {
  const bool ready = model_.has_session() && model_.data().plan;
  const PathChooser* chooser = ready && model_.path_ahead().chooser ? &model_.path_ahead().chooser : nullptr;
  for (QToolButton* button : {file_, example_}) button->setEnabled(ready);
  slider_->setEnabled(chooser != nullptr);
  if (chooser && !slider_->isSliderDown() && sender() != slider_) {
    const QSignalBlocker quiet(slider_);
    slider_->setValue(int(std::lround(chooser->budget * kSteps)));
  }
  number_->setText(QString::number(budget(), 'f', 2));
  number_->setEnabled(chooser != nullptr);
}

}  // namespace switchyard
