// See tint_legend.h.
#include "app/gui/tint_legend.h"

#include <QPainter>

#include "app/gui/style.h"

namespace switchyard {

TintLegend::TintLegend(std::function<Scale()> scale, QWidget* parent) : QWidget(parent), scale_(std::move(scale)) {
  setAccessibleName(tr("Legend of the tint"));
}

QSize TintLegend::sizeHint() const { return {100, QFontMetrics(word_font()).height() + 6}; }

void TintLegend::paintEvent(QPaintEvent*) {
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  const Theme& theme = current_theme();
  const Scale scale = scale_();
  p.setPen(color(theme.muted));
  p.setFont(word_font());
  const QFontMetrics metrics(word_font());
  const int room = width() - (scale.right.isEmpty() ? 0 : metrics.horizontalAdvance(scale.right) + 8);
  p.drawText(rect(), Qt::AlignVCenter | Qt::AlignLeft, metrics.elidedText(scale.left, Qt::ElideRight, room));
  if (!scale.strongest.isValid()) return;
  p.drawText(rect(), Qt::AlignVCenter | Qt::AlignRight, scale.right);
  const double x0 = metrics.horizontalAdvance(scale.left) + 10, x1 = width() - metrics.horizontalAdvance(scale.right) - 10;
  if (x1 < x0 + 20) return;
  QLinearGradient gradient(x0, 0, x1, 0);
  gradient.setColorAt(0, color(theme.dock));
  gradient.setColorAt(1, scale.strongest);
  p.setBrush(gradient);
  p.setPen(QPen(color(theme.line), 1));
  p.drawRoundedRect(QRectF(x0, height() / 2.0 - 3.5, x1 - x0, 7), 3.5, 3.5);
}

}  // namespace switchyard
