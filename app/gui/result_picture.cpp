// Heat map, lines or volcano, axes, legend, tooltip. GUI thread.
#include "app/gui/result_picture.h"

#include <algorithm>
#include <cmath>

#include <QMouseEvent>
#include <QPainter>
#include <QPainterPath>

#include "app/gui/line_style.h"
#include "app/gui/style.h"
#include "app/gui/words.h"

namespace switchyard {
namespace {

constexpr size_t kMostMarks = 128; // points of a line that is alone
constexpr double kMarkEvery = 14;  // pixels between the marks of a line
constexpr int kSample = 26;        // width of a line's sample in the legend

QString number(double value) { return QString::number(value, 'g', 4); }

// The entry that draws a test as a volcano; empty: the table is none.
QString volcano_name(const ResultTable& table) {
  const auto test = test_columns(table);
  return test ? QObject::tr("%1 against %2").arg(QString::fromStdString(table.columns[test->effect]), QString::fromStdString(table.columns[test->q])) : QString();
}

size_t every(size_t count, double room, double needed) {
  return std::max<size_t>(1, size_t(std::ceil(needed * double(count) / std::max(room, 1.0))));
}

}  // namespace

ResultPicture::ResultPicture(QWidget* parent) : QWidget(parent) {
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

QSize ResultPicture::minimumSizeHint() const { return {140, QFontMetrics(word_font()).lineSpacing() * 4}; }
QSize ResultPicture::sizeHint() const { return {420, QFontMetrics(word_font()).lineSpacing() * 14}; }

QStringList ResultPicture::quantities(const ResultTable& table) {
  QStringList names;
  for (const std::string& name : chart_choices(table)) names << QString::fromStdString(name);
  return names;
}

QStringList ResultPicture::series() const {
  if (is_volcano()) return volcano_.series();
  if (is_flow()) return {};
  QStringList names;
  if (!heat_map_)
    for (const QString& name : row_names_)
      if (!name.isEmpty()) names << name;
  return names;
}

void ResultPicture::clear() {
  heat_map_ = false;
  volcano_ = {};
  flow_ = {};
  row_title_.clear(), column_title_.clear();
  row_names_.clear(), column_names_.clear(), places_.clear(), values_.clear(), pruned_.clear();
}

void ResultPicture::show_table(const ResultTable& table, const QString& quantity, const QStringList& sides) {
  clear();
  quantity_ = quantity;
  named_ = true;
  setAccessibleName(quantity.isEmpty() ? tr("No picture") : tr("%1 of %2").arg(quantity, QString::fromStdString(table.name)));
  setAccessibleDescription({});
  chart_ = chart_of(table, quantity.toStdString());
  if (chart_.kind == ChartKind::kPoints && sides.size() == 2) chart_.side_a = sides[0].toStdString(), chart_.side_b = sides[1].toStdString();
  const bool is_grid = chart_.kind == ChartKind::kHeatMap || chart_.kind == ChartKind::kMatrix;
  if (!quantity.isEmpty() && quantity == volcano_name(table)) {
    volcano_ = VolcanoPlot(table, *test_columns(table), sides);
    setAccessibleDescription(tr("%1. %2").arg(volcano_.count(), volcano_.strongest(5)));
    return update();
  }
  if (!quantity.isEmpty() && quantity == FlowPlot::name_of(table)) {
    flow_ = FlowPlot(table);
    setAccessibleDescription(tr("%1. %2").arg(flow_.facts(), flow_.strongest(5)));
    return update();
  }
  for (const std::string& name : chart_.rows) row_names_.push_back(chart_.rows.size() > 1 || is_grid ? QString::fromStdString(name) : QString());
  for (const std::string& name : chart_.columns) column_names_.push_back(QString::fromStdString(name));
  row_title_ = QString::fromStdString(chart_.row_title), column_title_ = QString::fromStdString(chart_.column_title);
  values_ = chart_.values;
  pruned_ = chart_.marked;
  heat_map_ = is_grid;
  find_range();
  find_places();
  update();
}

void ResultPicture::find_range() {
  low_ = high_ = 0;
  bool first = true;
  for (const auto& value : values_) {
    if (!value) continue;
    low_ = first ? *value : std::min(low_, *value);
    high_ = first ? *value : std::max(high_, *value);
    first = false;
  }
}

// Where all names are rising numbers a column stands at its number, else one after the other.
void ResultPicture::find_places() {
  const size_t count = column_names_.size();
  std::vector<double> at(count);
  bool rising = count > 1;
  for (size_t c = 0; c < count; ++c) {
    bool is_number = false;
    at[c] = column_names_[c].toDouble(&is_number);
    rising = rising && is_number && (c == 0 || at[c] > at[c - 1]);
  }
  const double step = rising ? (at[count - 1] - at[0]) / double(count - 1) : 1;
  places_.resize(count);
  for (size_t c = 0; c < count; ++c)
    places_[c] = rising ? (at[c] - at[0] + step / 2) / (at[count - 1] - at[0] + step) : (double(c) + 0.5) / double(count);
}

std::vector<QPointF> ResultPicture::legend_places() const {
  std::vector<QPointF> places;
  const QFontMetrics words(word_font());
  double x = 8, y = words.lineSpacing() * 1.4;
  for (const QString& name : series()) {
    const double wide = kSample + 6 + words.horizontalAdvance(name) + 14;
    if (x > 8 && x + wide > width() - 8) {
      x = 8;
      y += words.lineSpacing() * 1.1;
    }
    places.emplace_back(x, y);
    x += wide;
  }
  return places;
}

// Where the lines themselves would have no room there is no legend; hovering names them by their marks.
int ResultPicture::legend_rows() const {
  const auto places = legend_places();
  int rows = 0;
  for (size_t i = 0; i < places.size(); ++i) rows += i == 0 || places[i].y() > places[i - 1].y();
  return height() > QFontMetrics(word_font()).lineSpacing() * (6.5 + 1.1 * rows) ? rows : 0;
}

QRectF ResultPicture::plot() const {
  const QFontMetrics numbers(number_font());
  int label = numbers.horizontalAdvance("00");
  if (is_volcano()) {
    label = std::max(label, volcano_.label_width());
  } else if (is_flow()) {
    label = std::max(label, flow_.label_width());
  } else if (heat_map_) {
    for (const QString& name : row_names_) label = std::max(label, std::min(numbers.horizontalAdvance(name), 90));
  } else {
    for (const double value : {low_, (low_ + high_) / 2, high_}) label = std::max(label, numbers.horizontalAdvance(number(value)));
  }
  const int line = QFontMetrics(word_font()).lineSpacing();
  if (is_low()) return QRectF(rect()).adjusted(label + 12, line * 0.6, -10, -line * 1.3);
  return QRectF(rect()).adjusted(label + 12, line * (1.6 + 1.1 * legend_rows()), -10, -line * 2.3);
}

bool ResultPicture::is_low() const { return height() < QFontMetrics(word_font()).lineSpacing() * 7; }

QString ResultPicture::words(size_t row, size_t column) const {
  const auto& value = values_[row * column_names_.size() + column];
  QString shown = value ? QString::number(*value, 'g', 7) : tr("not defined");
  if (!pruned_.empty() && pruned_[row * column_names_.size() + column]) shown += tr(", pruned");
  return row_title_.isEmpty() ? tr("%1 %2: %3 %4").arg(column_title_, column_names_[column], row_names_[row].isEmpty() ? quantity_ : row_names_[row], shown)
                              : tr("%1 %2, %3 %4: %5 %6").arg(row_title_, row_names_[row], column_title_, column_names_[column], quantity_, shown);
}

QString ResultPicture::legend() const {
  QStringList lines;
  for (const QString& name : series()) lines << mark_text(int(lines.size())) + ' ' + name;
  return lines.join('\n');
}

// Of lines, every one at the nearest column, with its mark.
QString ResultPicture::value_at(const QPoint& at) const {
  const QRectF area = plot();
  if (is_volcano()) {
    const QString points = volcano_.value_at(at, area);
    return points.isEmpty() && legend_rows() == 0 ? legend() : points;
  }
  if (is_flow()) return flow_.value_at(at, area);
  if (values_.empty() || !area.contains(at)) return {};
  const double x = (at.x() - area.x()) / area.width(), y = (at.y() - area.y()) / area.height();
  const size_t rows = row_names_.size(), columns = column_names_.size();
  if (heat_map_) return words(std::min(size_t(y * double(rows)), rows - 1), std::min(size_t(x * double(columns)), columns - 1));
  const auto nearest = std::min_element(places_.begin(), places_.end(), [x](double a, double b) { return std::abs(a - x) < std::abs(b - x); });
  QStringList lines;
  for (size_t row = 0; row < rows; ++row)
    lines << (rows > 1 ? mark_text(int(row)) + ' ' : QString()) + words(row, size_t(nearest - places_.begin()));
  return lines.join('\n');
}

void ResultPicture::mark_row(std::optional<size_t> row) {
  volcano_.mark(row);
  update();
}

void ResultPicture::mousePressEvent(QMouseEvent* event) {
  const auto row = event->button() == Qt::LeftButton ? volcano_.row_at(event->position(), plot()) : std::nullopt;
  if (!row) return QWidget::mousePressEvent(event);
  Q_EMIT row_clicked(*row);
}

bool ResultPicture::event(QEvent* event) {
  return show_tip(this, event, [this](const QPoint& at) { return value_at(at); }) || QWidget::event(event);
}

void ResultPicture::paint_heat_map(QPainter& p, const QRectF& area) const {
  const Theme& theme = current_theme();
  const int line = QFontMetrics(word_font()).lineSpacing();
  const QFontMetrics numbers(number_font());
  const size_t rows = row_names_.size(), columns = column_names_.size();
  const double w = area.width() / double(columns), h = area.height() / double(rows);
  const double span = high_ > low_ ? high_ - low_ : 1;
  for (size_t cell = 0; cell < values_.size(); ++cell) {
    const QRectF box(area.x() + w * double(cell % columns), area.y() + h * double(cell / columns), w + 0.5, h + 0.5);
    p.fillRect(box, values_[cell] ? color(map_color(ColorMap::kCividis, (*values_[cell] - low_) / span, theme)) : color(theme.line));
    if (!pruned_.empty() && pruned_[cell]) p.fillRect(box, QBrush(color(theme.edit), Qt::BDiagPattern));
  }
  const size_t row_step = every(rows, area.height(), line), column_step = every(columns, area.width(), numbers.horizontalAdvance("000") + 6);
  for (size_t r = 0; r < rows; r += row_step)
    p.drawText(QRectF(0, area.y() + h * (double(r) + 0.5) - line / 2.0, area.x() - 5, line), Qt::AlignVCenter | Qt::AlignRight,
               numbers.elidedText(row_names_[r], Qt::ElideLeft, int(area.x()) - 8));
  for (size_t c = 0; c < columns; c += column_step)
    p.drawText(QRectF(area.x() + w * (double(c) + 0.5) - 30, area.bottom() + 2, 60, line), Qt::AlignHCenter, column_names_[c]);
}

void ResultPicture::paint_axes(QPainter& p, const QRectF& area) const {
  const Theme& theme = current_theme();
  const int line = QFontMetrics(word_font()).lineSpacing();
  const QFontMetrics numbers(number_font());
  for (const double share : {0.0, 0.5, 1.0}) {
    if (share == 0.5 && is_low()) continue;
    const double y = area.bottom() - share * area.height();
    p.setPen(color(theme.line));
    p.drawLine(QPointF(area.x(), y), QPointF(area.right(), y));
    p.setPen(color(theme.muted));
    p.drawText(QRectF(0, y - line / 2.0, area.x() - 5, line), Qt::AlignVCenter | Qt::AlignRight, number(low_ + share * (high_ > low_ ? high_ - low_ : 1)));
  }
  int longest = numbers.horizontalAdvance("000");
  for (const QString& name : column_names_) longest = std::max(longest, std::min(numbers.horizontalAdvance(name), 90));
  double free_from = area.x() - longest;  // a name is drawn where the one before leaves room
  for (size_t c = 0; c < column_names_.size(); ++c) {
    const double x = x_of(c, area);
    if (x - longest / 2.0 < free_from) continue;
    p.drawText(QRectF(x - 45, area.bottom() + 2, 90, line), Qt::AlignHCenter, column_names_[c]);
    free_from = x + longest / 2.0 + 8;
  }
}

// Where several columns fall on one pixel the line shows their lowest and highest.
void ResultPicture::paint_line(QPainter& p, const QRectF& area, size_t row) const {
  const double span = high_ > low_ ? high_ - low_ : 1;
  const size_t columns = column_names_.size();
  QPainterPath path;
  std::vector<QPointF> marks;
  bool broken = true;
  double lowest = 0, highest = 0;
  int pixel = -1;
  for (size_t c = 0; c < columns; ++c) {
    const auto& value = values_[row * columns + c];
    if (!value) {
      broken = true;
      continue;
    }
    const QPointF at(x_of(c, area), area.bottom() - (*value - low_) / span * area.height());
    if (broken || int(at.x()) != pixel) {
      broken ? path.moveTo(at) : path.lineTo(at);
      lowest = highest = at.y();
      pixel = int(at.x());
    } else if (at.y() < lowest || at.y() > highest) {
      path.lineTo(at);
      lowest = std::min(lowest, at.y());
      highest = std::max(highest, at.y());
    }
    if (marks.empty() || at.x() - marks.back().x() >= kMarkEvery) marks.push_back(at);
    broken = false;
  }
  const bool alone = row_names_.size() == 1;
  const QColor ink = alone ? color(current_theme().selection) : color(series_color(int(row), current_theme()));
  p.setPen(alone ? QPen(ink, 1.5) : line_pen(int(row), ink));
  p.setBrush(Qt::NoBrush);
  p.drawPath(path);
  if (alone && columns > kMostMarks) return;
  for (const QPointF& at : marks) draw_mark(p, alone ? 0 : int(row), at, ink);
}

void ResultPicture::paint_legend(QPainter& p) const {
  const Theme& theme = current_theme();
  const int line = QFontMetrics(word_font()).lineSpacing();
  const QStringList names = series();
  const auto places = legend_places();
  p.setFont(word_font());
  for (int i = 0; i < names.size(); ++i) {
    const QPointF at = places[size_t(i)];
    const QColor ink = color(series_color(i, theme));
    const double y = at.y() + line / 2.0;
    p.setPen(line_pen(i, ink));
    if (!is_volcano()) p.drawLine(QPointF(at.x(), y), QPointF(at.x() + kSample, y));
    draw_mark(p, i, {at.x() + kSample / 2.0, y}, ink);
    p.setPen(color(theme.text));
    p.drawText(QRectF(at.x() + kSample + 6, at.y(), width(), line), Qt::AlignVCenter | Qt::AlignLeft, names[i]);
  }
}

// What is drawn on the left, its range or count on the right.
void ResultPicture::paint_titles(QPainter& p) const {
  const Theme& theme = current_theme();
  const QRectF row(4, 0, width() - 8, QFontMetrics(word_font()).lineSpacing() * 1.3);
  const QFontMetrics words(word_font()), numbers(number_font());
  const QString title = words.elidedText(is_volcano() ? volcano_.title() : is_flow() ? flow_.title() : quantity_, Qt::ElideRight, width() / 2);
  p.setFont(word_font());
  p.setPen(color(theme.text));
  p.drawText(row, Qt::AlignVCenter, title);
  p.setFont(number_font());
  p.setPen(color(theme.muted));
  const QString facts = is_volcano() ? volcano_.count() : is_flow() ? flow_.facts()
                        : (pruned_.empty() ? tr("%1 to %2") : tr("%1 to %2, hatched: pruned")).arg(number(low_), number(high_));
  p.drawText(row, Qt::AlignVCenter | Qt::AlignRight, numbers.elidedText(facts, Qt::ElideRight, int(row.width()) - words.horizontalAdvance(title) - 12));
}

void ResultPicture::paintEvent(QPaintEvent*) {
  QPainter p(this);
  const Theme& theme = current_theme();
  const int line = QFontMetrics(word_font()).lineSpacing();
  p.setFont(word_font());
  if (values_.empty() && !is_volcano() && !is_flow()) {
    p.setPen(color(theme.muted));
    p.drawText(rect().adjusted(8, 4, -8, 0), Qt::AlignTop | Qt::TextWordWrap, named_ ? tr("This table has no picture; its numbers are beside it.") : tr("Choose what to run and press the button under its options."));
    return;
  }
  const QRectF area = plot();
  p.setPen(color(theme.text));
  if (!is_low()) paint_titles(p);
  p.setFont(number_font());
  p.setPen(color(theme.muted));
  if (is_volcano()) {
    volcano_.paint(p, area);
    if (legend_rows() > 0) paint_legend(p);
  } else if (is_flow()) {
    flow_.paint(p, area);
  } else if (heat_map_) {
    paint_heat_map(p, area);
  } else {
    paint_axes(p, area);
    p.setRenderHint(QPainter::Antialiasing);
    for (size_t row = 0; row < row_names_.size(); ++row) paint_line(p, area, row);
    if (legend_rows() > 0) paint_legend(p);
  }
  if (is_low()) return;
  p.setFont(word_font());
  p.setPen(color(theme.muted));
  const QString across = is_volcano() ? volcano_.effect_title() : is_flow() ? tr("layer across, expert down") : heat_map_ ? tr("%1 across, %2 down").arg(column_title_, row_title_) : column_title_;
  p.drawText(QRectF(4, height() - line * 1.1, width() - 8, line), Qt::AlignHCenter, QFontMetrics(word_font()).elidedText(across, Qt::ElideRight, width() - 8));
}

}  // namespace switchyard
