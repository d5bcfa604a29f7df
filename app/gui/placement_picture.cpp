// Two matrices, their axes and the legend of GPUs. GUI thread.
#include "app/gui/placement_picture.h"

#include <algorithm>
#include <cmath>

#include <QPainter>

#include "app/gui/style.h"
#include "app/gui/words.h"

namespace switchyard {
namespace {

constexpr int kMostSwatches = 32;  // GPUs that the legend names one by one

int line_height() { return QFontMetrics(word_font()).lineSpacing(); }
int label_width() { return QFontMetrics(number_font()).horizontalAdvance("000") + 6; }

}  // namespace

PlacementPicture::PlacementPicture(QWidget* parent) : QWidget(parent) {
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

QSize PlacementPicture::minimumSizeHint() const { return {140, line_height() * 4}; }
QSize PlacementPicture::sizeHint() const { return {480, line_height() * 14}; }

void PlacementPicture::show_placement(PlacedExperts placed, const QString& before, const QString& after) {
  placed_ = std::move(placed);
  before_ = before;
  after_ = after;
  const ExpertPlaces& places = placed_->places;
  setAccessibleName(tr("Placement of %1 experts in each of %2 layers on %3 GPUs").arg(places.experts()).arg(places.layers()).arg(places.gpus()));
  update();
}

// The first copy of an expert that has several; the table names them all.
ChartSpec PlacementPicture::chart() const {
  ChartSpec out;
  if (!placed_) return out;
  out.name = "placement", out.title = after_.toStdString(), out.quantity = "GPU", out.row_title = "layer", out.column_title = "expert";
  out.categories = true;
  for (int expert = 0; expert < placed_->places.experts(); ++expert) out.columns.push_back(std::to_string(expert));
  for (int row = 0; row < placed_->places.layers(); ++row) {
    out.rows.push_back(std::to_string(placed_->layers[size_t(row)]));
    for (int expert = 0; expert < placed_->places.experts(); ++expert) out.values.emplace_back(gpus_of(false, row, expert).front());
  }
  return out;
}

std::vector<int> PlacementPicture::gpus_of(bool before, int row, int expert) const {
  if (before) return {placed_->contiguous[size_t(expert)]};
  const auto of = placed_->places.of(row, expert);
  return {of.begin(), of.end()};
}

double PlacementPicture::legend_step() const {
  return QFontMetrics(number_font()).horizontalAdvance(QString::number(placed_->places.gpus() - 1)) + line_height() * 0.8 + 14;
}

// Where the cells themselves would have no room there is no legend; hovering names the GPUs.
int PlacementPicture::legend_rows() const {
  if (!roomy(8)) return 0;
  const int gpus = placed_->places.gpus();
  if (gpus > kMostSwatches) return 1;
  const int across = std::max(1, int((width() - 60) / legend_step()));
  return (gpus + across - 1) / across;
}

std::vector<QRectF> PlacementPicture::matrices() const {
  const int line = line_height(), left = label_width();
  const double top = line * (1.3 * legend_rows() + 0.2);
  const QRectF all(0, top, width(), height() - top);
  // Above the cells a title, under them numbers and the name of the axis.
  const auto cells = [&](const QRectF& of) { return of.adjusted(left, line * 1.5, -8, -line * (roomy(11) ? 2.1 : 1.1)); };
  if (placed_->contiguous.empty()) return {cells(all)};
  const double w = all.width() / 2, h = all.height() / 2;
  const QRectF beside = cells({0, top, w, all.height()}), above = cells({0, top, all.width(), h});
  // Whichever gives the cells more room.
  const auto room = [](const QRectF& of) { return std::max(of.width(), 0.0) * std::max(of.height(), 0.0); };
  if (room(beside) >= room(above)) return {beside, beside.translated(w, 0)};
  return {above, above.translated(0, h)};
}

bool PlacementPicture::roomy(double lines) const { return height() > line_height() * lines; }

QColor PlacementPicture::gpu_color(int gpu) const {
  const int gpus = placed_->places.gpus();
  if (gpus <= kCategories) return color(category_color(gpu));
  return color(map_color(ColorMap::kViridis, double(gpu) / double(gpus - 1), current_theme()));
}

QString PlacementPicture::value_at(const QPoint& at) const {
  if (!placed_) return {};
  const ExpertPlaces& places = placed_->places;
  for (const QRectF& area : matrices()) {
    if (!area.contains(at)) continue;
    const int row = std::min(int((at.y() - area.y()) / area.height() * places.layers()), places.layers() - 1);
    const int expert = std::min(int((at.x() - area.x()) / area.width() * places.experts()), places.experts() - 1);
    QStringList gpus;
    for (const int gpu : places.of(row, expert)) gpus << QString::number(gpu);
    QString words = gpus.size() == 1 ? tr("layer %1, expert %2: GPU %3") : tr("layer %1, expert %2: copies on GPUs %3");
    words = words.arg(placed_->layers[size_t(row)]).arg(expert).arg(gpus.join(", "));
    return placed_->contiguous.empty() ? words : tr("%1; contiguous: GPU %2").arg(words).arg(placed_->contiguous[size_t(expert)]);
  }
  return {};
}

bool PlacementPicture::event(QEvent* event) {
  return show_tip(this, event, [this](const QPoint& at) { return value_at(at); }) || QWidget::event(event);
}

// Each GPU's colour and number; of very many the first and the last.
void PlacementPicture::paint_legend(QPainter& p) const {
  const int gpus = placed_->places.gpus(), line = line_height();
  const double side = line * 0.8, step = legend_step();
  p.setFont(word_font());
  p.setPen(color(current_theme().muted));
  p.drawText(QRectF(4, 0, 52, line * 1.3), Qt::AlignVCenter, tr("GPU"));
  const double left = 8 + QFontMetrics(word_font()).horizontalAdvance(tr("GPU")) + 8;
  p.setFont(number_font());
  if (gpus > kMostSwatches) {
    const QRectF bar(left + 16, line * 0.25, std::max(60.0, width() - left - 90), side);
    for (int x = 0; x < int(bar.width()); ++x)
      p.fillRect(QRectF(bar.x() + x, bar.y(), 1.5, side), gpu_color(int(x / bar.width() * gpus)));
    p.drawText(QRectF(bar.x() - 16, 0, 14, line * 1.3), Qt::AlignVCenter | Qt::AlignRight, "0");
    p.drawText(QRectF(bar.right() + 4, 0, 60, line * 1.3), Qt::AlignVCenter, QString::number(gpus - 1));
    return;
  }
  const int across = std::max(1, int((width() - 60) / step));
  for (int gpu = 0; gpu < gpus; ++gpu) {
    const double x = left + gpu % across * step, y = gpu / across * line * 1.3;
    p.fillRect(QRectF(x, y + line * 0.25, side, side), gpu_color(gpu));
    p.setPen(color(current_theme().text));
    p.drawText(QRectF(x + side + 3, y, step, line * 1.3), Qt::AlignVCenter, QString::number(gpu));
  }
}

void PlacementPicture::paint_matrix(QPainter& p, const QRectF& area, bool before) const {
  const Theme& theme = current_theme();
  const ExpertPlaces& places = placed_->places;
  const int line = line_height(), rows = places.layers(), experts = places.experts();
  const QFontMetrics numbers(number_font());
  const double w = area.width() / experts, h = area.height() / rows;
  const double gap = w >= 6 && h >= 6 ? 1 : 0;
  const bool numbered = h >= numbers.height() && w >= numbers.horizontalAdvance(QString::number(places.gpus() - 1)) + 4;
  p.setFont(number_font());
  for (int row = 0; row < rows; ++row) {
    for (int expert = 0; expert < experts; ++expert) {
      const auto gpus = gpus_of(before, row, expert);
      const double strip = (w - gap) / double(gpus.size());
      for (size_t copy = 0; copy < gpus.size(); ++copy) {
        const QRectF box(area.x() + w * expert + strip * double(copy), area.y() + h * row, strip + (gap > 0 ? 0 : 0.5), h - gap + (gap > 0 ? 0 : 0.5));
        const QColor fill = gpu_color(gpus[copy]);
        p.fillRect(box, fill);
        if (!numbered || gpus.size() > 1) continue;
        const Rgb ground{uint8_t(fill.red()), uint8_t(fill.green()), uint8_t(fill.blue())}, black{}, white{255, 255, 255};
        p.setPen(color(contrast_ratio(ground, black) > contrast_ratio(ground, white) ? black : white));
        p.drawText(box, Qt::AlignCenter, QString::number(gpus[copy]));
      }
    }
  }
  p.setPen(color(theme.muted));
  const auto every = [](double room, double needed) { return std::max(1, int(std::ceil(needed / std::max(room, 0.01)))); };
  for (int row = 0; row < rows; row += every(h, line))
    p.drawText(QRectF(area.x() - label_width(), area.y() + h * (row + 0.5) - line / 2.0, label_width() - 5, line), Qt::AlignVCenter | Qt::AlignRight,
               QString::number(placed_->layers[size_t(row)]));
  for (int expert = 0; expert < experts; expert += every(w, numbers.horizontalAdvance("000") + 6))
    p.drawText(QRectF(area.x() + w * (expert + 0.5) - 30, area.bottom() + 1, 60, line), Qt::AlignHCenter, QString::number(expert));
  p.setFont(word_font());
  const QString axes = tr("expert across, layer down");
  const bool fits = QFontMetrics(word_font()).horizontalAdvance(axes) <= area.width();
  if (roomy(11)) p.drawText(QRectF(area.x(), area.bottom() + line, area.width(), line), Qt::AlignHCenter, fits ? axes : tr("expert"));
  p.setPen(color(theme.text));
  const QString title = QFontMetrics(word_font()).elidedText(before ? before_ : after_, Qt::ElideRight, int(area.width()));
  p.drawText(QRectF(area.x(), area.y() - line * 1.4, area.width(), line * 1.3), Qt::AlignVCenter | Qt::AlignLeft, title);
}

void PlacementPicture::paintEvent(QPaintEvent*) {
  if (!placed_) return;
  QPainter p(this);
  if (legend_rows() > 0) paint_legend(p);
  const auto areas = matrices();
  for (size_t i = 0; i < areas.size(); ++i) paint_matrix(p, areas[i], areas.size() == 2 && i == 0);
}

}  // namespace switchyard
