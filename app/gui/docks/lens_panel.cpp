// Button, sentence and heat map of the logit lens. GUI thread.
#include "app/gui/docks/lens_panel.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "app/gui/result_picture.h"
#include "app/gui/words.h"

namespace switchyard {
namespace {

constexpr size_t kLastTokens = 64;

}  // namespace

LensPanel::LensPanel(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), probe_(model, jobs) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  column->setSpacing(6);
  compute_ = new QPushButton(tr("Read the layers"));
  compute_->setObjectName("lens.compute");
  quantity_ = new QComboBox;
  quantity_->setObjectName("lens.quantity");
  quantity_->setAccessibleName(tr("Quantity"));
  quantity_->addItems({"KL", "rank", "probability"});
  auto* line = new QHBoxLayout;
  line->addWidget(compute_);
  line->addStretch(1);
  line->addWidget(quantity_);
  column->addLayout(line);
  message_ = text_label("muted", "lens.message");
  column->addWidget(message_);
  picture_ = new ResultPicture(this);
  column->addWidget(picture_, 1);
  connect(compute_, &QPushButton::clicked, this, &LensPanel::compute);
  connect(quantity_, &QComboBox::currentIndexChanged, this, &LensPanel::show_picture);
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed}) connect(&model_, signal, this, &LensPanel::refresh);
  refresh();
}

QString LensPanel::why_not() const {
  if (!model_.has_session()) return tr("open a model first");
  if (model_.data().tokens() < 1) return tr("there are no tokens yet");
  if (model_.checkpoint()->plan.encoder_layers > 0) return tr("the lens knows no encoder-decoders");
  if (probe_.running()) return tr("the layers are being read");
  return {};
}

void LensPanel::compute() {
  if (!why_not().isEmpty()) return;
  probe_.start(
      "lens", tr("Reading the layers"),
      [](const Checkpoint& checkpoint, const std::vector<TokenId>& tokens, const Recipe& recipe, Task& task) {
        return logit_lens_of(checkpoint, tokens, recipe, kLastTokens, task);
      },
      [this] {
        show_picture();
        Q_EMIT lens_changed();
        refresh();
      });
  refresh();
}

TableData LensPanel::table() const {
  if (!lens()) return {};
  return lens_table(*lens(), model_.texts(), [this](TokenId id) { return model_.token_name(id); });
}

void LensPanel::show_picture() {
  picture_->show_table(lens() ? lens_cells(*lens()) : ResultTable{}, lens() ? quantity_->currentText() : QString());
}

void LensPanel::refresh() {
  if (probe_.drop_of_other_text()) {
    show_picture();
    Q_EMIT lens_changed();
  }
  const QString why = why_not();
  compute_->setEnabled(why.isEmpty());
  compute_->setToolTip(why);
  quantity_->setVisible(lens() != nullptr);
  picture_->setVisible(lens() != nullptr);
  message_->setText(probe_.running() ? tr("The reference backend reads the layers; the run goes on.")
                    : lens() ? tr("Of the last %1 tokens, as they run under the edits in force when the layers were read.").arg(lens()->places.empty() ? 0 : lens()->places[0].tokens.size())
                             : tr("What would every layer predict if nothing came after it? Reads the residual stream behind each attention and each block of "
                                  "experts through the model's own head, in the reference backend, beside the run."));
}

}  // namespace switchyard
