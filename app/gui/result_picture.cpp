// Heat map or line, axes, tooltip. GUI thread.
#include "app/gui/result_picture.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <QHelpEvent>
#include <QPainter>
#include <QPainterPath>
#include <QTextDocument>
#include <QToolTip>

#include "app/gui/style.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

QString text_of(const Json& cell) { return QString::fromStdString(cell_text(cell, 6)); }
QString number(double value) { return QString::number(value, 'g', 4); }

// The two columns that say which cell a row is: (layer, index), (i, j); or one, of a line.
std::vector<size_t> keys_of(const ResultTable& table) {
  std::vector<size_t> keys;
  for (size_t c = 0; c < table.columns.size() && keys.size() < 3; ++c)
    if (is_key(table.columns[c])) keys.push_back(c);
  return keys;
}

}  // namespace

ResultPicture::ResultPicture(QWidget* parent) : QWidget(parent) {
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

QSize ResultPicture::minimumSizeHint() const { return {160, QFontMetrics(word_font()).lineSpacing() * 7}; }
QSize ResultPicture::sizeHint() const { return {420, QFontMetrics(word_font()).lineSpacing() * 14}; }

QStringList ResultPicture::quantities(const ResultTable& table) {
  QStringList names;
  if (table.rows.size() < 2) return names;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const bool numbers = std::any_of(table.rows.begin(), table.rows.end(), [c](const auto& row) { return row[c].is_number(); });
    if (numbers && !is_key(table.columns[c])) names << QString::fromStdString(table.columns[c]);
  }
  return names;
}

void ResultPicture::show_table(const ResultTable& table, const QString& quantity) {
  quantity_ = quantity;
  named_ = true;
  row_names_.clear(), column_names_.clear(), values_.clear();
  columns_ = 0;
  const auto found = std::find(table.columns.begin(), table.columns.end(), quantity.toStdString());
  const auto keys = keys_of(table);
  setAccessibleName(quantity.isEmpty() ? tr("No picture") : tr("%1 of %2").arg(quantity, QString::fromStdString(table.name)));
  if (found != table.columns.end()) {
    const auto value = size_t(found - table.columns.begin());
    const auto number_of = [&](const auto& row) { return row[value].is_number() ? std::optional<double>(row[value].template get<double>()) : std::nullopt; };
    row_title_ = keys.empty() ? tr("row") : QString::fromStdString(table.columns[keys[0]]);
    if (keys.size() == 2) {
      column_title_ = QString::fromStdString(table.columns[keys[1]]);
      std::map<QString, size_t> row_of, column_of;
      const auto place = [](std::map<QString, size_t>& places, std::vector<QString>& names, const QString& name) {
        const auto [at, fresh] = places.emplace(name, names.size());
        if (fresh) names.push_back(name);
        return at->second;
      };
      std::vector<std::tuple<size_t, size_t, std::optional<double>>> cells;
      for (const auto& row : table.rows)
        cells.emplace_back(place(row_of, row_names_, text_of(row[keys[0]])), place(column_of, column_names_, text_of(row[keys[1]])), number_of(row));
      // A list of pairs is no grid.
      if (cells.size() * 2 >= row_names_.size() * column_names_.size()) {
        columns_ = column_names_.size();
        values_.resize(row_names_.size() * columns_);
        for (const auto& [r, c, v] : cells) values_[r * columns_ + c] = v;
      } else {
        row_names_.clear(), column_names_.clear();
      }
    }
    if (columns_ == 0) {
      for (const auto& row : table.rows) {
        QString name;
        for (const size_t key : keys) name += (name.isEmpty() ? "" : " · ") + text_of(row[key]);
        row_names_.push_back(name);
        values_.push_back(number_of(row));
      }
    }
  }
  low_ = high_ = 0;
  bool first = true;
  for (const auto& value : values_) {
    if (!value) continue;
    low_ = first ? *value : std::min(low_, *value);
    high_ = first ? *value : std::max(high_, *value);
    first = false;
  }
  update();
}

QRectF ResultPicture::plot() const {
  const QFontMetrics numbers(number_font());
  int label = numbers.horizontalAdvance(is_heat_map() ? QString("00") : number(high_));
  for (const QString& name : row_names_)
    if (is_heat_map()) label = std::max(label, std::min(numbers.horizontalAdvance(name), 90));
  const int line = QFontMetrics(word_font()).lineSpacing();
  return QRectF(rect()).adjusted(label + 12, line * 1.5, -10, -line * 2.3);
}

QString ResultPicture::words(size_t cell) const {
  const auto& value = values_[cell];
  const QString shown = value ? QString::number(*value, 'g', 7) : tr("not defined");
  if (!is_heat_map()) return tr("%1 %2: %3 %4").arg(row_title_, row_names_[cell], quantity_, shown);
  return tr("%1 %2, %3 %4: %5 %6").arg(row_title_, row_names_[cell / columns_], column_title_, column_names_[cell % columns_], quantity_, shown);
}

QString ResultPicture::value_at(const QPoint& at) const {
  const QRectF area = plot();
  if (values_.empty() || !area.contains(at)) return {};
  const double x = (at.x() - area.x()) / area.width(), y = (at.y() - area.y()) / area.height();
  if (!is_heat_map()) return words(std::min(size_t(x * double(values_.size())), values_.size() - 1));
  const size_t rows = values_.size() / columns_;
  return words(std::min(size_t(y * double(rows)), rows - 1) * columns_ + std::min(size_t(x * double(columns_)), columns_ - 1));
}

bool ResultPicture::event(QEvent* event) {
  if (event->type() == QEvent::ToolTip) {
    const auto* help = static_cast<QHelpEvent*>(event);
    const QString text = value_at(help->pos());
    if (text.isEmpty()) QToolTip::hideText();
    else QToolTip::showText(help->globalPos(), Qt::convertFromPlainText(text), this);
    return true;
  }
  return QWidget::event(event);
}

void ResultPicture::paintEvent(QPaintEvent*) {
  QPainter p(this);
  const Theme& theme = current_theme();
  const int line = QFontMetrics(word_font()).lineSpacing();
  if (values_.empty()) {
    p.setFont(word_font());
    p.setPen(color(theme.muted));
    p.drawText(rect().adjusted(8, 4, -8, 0), Qt::AlignTop | Qt::TextWordWrap, named_ ? tr("This table has no picture; its numbers are on the right.") : tr("Choose an analysis and press Analyse."));
    return;
  }
  const QRectF area = plot();
  p.setFont(word_font());
  p.setPen(color(theme.text));
  const QString range = tr("%1 to %2").arg(number(low_), number(high_));
  p.drawText(QRectF(4, 0, width() - 8, line * 1.3), Qt::AlignVCenter, QFontMetrics(word_font()).elidedText(quantity_, Qt::ElideRight, width() / 2));
  p.setFont(number_font());
  p.setPen(color(theme.muted));
  p.drawText(QRectF(4, 0, width() - 8, line * 1.3), Qt::AlignVCenter | Qt::AlignRight, range);
  const double span = high_ > low_ ? high_ - low_ : 1;
  const auto every = [&](size_t count, double room, double needed) { return std::max<size_t>(1, size_t(std::ceil(needed * double(count) / std::max(room, 1.0)))); };
  const QFontMetrics numbers(number_font());
  if (is_heat_map()) {
    const size_t rows = values_.size() / columns_;
    const double w = area.width() / double(columns_), h = area.height() / double(rows);
    for (size_t cell = 0; cell < values_.size(); ++cell) {
      const QRectF box(area.x() + w * double(cell % columns_), area.y() + h * double(cell / columns_), w + 0.5, h + 0.5);
      p.fillRect(box, values_[cell] ? color(map_color(ColorMap::kCividis, (*values_[cell] - low_) / span, theme)) : color(theme.line));
    }
    const size_t row_step = every(rows, area.height(), line), column_step = every(columns_, area.width(), numbers.horizontalAdvance("000") + 6);
    for (size_t r = 0; r < rows; r += row_step)
      p.drawText(QRectF(0, area.y() + h * double(r), area.x() - 5, h), Qt::AlignVCenter | Qt::AlignRight, row_names_[r]);
    for (size_t c = 0; c < columns_; c += column_step)
      p.drawText(QRectF(area.x() + w * (double(c) + 0.5) - 30, area.bottom() + 2, 60, line), Qt::AlignHCenter, column_names_[c]);
  } else {
    p.setPen(color(theme.line));
    for (const double share : {0.0, 0.5, 1.0}) {
      const double y = area.bottom() - share * area.height();
      p.setPen(color(theme.line));
      p.drawLine(QPointF(area.x(), y), QPointF(area.right(), y));
      p.setPen(color(theme.muted));
      p.drawText(QRectF(0, y - line / 2.0, area.x() - 5, line), Qt::AlignVCenter | Qt::AlignRight, number(low_ + share * span));
    }
    p.setRenderHint(QPainter::Antialiasing);
    const double w = area.width() / double(values_.size());
    QPainterPath path;
    bool broken = true;
    for (size_t i = 0; i < values_.size(); ++i) {
      if (!values_[i]) {
        broken = true;
        continue;
      }
      const QPointF at(area.x() + w * (double(i) + 0.5), area.bottom() - (*values_[i] - low_) / span * area.height());
      broken ? path.moveTo(at) : path.lineTo(at);
      broken = false;
      if (values_.size() <= 128) p.fillRect(QRectF(at.x() - 2, at.y() - 2, 4, 4), color(theme.selection));
    }
    p.setPen(QPen(color(theme.selection), 1.5));
    p.drawPath(path);
    p.setPen(color(theme.muted));
    int longest = numbers.horizontalAdvance("000");
    for (const QString& name : row_names_) longest = std::max(longest, std::min(numbers.horizontalAdvance(name), 90));
    const size_t step = every(values_.size(), area.width(), longest + 8);
    for (size_t i = 0; i < values_.size(); i += step)
      p.drawText(QRectF(area.x() + w * (double(i) + 0.5) - 45, area.bottom() + 2, 90, line), Qt::AlignHCenter, row_names_[i]);
  }
  p.setFont(word_font());
  p.drawText(QRectF(area.x(), height() - line * 1.1, area.width(), line), Qt::AlignHCenter,
             is_heat_map() ? tr("%1 across, %2 down").arg(column_title_, row_title_) : row_title_);
}

}  // namespace switchyard
