// Button, sentence and bars of the gradient lens. GUI thread.
#include "app/gui/docks/gradient_panel.h"

#include <algorithm>
#include <cmath>

#include <QHBoxLayout>
#include <QLabel>
#include <QLocale>
#include <QPainter>
#include <QPushButton>
#include <QVBoxLayout>

#include "app/gui/style.h"
#include "app/gui/words.h"

namespace switchyard {

GradientPlot::GradientPlot(QWidget* parent) : QWidget(parent) {
  setObjectName("gradient.plot");
  setAccessibleName(tr("Gradient of the loss by expert"));
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

QSize GradientPlot::minimumSizeHint() const { return {160, QFontMetrics(word_font()).lineSpacing() * 8}; }

QRectF GradientPlot::area() const {
  const int line = QFontMetrics(word_font()).lineSpacing();
  return QRectF(rect()).adjusted(4, line * 1.4, -4, -line * 2.4);
}

void GradientPlot::show_row(std::shared_ptr<const GradientLens> lens, int row) {
  lens_ = std::move(lens);
  row_ = row;
  setAccessibleDescription(lens_ ? QString::fromStdString(gradient_summary(*lens_, row_)) : QString());
  update();
}

void GradientPlot::paintEvent(QPaintEvent*) {
  if (!lens_) return;
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  const Theme& theme = current_theme();
  const GateLens& one = lens_->rows[size_t(row_)];
  const QFontMetrics words(word_font());
  const int line = words.lineSpacing();
  double most = 0;
  for (const auto* values : {&one.dense, &one.sparse})
    for (const double value : *values) most = std::max(most, std::abs(value));
  p.setFont(word_font());
  p.setPen(color(theme.text));
  p.drawText(QRectF(4, 0, width() - 8, line), Qt::AlignVCenter,
             words.elidedText(tr("dL/dz summed over the text; up: the loss would have less of it"), Qt::ElideRight, width() - 8));
  const QRectF inner = area();
  const double middle = inner.center().y(), slot = inner.width() / double(one.dense.size());
  const auto bar = [&](size_t e, double value, double from, double share, QColor ink) {
    const double height = most > 0 ? inner.height() / 2 * value / most : 0;
    p.fillRect(QRectF(inner.left() + (double(e) + from) * slot, height >= 0 ? middle - height : middle, slot * share, std::abs(height)), ink);
  };
  for (size_t e = 0; e < one.dense.size(); ++e) {
    bar(e, one.dense[e], 0.1, 0.4, color(theme.edit));
    bar(e, one.sparse[e], 0.52, 0.38, color(theme.muted));
  }
  p.setPen(QPen(color(theme.line), 1));
  p.drawLine(QPointF(inner.left(), middle), QPointF(inner.right(), middle));
  p.setPen(color(theme.muted));
  p.setFont(number_font());
  const int widest = QFontMetrics(number_font()).horizontalAdvance(QString::number(one.dense.size())) + 8;
  const int every = std::max(1, int(std::ceil(widest / slot)));
  for (size_t e = 0; e < one.dense.size(); e += size_t(every))
    p.drawText(QRectF(inner.left() + (double(e) + 0.5) * slot - widest, inner.bottom() + 2, 2 * widest, line), Qt::AlignHCenter, QString::number(e));
  p.setFont(word_font());
  p.drawText(QRectF(4, inner.bottom() + 2 + line, width() - 8, line), Qt::AlignHCenter,
             words.elidedText(tr("expert; bright: dense, all experts in sight; faint: sparse, those that ran"), Qt::ElideRight, width() - 8));
}

bool GradientPlot::event(QEvent* event) {
  return show_tip(this, event, [this](const QPoint& at) -> QString {
    if (!lens_) return {};
    const GateLens& one = lens_->rows[size_t(row_)];
    const double place = (at.x() - area().x()) / area().width() * double(one.dense.size());
    if (place < 0 || place >= double(one.dense.size())) return {};
    const auto e = size_t(place);
    return tr("expert %1: dense %2, sparse %3; %4 tokens want it most")
        .arg(e)
        .arg(QLocale::c().toString(one.dense[e], 'g', 4), QLocale::c().toString(one.sparse[e], 'g', 4))
        .arg(one.wanted[e]);
  }) || QWidget::event(event);
}

GradientPanel::GradientPanel(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), probe_(model, jobs) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  column->setSpacing(6);
  compute_ = new QPushButton(tr("Take the gradient of this text"));
  compute_->setObjectName("gradient.compute");
  auto* line = new QHBoxLayout;
  line->addWidget(compute_);
  line->addStretch(1);
  column->addLayout(line);
  summary_ = text_label("", "gradient.summary");
  message_ = text_label("muted", "gradient.message");
  column->addWidget(summary_);
  column->addWidget(message_);
  plot_ = new GradientPlot(this);
  column->addWidget(plot_, 1);
  connect(compute_, &QPushButton::clicked, this, &GradientPanel::compute);
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed, &RunModel::selection_changed})
    connect(&model_, signal, this, &GradientPanel::refresh);
  refresh();
}

QString GradientPanel::why_not() const {
  if (!model_.has_session()) return tr("open a model first");
  if (model_.data().tokens() < 2) return tr("there are no tokens yet");
  if (probe_.running()) return tr("the gradient is being taken");
  return {};
}

void GradientPanel::compute() {
  if (!why_not().isEmpty()) return;
  probe_.start("gradient", tr("Taking the gradient"), gradient_lens, [this] {
    Q_EMIT lens_changed();
    refresh();
  });
  refresh();
}

TableData GradientPanel::table() const {
  const int row = model_.selection().moe_layer;
  return lens() && size_t(row) < lens()->rows.size() ? gradient_table(*lens(), row, model_.texts()) : TableData{};
}

void GradientPanel::refresh() {
  if (probe_.drop_of_other_text()) Q_EMIT lens_changed();
  const QString why = why_not();
  compute_->setEnabled(why.isEmpty());
  compute_->setToolTip(why);
  const int row = model_.selection().moe_layer;
  const bool there = lens() && size_t(row) < lens()->rows.size();
  summary_->setText(there ? tr("Layer %1: %2").arg(model_.model_layer()).arg(QString::fromStdString(gradient_summary(*lens(), row))) : QString());
  summary_->setVisible(there);
  message_->setText(probe_.running() ? tr("The reference backend takes the gradient; the run goes on.")
                    : there  ? QString()
                             : tr("Which experts that did not run would the loss of this text like? Runs every expert on every token, in the "
                                  "reference backend, beside the run."));
  message_->setVisible(!message_->text().isEmpty());
  plot_->show_row(there ? lens() : nullptr, row);
}

}  // namespace switchyard
