// Ribbons and axes of a flow. GUI thread.
#include "app/gui/flow_plot.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <QPainter>
#include <QPainterPath>

#include "app/gui/style.h"

namespace switchyard {
namespace {

constexpr int kMostTold = 4;       // ribbons that one tooltip names
constexpr double kReach = 2;       // pixels beside a ribbon that still count as on it
constexpr double kThinnest = 1;    // pixels
constexpr double kFaintest = 0.3;  // opacity

struct PairColumns {
  size_t from = 0, to = 0, i = 0, j = 0, count = 0;
  std::optional<size_t> from_router, to_router;  // where a layer decides several times
};

std::optional<PairColumns> pair_columns(const ResultTable& table) {
  PairColumns columns;
  for (const auto& [name, at] : {std::pair("from", &columns.from), {"to", &columns.to}, {"i", &columns.i}, {"j", &columns.j}, {"count", &columns.count}}) {
    const auto found = std::find(table.columns.begin(), table.columns.end(), name);
    if (found == table.columns.end()) return std::nullopt;
    *at = size_t(found - table.columns.begin());
  }
  for (const auto& [name, at] : {std::pair("from_router", &columns.from_router), {"to_router", &columns.to_router}})
    if (const auto found = std::find(table.columns.begin(), table.columns.end(), name); found != table.columns.end()) *at = size_t(found - table.columns.begin());
  return columns;
}

}  // namespace

QString FlowPlot::name_of(const ResultTable& table) { return !table.rows.empty() && pair_columns(table) ? tr("flow") : QString(); }

FlowPlot::FlowPlot(const ResultTable& table) {
  const auto columns = pair_columns(table);
  if (!columns) return;
  QString left, right;
  for (const auto& row : table.rows) {
    const auto named = [&](size_t layer, const std::optional<size_t>& router) {
      return QString::fromStdString(cell_text(row[router && row[*router].is_string() ? *router : layer], 6));
    };
    const QString from = named(columns->from, columns->from_router), to = named(columns->to, columns->to_router);
    if (columns_.empty() || from != left || to != right) {  // the next transition: it begins where the one before ended, or apart
      if (columns_.empty() || columns_.back() != from) columns_.push_back(from);
      columns_.push_back(to);
      left = from, right = to;
    }
    const Ribbon ribbon{int(columns_.size()) - 2, row[columns->i].get<int>(), row[columns->j].get<int>(), row[columns->count].get<double>()};
    experts_ = std::max({experts_, ribbon.from + 1, ribbon.to + 1});
    ribbons_.push_back(ribbon);
  }
  std::stable_sort(ribbons_.begin(), ribbons_.end(), [](const Ribbon& a, const Ribbon& b) { return a.count < b.count; });
  if (!ribbons_.empty()) thickest_ = std::max(ribbons_.back().count, 1.0);
}

QString FlowPlot::title() const { return tr("pairs of experts in neighbouring layers"); }

QString FlowPlot::facts() const {
  return tr("%1 ribbons, %2 to %3 tokens").arg(ribbons_.size()).arg(ribbons_.front().count, 0, 'g', 6).arg(thickest_, 0, 'g', 6);
}

QString FlowPlot::words(const Ribbon& ribbon) const {
  const auto layer = [&](int column) {
    const QString& name = columns_[size_t(column)];
    bool is_number = false;
    static_cast<void>(name.toInt(&is_number));
    return is_number ? tr("layer %1").arg(name) : name;
  };
  return tr("%1, expert %2 → %3, expert %4: %5").arg(layer(ribbon.column)).arg(ribbon.from).arg(layer(ribbon.column + 1)).arg(ribbon.to).arg(ribbon.count, 0, 'g', 9);
}

QString FlowPlot::strongest(int most) const {
  QStringList lines;
  for (auto ribbon = ribbons_.rbegin(); ribbon != ribbons_.rend() && lines.size() < most; ++ribbon) lines << words(*ribbon);
  return lines.join("; ");
}

int FlowPlot::label_width() const { return QFontMetrics(number_font()).horizontalAdvance(QString::number(experts_ - 1)); }

double FlowPlot::height_of(int expert, const QRectF& area) const { return area.top() + (expert + 0.5) / experts_ * area.height(); }
double FlowPlot::x_of(int column, const QRectF& area) const { return area.left() + column * area.width() / double(columns_.size() - 1); }

FlowPlot::Ends FlowPlot::ends(const Ribbon& ribbon, const QRectF& area) const {
  const double room = std::max(area.height() / experts_, 6.0);
  return {height_of(ribbon.from, area), height_of(ribbon.to, area), std::max(kThinnest, room * ribbon.count / thickest_) / 2};
}

QString FlowPlot::value_at(const QPointF& at, const QRectF& area) const {
  if (empty() || !area.adjusted(-kReach, -kReach, kReach, kReach).contains(at)) return {};
  QStringList lines;
  int more = 0;
  for (auto ribbon = ribbons_.rbegin(); ribbon != ribbons_.rend(); ++ribbon) {
    const double x0 = x_of(ribbon->column, area), x1 = x_of(ribbon->column + 1, area), t = (at.x() - x0) / (x1 - x0);
    if (t < 0 || t > 1) continue;
    const Ends e = ends(*ribbon, area);
    const double s = t * t * (3 - 2 * t);  // the curve that is painted: with its handles at the thirds x grows evenly with t
    if (std::abs(at.y() - (e.left + s * (e.right - e.left))) > e.half + kReach) continue;
    if (lines.size() < kMostTold) lines << words(*ribbon);
    else ++more;
  }
  if (more > 0) lines << tr("and %1 more here").arg(more);
  return lines.join('\n');
}

void FlowPlot::paint(QPainter& p, const QRectF& area) const {
  const Theme& theme = current_theme();
  const QFontMetrics numbers(number_font());
  const int line = numbers.lineSpacing();
  p.setFont(number_font());
  const int step = std::max(1, int(std::ceil(line * experts_ / std::max(area.height(), 1.0))));
  p.setPen(color(theme.muted));
  for (int expert = 0; expert < experts_; expert += step)
    p.drawText(QRectF(0, height_of(expert, area) - line / 2.0, area.left() - 5, line), Qt::AlignVCenter | Qt::AlignRight, QString::number(expert));
  double free_from = -1;
  for (int column = 0; column < int(columns_.size()); ++column) {
    const double x = x_of(column, area), half = numbers.horizontalAdvance(columns_[size_t(column)]) / 2.0 + 3;
    p.setPen(color(theme.line));
    p.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()));
    if (x - half < free_from) continue;
    p.setPen(color(theme.muted));
    const double left = std::clamp(x - half, 0.0, std::max(0.0, area.right() + 8 - 2 * half));
    p.drawText(QRectF(left, area.bottom() + 2, 2 * half, line), Qt::AlignHCenter, columns_[size_t(column)]);
    free_from = x + half;
  }
  p.setRenderHint(QPainter::Antialiasing);
  p.setPen(Qt::NoPen);
  for (const Ribbon& ribbon : ribbons_) {
    const double x0 = x_of(ribbon.column, area), x1 = x_of(ribbon.column + 1, area), third = (x1 - x0) / 3;
    const Ends e = ends(ribbon, area);
    QPainterPath path(QPointF(x0, e.left - e.half));
    path.cubicTo(x0 + third, e.left - e.half, x1 - third, e.right - e.half, x1, e.right - e.half);
    path.lineTo(x1, e.right + e.half);
    path.cubicTo(x1 - third, e.right + e.half, x0 + third, e.left + e.half, x0, e.left + e.half);
    QColor ink = color(series_color(ribbon.from % kCategories, theme));
    ink.setAlphaF(float(kFaintest + (0.9 - kFaintest) * ribbon.count / thickest_));
    p.fillPath(path, ink);
  }
}

}  // namespace switchyard
