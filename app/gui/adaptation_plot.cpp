// Curves of the adaptation's log. GUI thread.
#include "app/gui/adaptation_plot.h"

#include <algorithm>
#include <cmath>

#include <QLocale>
#include <QPainter>
#include <QPainterPath>

#include "app/gui/style.h"
#include "app/gui/words.h"

namespace switchyard {

AdaptationPlot::AdaptationPlot(QWidget* parent) : QWidget(parent) {
  setObjectName("adaptation.plot");
  setAccessibleName(tr("Curves of the adaptation"));
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
  show_state(nullptr);
}

QSize AdaptationPlot::sizeHint() const { return {280, QFontMetrics(word_font()).lineSpacing() * 16}; }
QSize AdaptationPlot::minimumSizeHint() const { return {160, QFontMetrics(word_font()).lineSpacing() * 9}; }

void AdaptationPlot::show_state(std::shared_ptr<const AdaptationState> state) {
  state_ = std::move(state);
  const bool centres = state_ && state_->plan.options.method == AdaptMethod::kEma;
  charts_ = {{tr("loss"), tr("nats per token; faint: before the step"), 4, {{}, {{}, true}}},
             {centres ? tr("centres moved") : tr("‖δ‖"), tr("a line per layer"), 3, {}},
             {tr("rerouted"), tr("% of the decisions"), 1, {{}}},
             {tr("path distance"), tr("experts of a token's path"), 2, {{}}}};
  QStringList words;
  if (state_) {
    for (const AdaptationEntry& entry : state_->log) {
      charts_[0].curves[0].values.push_back(entry.loss_after);
      charts_[0].curves[1].values.push_back(entry.loss_before);
      charts_[1].curves.resize(std::max(charts_[1].curves.size(), entry.norms.size()));
      for (size_t row = 0; row < entry.norms.size(); ++row) charts_[1].curves[row].values.push_back(entry.norms[row]);
      charts_[2].curves[0].values.push_back(100 * entry.rerouted);
      charts_[3].curves[0].values.push_back(entry.path_distance);
    }
    for (const Chart& chart : charts_)
      if (!chart.curves.empty() && !chart.curves[0].values.empty())
        words << tr("%1: %2").arg(chart.title, QLocale::c().toString(chart.curves[0].values.back(), 'f', chart.decimals));
  }
  setAccessibleDescription(words.join(", "));
  update();
}

QRectF AdaptationPlot::cell(size_t chart) const {
  const double w = width() / 2.0, h = height() / 2.0;
  return QRectF(double(chart % 2) * w, double(chart / 2) * h, w, h).adjusted(4, 2, -4, -2);
}

QRectF AdaptationPlot::area(size_t chart) const {
  const int line = QFontMetrics(word_font()).lineSpacing();
  return cell(chart).adjusted(2, line * 1.5, -2, -line * 1.4);
}

void AdaptationPlot::paintEvent(QPaintEvent*) {
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  if (!state_ || state_->log.empty()) {
    p.setFont(word_font());
    p.setPen(color(current_theme().muted));
    p.drawText(rect().adjusted(4, 2, -4, 0), Qt::AlignTop | Qt::TextWordWrap,
               tr("Loss, length of the biases, share of decisions rerouted and distance of the paths: a point per step, as soon as one was taken."));
    return;
  }
  for (size_t chart = 0; chart < charts_.size(); ++chart) paint_chart(p, chart);
}

void AdaptationPlot::paint_chart(QPainter& p, size_t which) const {
  const Theme& theme = current_theme();
  const Chart& chart = charts_[which];
  const QFontMetrics words(word_font());
  const QRectF box = cell(which), inner = area(which);
  double low = 0, high = 0;
  bool first = true;
  size_t points = 0;
  for (const Curve& curve : chart.curves)
    for (const double value : curve.values) {
      low = first ? value : std::min(low, value);
      high = first ? value : std::max(high, value);
      first = false;
      points = std::max(points, curve.values.size());
    }
  if (which != 0) low = std::min(low, 0.0);  // these are lengths
  const auto number = [&](double value) { return QLocale::c().toString(value, 'f', chart.decimals); };
  p.setFont(number_font());
  const QString newest = chart.curves.empty() || chart.curves[0].values.empty()
                             ? QString()
                             : which == 1 ? tr("most %1").arg(number(high)) : number(chart.curves[0].values.back());
  const int right = QFontMetrics(number_font()).horizontalAdvance(newest) + 4;
  p.setPen(color(theme.text));
  p.drawText(QRectF(box.right() - right, box.top(), right, words.lineSpacing()), Qt::AlignRight | Qt::AlignVCenter, newest);
  p.setFont(word_font());
  p.drawText(QRectF(box.left() + 2, box.top(), box.width() - right - 6, words.lineSpacing()), Qt::AlignVCenter,
             words.elidedText(chart.title, Qt::ElideRight, int(box.width()) - right - 6));
  p.setPen(color(theme.muted));
  p.drawText(QRectF(box.left() + 2, inner.bottom() + 2, box.width() - 4, words.lineSpacing()), Qt::AlignVCenter,
             words.elidedText(chart.unit, Qt::ElideRight, int(box.width()) - 4));

  p.setPen(QPen(color(theme.line), 1));
  p.drawLine(inner.bottomLeft(), inner.bottomRight());
  const double span = high > low ? high - low : 1;
  const auto at = [&](size_t i, double value) {
    const double x = points > 1 ? inner.left() + 4 + (inner.width() - 8) * double(i) / double(points - 1) : inner.center().x();
    return QPointF(x, inner.bottom() - 3 - (inner.height() - 6) * (value - low) / span);
  };
  for (auto curve = chart.curves.rbegin(); curve != chart.curves.rend(); ++curve) {
    const QColor ink = color(curve->second ? theme.muted : theme.edit, which == 1 ? 170 : 255);
    p.setPen(QPen(ink, curve->second ? 1 : 1.5));
    p.setBrush(Qt::NoBrush);
    QPainterPath path;
    for (size_t i = 0; i < curve->values.size(); ++i) i == 0 ? path.moveTo(at(i, curve->values[i])) : path.lineTo(at(i, curve->values[i]));
    p.drawPath(path);
    if (points > 40 || which == 1) continue;
    p.setPen(Qt::NoPen);
    p.setBrush(ink);
    for (size_t i = 0; i < curve->values.size(); ++i) p.drawEllipse(at(i, curve->values[i]), curve->second ? 1.5 : 2.5, curve->second ? 1.5 : 2.5);
  }
}

bool AdaptationPlot::event(QEvent* event) {
  return show_tip(this, event, [this](const QPoint& at) { return sentence_at(at); }) || QWidget::event(event);
}

QString AdaptationPlot::sentence_at(const QPoint& at) const {
  if (!state_ || state_->log.empty()) return {};
  for (size_t chart = 0; chart < charts_.size(); ++chart) {
    if (!cell(chart).contains(at)) continue;
    const QRectF inner = area(chart);
    const size_t count = state_->log.size();
    const double share = std::clamp((at.x() - inner.left()) / inner.width(), 0.0, 1.0);
    const AdaptationEntry& entry = state_->log[std::min(count - 1, size_t(std::lround(share * double(count - 1))))];
    const auto number = [](double value, int decimals) { return QLocale::c().toString(value, 'f', decimals); };
    return tr("step %1, token %2: loss %3 to %4, %5 % rerouted, path distance %6")
        .arg(entry.number)
        .arg(entry.token)
        .arg(number(entry.loss_before, 4), number(entry.loss_after, 4), number(100 * entry.rerouted, 1), number(entry.path_distance, 2));
  }
  return {};
}

}  // namespace switchyard
