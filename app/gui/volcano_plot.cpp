// Points, threshold, labels that do not touch. GUI thread.
#include "app/gui/volcano_plot.h"

#include <algorithm>
#include <cmath>

#include <QPainter>

#include "app/gui/line_style.h"
#include "app/gui/style.h"
#include "engine/analysis/contrast.h"
#include "views/plot/axes.h"

namespace switchyard {
namespace {

constexpr int kMostLabels = 10;   // of the strongest
constexpr int kMostTold = 4;      // points that one tooltip names
constexpr double kReach = 6;      // pixels between a point and the pointer
constexpr double kMarkHalf = 4;   // pixels that a mark keeps free of text

QString number(double value) { return QString::number(value, 'g', 4); }

QRectF around(const QPointF& at) { return {at.x() - kMarkHalf, at.y() - kMarkHalf, 2 * kMarkHalf, 2 * kMarkHalf}; }

}  // namespace

VolcanoPlot::VolcanoPlot(const ResultTable& table, const TestColumns& columns, const QStringList& sides)
    : sides_(sides.size() == 2 ? sides : QStringList{"A", "B"}), effect_(QString::fromStdString(table.columns[columns.effect])) {
  double widest = 0, highest = -std::log10(kSignificanceLevel);
  for (size_t r = 0; r < table.rows.size(); ++r) {
    const auto& row = table.rows[r];
    if (!row[columns.effect].is_number() || !row[columns.q].is_number()) continue;
    Point point;
    point.row = r;
    for (size_t c = 0; c < table.columns.size(); ++c) {
      if (!is_key(table.columns[c]) || row[c].is_null()) continue;
      const bool expert = table.columns[c] == "index" || table.columns[c] == "expert";
      const QString name = expert ? tr("expert") : QString::fromStdString(table.columns[c]), value = QString::fromStdString(cell_text(row[c], 6));
      point.words += (point.words.isEmpty() ? "" : ", ") + name + " " + value;
      point.label += (point.label.isEmpty() ? "" : " ") + (expert ? "E" + value : table.columns[c] == "layer" ? "L" + value : value);
    }
    point.effect = row[columns.effect].get<double>();
    point.q = row[columns.q].get<double>();
    point.significant = point.q < kSignificanceLevel;
    significant_ += point.significant;
    zeros_ += point.q <= 0;
    widest = std::max(widest, std::abs(point.effect));
    if (point.q > 0) highest = std::max(highest, -std::log10(point.q));
    points_.push_back(std::move(point));
  }
  std::stable_sort(points_.begin(), points_.end(), [](const Point& a, const Point& b) {
    return a.q != b.q ? a.q < b.q : std::abs(a.effect) > std::abs(b.effect);
  });
  x_step_ = nice_ceiling(widest / 3);
  x_end_ = std::max(1.0, std::ceil(widest / x_step_ - 1e-9)) * x_step_;
  y_step_ = nice_ceiling(highest / 5);
  y_end_ = std::ceil(highest * 1.02 / y_step_) * y_step_;
}

QString VolcanoPlot::title() const { return tr("−log₁₀ q"); }
QString VolcanoPlot::effect_title() const { return tr("%1: rate in %2 − rate in %3 (share of tokens)").arg(effect_, sides_[0], sides_[1]); }

QString VolcanoPlot::count() const {
  const QString below = tr("%1 of %2 with q < %3").arg(significant_).arg(points_.size()).arg(number(kSignificanceLevel));
  return zeros_ == 0 ? below : tr("%1, %2 with q = 0 at the top").arg(below).arg(zeros_);
}

QString VolcanoPlot::strongest(int most) const {
  QStringList lines;
  for (const Point& point : points_)
    if (point.significant && lines.size() < most) lines << words(point);
  return lines.join("; ");
}

QStringList VolcanoPlot::series() const { return {tr("more in %1").arg(sides_[0]), tr("more in %1").arg(sides_[1])}; }

int VolcanoPlot::label_width() const {
  const QFontMetrics numbers(number_font());
  int widest = zeros_ > 0 ? numbers.horizontalAdvance("q = 0") : 0;
  for (int i = 0; i * y_step_ <= y_end_ * 1.001; ++i) widest = std::max(widest, numbers.horizontalAdvance(number(i * y_step_)));
  return widest;
}

double VolcanoPlot::height_of(const Point& point) const { return point.q > 0 ? -std::log10(point.q) / y_end_ : 1; }

QRectF VolcanoPlot::inner(const QRectF& area) const {
  const double band = zeros_ > 0 ? QFontMetrics(number_font()).lineSpacing() * 1.2 : 0;
  return area.adjusted(0, band, 0, 0);
}

QPointF VolcanoPlot::place(const Point& point, const QRectF& area) const {
  const QRectF free = inner(area);
  const double x = area.center().x() + point.effect / x_end_ * area.width() / 2;
  return {x, point.q > 0 ? free.bottom() - height_of(point) * free.height() : (area.top() + free.top()) / 2};
}

QString VolcanoPlot::words(const Point& point) const {
  const QString q = point.q > 0 ? number(point.q) : tr("0 (too small for a number; drawn at the top)");
  return tr("%1: %2 %3, q %4").arg(point.words, effect_, QString::number(point.effect, 'g', 7), q);
}

std::vector<std::pair<double, const VolcanoPlot::Point*>> VolcanoPlot::near(const QPointF& at, const QRectF& area) const {
  std::vector<std::pair<double, const Point*>> found;
  for (const Point& point : points_) {
    const QPointF away = place(point, area) - at;
    const double distance = std::hypot(away.x(), away.y());
    if (distance <= kReach) found.emplace_back(distance, &point);
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return found;
}

QString VolcanoPlot::value_at(const QPointF& at, const QRectF& area) const {
  const auto found = near(at, area);
  QStringList lines;
  for (const auto& [distance, point] : found)
    if (lines.size() < kMostTold) lines << words(*point);
  if (found.size() > kMostTold) lines << tr("and %1 more here").arg(found.size() - kMostTold);
  return lines.join('\n');
}

std::optional<size_t> VolcanoPlot::row_at(const QPointF& at, const QRectF& area) const {
  const auto found = near(at, area);
  return found.empty() ? std::nullopt : std::optional(found.front().second->row);
}

std::optional<QPointF> VolcanoPlot::place_of(size_t row, const QRectF& area) const {
  const auto found = std::find_if(points_.begin(), points_.end(), [row](const Point& point) { return point.row == row; });
  return found == points_.end() ? std::nullopt : std::optional(place(*found, area));
}

void VolcanoPlot::paint_axes(QPainter& p, const QRectF& area) const {
  const Theme& theme = current_theme();
  const QFontMetrics numbers(number_font());
  const int line = numbers.lineSpacing();
  const QRectF free = inner(area);
  const auto across = [&](double y, const QString& name) {
    p.setPen(color(theme.line));
    p.drawLine(QPointF(area.left(), y), QPointF(area.right(), y));
    p.setPen(color(theme.muted));
    p.drawText(QRectF(0, y - line / 2.0, area.left() - 5, line), Qt::AlignVCenter | Qt::AlignRight, name);
  };
  const int rows = int(std::lround(y_end_ / y_step_));
  const int row_step = std::max(1, int(std::ceil(line * 1.2 * rows / std::max(free.height(), 1.0))));
  for (int i = 0; i <= rows; i += row_step) across(free.bottom() - free.height() * i / rows, number(i * y_step_));
  if (zeros_ > 0) across((area.top() + free.top()) / 2, "q = 0");

  // The middle always; to both sides every n-th, so that the numbers do not touch.
  const int ticks = int(std::lround(x_end_ / x_step_));
  double widest = 0;
  for (int i = 1; i <= ticks; ++i) widest = std::max(widest, double(numbers.horizontalAdvance(number(-i * x_step_))));
  const double step = area.width() / 2 / ticks;
  const int every = std::max(1, int(std::ceil((widest + 10) / std::max(step, 1.0))));
  for (int i = -ticks; i <= ticks; ++i) {
    if (i % every != 0) continue;
    const double x = area.center().x() + step * i;
    p.setPen(i == 0 ? QPen(color(theme.muted), 1) : QPen(color(theme.line), 1));
    p.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()));
    p.setPen(color(theme.muted));
    const double left = std::min(x - widest / 2 - 4, area.right() + 10 - widest - 8);  // the last does not leave the picture
    p.drawText(QRectF(left, area.bottom() + 2, widest + 8, line), Qt::AlignHCenter, number(i * x_step_));
  }
}

void VolcanoPlot::paint(QPainter& p, const QRectF& area) const {
  const Theme& theme = current_theme();
  p.setFont(number_font());
  p.setRenderHint(QPainter::Antialiasing, false);
  paint_axes(p, area);
  const QFontMetrics numbers(number_font());
  const double level = inner(area).bottom() + std::log10(kSignificanceLevel) / y_end_ * inner(area).height();
  p.setPen(QPen(color(theme.edit), 1, Qt::DashLine));
  p.drawLine(QPointF(area.left(), level), QPointF(area.right(), level));

  p.setRenderHint(QPainter::Antialiasing);
  std::vector<QRectF> taken;
  // The strongest come last, on top.
  for (auto point = points_.rbegin(); point != points_.rend(); ++point) {
    const QPointF at = place(*point, area);
    if (point->significant) {
      const int side = point->effect < 0;
      draw_mark(p, side, at, color(series_color(side, theme)));
      taken.push_back(around(at));
    } else {
      p.setPen(Qt::NoPen);
      p.setBrush(color(theme.faint));
      p.drawEllipse(at, 1.8, 1.8);
    }
  }
  if (const auto at = marked_ ? place_of(*marked_, area) : std::nullopt) {
    p.setPen(QPen(color(theme.text), 1.5));
    p.setBrush(Qt::NoBrush);
    p.drawEllipse(*at, kReach, kReach);
  }
  // At the end of the line with fewer points beside it.
  const QString name = tr("q = %1").arg(number(kSignificanceLevel));
  const QSizeF size(numbers.horizontalAdvance(name) + 4, numbers.lineSpacing());
  const double tops[] = {level - size.height(), level + 1};
  QRectF best;
  for (const double x : {area.right() - size.width(), area.left() + 2})
    for (const double top : tops) {
      const QRectF box({x, top}, size);
      if (best.isNull() && area.contains(box) && std::none_of(points_.begin(), points_.end(), [&](const Point& one) { return box.intersects(around(place(one, area))); })) best = box;
    }
  if (!best.isNull()) {
    p.setPen(color(theme.edit));
    p.drawText(best, Qt::AlignCenter, name);
    taken.push_back(best);
  }
  paint_labels(p, area, std::move(taken));
}

// Beside, above or under its point, wherever it touches neither a mark nor another name; else not at all.
void VolcanoPlot::paint_labels(QPainter& p, const QRectF& area, std::vector<QRectF> taken) const {
  const QFontMetrics numbers(number_font());
  p.setPen(color(current_theme().text));
  int written = 0;
  for (const Point& point : points_) {
    if (!point.significant || written == kMostLabels) break;
    const QPointF at = place(point, area);
    const double w = numbers.horizontalAdvance(point.label) + 2, h = numbers.lineSpacing() * 0.9, gap = kMarkHalf + 2;
    const QPointF corners[] = {{at.x() + gap, at.y() - h / 2}, {at.x() - gap - w, at.y() - h / 2}, {at.x() - w / 2, at.y() - gap - h}, {at.x() - w / 2, at.y() + gap}};
    for (const QPointF& corner : corners) {
      const QRectF box(corner, QSizeF(w, h));
      if (!area.contains(box) || std::any_of(taken.begin(), taken.end(), [&](const QRectF& other) { return box.intersects(other); })) continue;
      p.drawText(box, Qt::AlignCenter, point.label);
      taken.push_back(box);
      ++written;
      break;
    }
  }
}

}  // namespace switchyard
