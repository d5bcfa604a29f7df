// See effect_bars.h.
#include "app/gui/effect_bars.h"

#include <algorithm>

#include <QMouseEvent>
#include <QPainter>

#include "app/gui/style.h"
#include "app/gui/words.h"

namespace switchyard {
namespace {

double difference(const PositionEffect& effect) { return effect.nll_edited - effect.nll_base; }
QString number(double value) { return QString::number(value, 'g', 3); }

}  // namespace

EffectBars::EffectBars(std::function<QString(uint64_t token)> words, QWidget* parent) : QWidget(parent), words_(std::move(words)) {
  setObjectName("effects.bars");
  setAccessibleName(tr("NLL after the edits minus before, token by token"));
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

QSize EffectBars::minimumSizeHint() const { return {140, QFontMetrics(word_font()).lineSpacing() * 4}; }

void EffectBars::show_effect(std::shared_ptr<const TextEffect> effect) {
  effect_ = std::move(effect);
  low_ = high_ = 0;
  if (effect_)
    for (const PositionEffect& one : effect_->effect.positions()) low_ = std::min(low_, difference(one)), high_ = std::max(high_, difference(one));
  setAccessibleDescription(effect_ ? tr("%1 to %2 nat over %3 tokens").arg(number(low_), number(high_)).arg(effect_->effect.positions().size()) : QString());
  update();
}

void EffectBars::show_cursor(std::optional<uint64_t> token) {
  shown_ = token;
  update();
}

QRectF EffectBars::area() const {
  const QFontMetrics numbers(number_font());
  const int label = std::max(numbers.horizontalAdvance(number(high_)), numbers.horizontalAdvance(number(low_)));
  const int line = QFontMetrics(word_font()).lineSpacing();
  return QRectF(rect()).adjusted(label + 8, line * 1.4, -4, -line * 1.2);
}

// The first token is not predicted: bars begin at 1.
QRectF EffectBars::bar(uint64_t token) const {
  const QRectF inner = area();
  const double slot = inner.width() / double(effect_->effect.positions().size()), span = high_ > low_ ? high_ - low_ : 1;
  const double value = difference(*effect_->at(token));
  const auto y = [&](double v) { return inner.bottom() - (v - low_) / span * inner.height(); };
  const double gap = slot > 4 ? 1 : 0;
  return QRectF(QPointF(inner.left() + double(token - 1) * slot, y(std::max(value, 0.0))), QPointF(inner.left() + double(token) * slot - gap, y(std::min(value, 0.0))));
}

std::optional<uint64_t> EffectBars::token_at(const QPointF& at) const {
  const QRectF inner = area();
  if (!effect_ || at.x() < inner.left() || at.x() >= inner.right()) return std::nullopt;
  const size_t count = effect_->effect.positions().size();
  return 1 + std::min(count - 1, size_t((at.x() - inner.left()) / inner.width() * double(count)));
}

void EffectBars::paintEvent(QPaintEvent*) {
  if (!effect_) return;
  QPainter p(this);
  const Theme& theme = current_theme();
  const QRectF inner = area();
  const int line = QFontMetrics(word_font()).lineSpacing();
  p.setFont(word_font());
  p.setPen(color(theme.text));
  p.drawText(QRectF(2, 0, width() - 4, line * 1.2), Qt::AlignVCenter,
             QFontMetrics(word_font()).elidedText(tr("NLL after − before, nat; up: less likely under the edits"), Qt::ElideRight, width() - 4));
  const double zero = inner.bottom() + low_ / (high_ > low_ ? high_ - low_ : 1) * inner.height();
  if (shown_ && effect_->at(*shown_)) {
    const QRectF column = bar(*shown_);
    p.fillRect(QRectF(column.left(), inner.top(), std::max(column.width(), 2.0), inner.height()), color(theme.selection, 90));
  }
  for (uint64_t token = 1; token < effect_->tokens(); ++token) {
    QRectF one = bar(token);
    one.setWidth(std::max(one.width(), 1.0));
    p.fillRect(one, difference(*effect_->at(token)) > 0 ? color(theme.edit) : color(theme.selection));
  }
  p.setPen(QPen(color(theme.line), 1));
  p.drawLine(QPointF(inner.left(), zero), QPointF(inner.right(), zero));
  p.setPen(color(theme.muted));
  p.setFont(number_font());
  const auto height_label = [&](double y, double value) {
    p.drawText(QRectF(0, y - line / 2.0, inner.left() - 4, line), Qt::AlignVCenter | Qt::AlignRight, number(value));
  };
  height_label(zero, 0);
  if (zero - inner.top() > line) height_label(inner.top(), high_);
  if (inner.bottom() - zero > line) height_label(inner.bottom(), low_);
  p.drawText(QRectF(inner.left(), height() - line, inner.width(), line), Qt::AlignLeft | Qt::AlignVCenter, "1");
  p.drawText(QRectF(inner.left(), height() - line, inner.width(), line), Qt::AlignRight | Qt::AlignVCenter, QString::number(effect_->tokens() - 1));
  p.setFont(word_font());
  p.drawText(QRectF(inner.left(), height() - line, inner.width(), line), Qt::AlignCenter, tr("token"));
}

void EffectBars::mousePressEvent(QMouseEvent* event) {
  const auto token = event->button() == Qt::LeftButton ? token_at(event->position()) : std::nullopt;
  if (!token) return QWidget::mousePressEvent(event);
  Q_EMIT token_clicked(*token);
}

bool EffectBars::event(QEvent* event) {
  return show_tip(this, event, [this](const QPoint& at) {
    const auto token = token_at(at);
    return token ? words_(*token) : QString();
  }) || QWidget::event(event);
}

}  // namespace switchyard
