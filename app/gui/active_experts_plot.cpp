// Bars, the mean and the model's own k. GUI thread.
#include "app/gui/active_experts_plot.h"

#include <algorithm>
#include <cmath>

#include <QLocale>
#include <QPainter>

#include "app/gui/style.h"
#include "app/gui/words.h"

namespace switchyard {

ActiveExpertsPlot::ActiveExpertsPlot(QWidget* parent) : QWidget(parent) {
  setAccessibleName(tr("Active experts per token"));
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

QSize ActiveExpertsPlot::sizeHint() const {
  return {240, QFontMetrics(word_font()).lineSpacing() * 9};
}
QSize ActiveExpertsPlot::minimumSizeHint() const {
  return {120, QFontMetrics(word_font()).lineSpacing() * 6};
}

void ActiveExpertsPlot::show_counts(const ActiveExperts& counts, int native, bool all_native) {
  counts_ = counts;
  native_ = native;
  all_native_ = all_native;
  QStringList words;
  for (size_t n = 0; n < counts_.tokens.size(); ++n)
    if (counts_.tokens[n] > 0) words << sentence(int(n));
  setAccessibleDescription(words.join(", "));
  update();
}

int ActiveExpertsPlot::columns() const {
  return std::max({int(counts_.tokens.size()), native_ + 2, 4});
}

QRectF ActiveExpertsPlot::plot() const {
  const int line = QFontMetrics(word_font()).lineSpacing();
  return QRectF(rect()).adjusted(4, line * 1.6, -4, -line * 2.4);
}

QString ActiveExpertsPlot::sentence(int experts) const {
  const uint64_t tokens = size_t(experts) < counts_.tokens.size() ? counts_.tokens[size_t(experts)] : 0;
  const double share = counts_.total > 0 ? 100.0 * double(tokens) / double(counts_.total) : 0;
  return tr("%1 experts: %2 of %3 tokens, %4 %")
      .arg(experts)
      .arg(tokens)
      .arg(counts_.total)
      .arg(QLocale::c().toString(share, 'f', 1));
}

bool ActiveExpertsPlot::event(QEvent* event) {
  return show_tip(this, event, [this](const QPoint& at) {
    const QRectF area = plot();
    const int column = int((at.x() - area.x()) / area.width() * columns());
    return counts_.total > 0 && column >= 0 && column < columns() ? sentence(column) : QString();
  }) || QWidget::event(event);
}

void ActiveExpertsPlot::paintEvent(QPaintEvent*) {
  QPainter p(this);
  p.setRenderHint(QPainter::Antialiasing);
  const Theme& theme = current_theme();
  const QFontMetrics words(word_font());
  const int line = words.lineSpacing();
  p.setFont(word_font());
  if (counts_.total == 0) {
    p.setPen(color(theme.muted));
    p.drawText(rect().adjusted(4, 2, -4, 0), Qt::AlignTop | Qt::TextWordWrap,
               tr("Active experts per token: counted as soon as tokens are routed."));
    return;
  }
  p.setPen(color(theme.text));
  const QString mean = tr("mean %1, native %2").arg(QLocale::c().toString(counts_.mean, 'f', 2)).arg(native_);
  const int right = QFontMetrics(number_font()).horizontalAdvance(mean) + 6;
  p.drawText(QRect(4, 0, std::max(0, width() - right - 12), line), Qt::AlignVCenter,
             words.elidedText(tr("Active experts, last %1 tokens").arg(counts_.total), Qt::ElideRight,
                              std::max(0, width() - right - 12)));
  p.setFont(number_font());
  p.drawText(QRect(width() - right - 4, 0, right, line), Qt::AlignVCenter | Qt::AlignRight, mean);

  const QRectF area = plot();
  const int bars = columns();
  const double slot = area.width() / bars;
  const uint64_t highest = *std::max_element(counts_.tokens.begin(), counts_.tokens.end());
  p.setPen(Qt::NoPen);
  for (int n = 0; n < bars; ++n) {
    const uint64_t tokens = size_t(n) < counts_.tokens.size() ? counts_.tokens[size_t(n)] : 0;
    if (tokens == 0) continue;
    const double height = std::max(1.0, area.height() * double(tokens) / double(highest));
    p.setBrush(color(all_native_ ? theme.selection : theme.edit));
    p.drawRect(QRectF(area.x() + n * slot + slot * 0.12, area.bottom() - height, slot * 0.76, height));
  }
  p.setPen(QPen(color(theme.line), 1));
  p.drawLine(area.bottomLeft(), area.bottomRight());
  const double at = area.x() + (native_ + 0.5) * slot;  // what the model itself would take
  p.setPen(QPen(color(theme.muted), 1, Qt::DashLine));
  p.drawLine(QPointF(at, area.top()), QPointF(at, area.bottom()));

  p.setPen(color(theme.muted));
  const int widest = QFontMetrics(number_font()).horizontalAdvance(QString::number(bars)) + 10;
  const int every = std::max(1, int(std::ceil(widest / slot)));
  for (int n = 0; n < bars; n += every)
    p.drawText(QRectF(area.x() + (n + 0.5) * slot - widest, area.bottom() + 2, 2 * widest, line), Qt::AlignHCenter,
               QString::number(n));
  p.setFont(word_font());
  p.drawText(QRectF(4, area.bottom() + 2 + line, width() - 8, line), Qt::AlignHCenter,
             words.elidedText(tr("experts a token takes; dashed: the model's own"), Qt::ElideRight, width() - 8));
}

}  // namespace switchyard
