// One card in the middle of the window. GUI thread.
#include "app/gui/start_page.h"

#include <QFileInfo>
#include <QHBoxLayout>
#include <QLabel>
#include <QProgressBar>
#include <QPushButton>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/gui/dock.h"
#include "app/gui/style.h"
#include "app/session/jobs.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

QLabel* label(const QString& text, const char* kind) {
  auto* out = new QLabel(text);
  out->setTextFormat(Qt::PlainText);
  out->setProperty("kind", kind);
  out->setWordWrap(true);
  return out;
}

}  // namespace

StartPage::StartPage(RunModel& model, Jobs& jobs, std::function<void(const QString&)> run_action,
                     std::function<void(const QString&)> open_path, QWidget* parent)
    : QWidget(parent), model_(model), jobs_(jobs), open_path_(std::move(open_path)) {
  setObjectName("workbench");
  setAttribute(Qt::WA_StyledBackground);
  auto* outer = new QVBoxLayout(this);
  outer->addStretch(2);
  auto* card = new QWidget;
  card->setObjectName("card");
  card->setAttribute(Qt::WA_StyledBackground);
  card->setMaximumWidth(620);
  auto* centred = new QHBoxLayout;
  centred->addStretch(1);
  centred->addWidget(card, 6);
  centred->addStretch(1);
  outer->addLayout(centred);
  outer->addStretch(3);
  auto* column = new QVBoxLayout(card);
  column->setContentsMargins(36, 30, 36, 30);
  column->setSpacing(14);

  column->addWidget(label("Switchyard", "heading"));
  column->addWidget(
      label(tr("Open a Mixture-of-Experts checkpoint, watch every routing decision while it writes, and change "
               "routers and experts without stopping."),
            "muted"));

  choices_ = new QWidget;
  auto* choices = new QVBoxLayout(choices_);
  choices->setContentsMargins(0, 6, 0, 0);
  choices->setSpacing(12);
  const auto choice = [&](const QString& id, const QString& title, const QString& text, bool primary) {
    auto* row = new QHBoxLayout;
    auto* button = new QPushButton(title);
    button->setObjectName("start." + id);
    if (primary) button->setProperty("kind", "primary");
    button->setMinimumWidth(150);
    connect(button, &QPushButton::clicked, this, [run_action, id] { run_action(id); });
    row->addWidget(button);
    row->addSpacing(8);
    row->addWidget(label(text, "muted"), 1);
    choices->addLayout(row);
  };
  choice("file.open_demo", tr("Try the demo"),
         tr("A small trained model that ships with the program. Needs no GPU and no network."), true);
  choice("file.open_model", tr("Open model…"),
         tr("A Hugging Face folder with config.json and safetensors. Or drop one anywhere."), false);
  choice("file.open_trace", tr("Open trace…"), tr("A recorded run, *.moetrace.h5."), false);
  recent_ = new QVBoxLayout;
  recent_->setSpacing(2);
  choices->addLayout(recent_);
  column->addWidget(choices_);

  progress_ = new QWidget;
  auto* busy = new QVBoxLayout(progress_);
  busy->setContentsMargins(0, 6, 0, 0);
  title_ = label({}, "title");
  step_ = label({}, "muted");
  bar_ = new QProgressBar;
  bar_->setTextVisible(false);
  bar_->setAccessibleName(tr("Progress of opening"));
  cancel_ = new QPushButton(tr("Cancel"));
  cancel_->setObjectName("start.cancel");
  connect(cancel_, &QPushButton::clicked, this, [this] { model_.cancel_opening(); });
  busy->addWidget(title_);
  busy->addWidget(bar_);
  auto* below = new QHBoxLayout;
  below->addWidget(step_, 1);
  below->addWidget(cancel_);
  busy->addLayout(below);
  column->addWidget(progress_);

  drop_ = label({}, "edit");
  drop_->hide();
  column->addWidget(drop_);

  connect(&model_, &RunModel::model_changed, this, &StartPage::refresh);
  connect(&jobs_, &Jobs::changed, this, &StartPage::refresh);
  connect(&tick_, &QTimer::timeout, this, &StartPage::refresh);
  refresh();
}

void StartPage::set_recent(const QStringList& paths) {
  while (QLayoutItem* item = recent_->takeAt(0)) {
    delete item->widget();
    delete item;
  }
  if (paths.isEmpty()) return;
  recent_->addWidget(label(tr("Recent"), "faint"));
  for (const QString& path : paths) {
    auto* button = flat_button(path, tr("Open %1").arg(path), this);
    connect(button, &QToolButton::clicked, this, [this, path] { open_path_(path); });
    recent_->addWidget(button, 0, Qt::AlignLeft);
  }
}

void StartPage::set_drop_hint(const QString& sentence) {
  drop_->setText(sentence);
  drop_->setVisible(!sentence.isEmpty());
}

void StartPage::refresh() {
  const bool opening = model_.opening();
  choices_->setVisible(!opening);
  progress_->setVisible(opening);
  if (!opening) return tick_.stop();
  if (!tick_.isActive()) tick_.start(100);
  for (const auto& job : jobs_.running()) {
    title_->setText(job.title);
    step_->setText(job.step);
    if (job.fraction < 0)
      bar_->setRange(0, 0);
    else
      bar_->setRange(0, 1000), bar_->setValue(int(job.fraction * 1000));
    if (job.title.startsWith(tr("Opening"))) break;
  }
}

}  // namespace switchyard
