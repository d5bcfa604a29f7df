// Layout, painting and touch of the streaming text. GUI thread.
#include "app/gui/token_text_view.h"

#include <algorithm>
#include <cmath>

#include <QAccessible>
#include <QAccessibleWidget>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QTextDocument>
#include <QToolTip>

#include "app/gui/style.h"
#include "app/session/run_model.h"

namespace switchyard {
namespace {

constexpr int kMargin = 8;

// What a screen reader gets: the whole text as the value, the shown token as the description.
class AccessibleTokenText : public QAccessibleWidget {
 public:
  explicit AccessibleTokenText(TokenTextView* view) : QAccessibleWidget(view, QAccessible::StaticText), view_(view) {}
  QString text(QAccessible::Text kind) const override {
    return kind == QAccessible::Value ? view_->full_text() : QAccessibleWidget::text(kind);
  }

 private:
  TokenTextView* view_;
};

QAccessibleInterface* accessible_token_text(const QString&, QObject* object) {
  auto* view = qobject_cast<TokenTextView*>(object);
  return view ? new AccessibleTokenText(view) : nullptr;
}

}  // namespace

TokenTextView::TokenTextView(RunModel& model, QWidget* parent) : QAbstractScrollArea(parent), model_(model) {
  static const bool installed = (QAccessible::installFactory(accessible_token_text), true);
  (void)installed;
  setObjectName("tokenText");
  setAccessibleName(tr("Text, token by token"));
  setFrameShape(QFrame::NoFrame);
  setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  setFocusPolicy(Qt::StrongFocus);
  viewport()->setMouseTracking(true);
  viewport()->setAutoFillBackground(false);
  setFont(number_font());
  connect(&model_, &RunModel::data_changed, this, &TokenTextView::refresh);
  connect(&model_, &RunModel::cursor_changed, this, [this] {
    follow_end_or_cursor();
    update_accessible();
    viewport()->update();
  });
  connect(&model_, &RunModel::selection_changed, this, &TokenTextView::refresh_tints);
}

void TokenTextView::set_quantity(TokenQuantity quantity) {
  quantity_ = quantity;
  refresh_tints();
}

void TokenTextView::set_reading(Reading reading) {
  reading_ = std::move(reading);
  quantity_ = TokenQuantity::kNone;
  refresh_tints();
}

QString TokenTextView::full_text() const {
  std::string text;
  for (const std::string& piece : model_.texts()) text += piece;
  return QString::fromStdString(text);
}

void TokenTextView::refresh_tints() {
  ranged_ = 0;
  update_range();
  update_accessible();
  viewport()->update();
}

void TokenTextView::refresh() {
  const uint64_t sequence = model_.snapshot() ? model_.snapshot()->sequence + 1 : 0;
  if (sequence != seen_sequence_ || model_.texts().size() < laid_out_) {
    seen_sequence_ = sequence;
    relayout();
    ranged_ = 0;
  } else if (model_.texts().size() > laid_out_) {
    append_tokens();
  }
  update_range();
  update_accessible();
  viewport()->update();
}

void TokenTextView::update_range() {
  const auto& frames = model_.data().frames;
  if (ranged_ == 0 || ranged_row_ != model_.selection().moe_layer || ranged_ > frames.size()) {
    ranged_ = 0;
    ranged_row_ = model_.selection().moe_layer;
    low_ = high_ = 0;
  }
  const auto before = range();
  bool first = ranged_ == 0;
  for (; ranged_ < frames.size(); ++ranged_) {
    const auto& frame = frames[ranged_];
    if (!frame || frame->header().capture == CaptureLevel::kOff || ranged_row_ >= frame->header().moe_layers) continue;
    const double value = token_value(*frame, quantity_, ranged_row_);
    low_ = first ? value : std::min(low_, value);
    high_ = first ? value : std::max(high_, value);
    first = false;
  }
  if (before != range()) Q_EMIT range_changed();
}

int TokenTextView::line_height() const {
  return int(std::ceil(QFontMetricsF(font()).height() * 1.32));
}

float TokenTextView::advance_of(const QString& text) {
  const auto found = advances_.constFind(text);
  if (found != advances_.constEnd()) return *found;
  const auto width = float(QFontMetricsF(font()).horizontalAdvance(text));
  if (advances_.size() > 200'000) advances_.clear();
  advances_.insert(text, width);
  return width;
}

void TokenTextView::relayout() {
  lines_.clear();
  first_line_.clear();
  laid_out_ = 0;
  x_ = 0;
  new_line();
  append_tokens();
}

void TokenTextView::new_line() {
  lines_.emplace_back();
  x_ = 0;
}

void TokenTextView::append_tokens() {
  if (lines_.empty()) new_line();
  const auto& texts = model_.texts();
  for (; laid_out_ < texts.size(); ++laid_out_) {
    first_line_.push_back(uint32_t(lines_.size() - 1));
    place(uint32_t(laid_out_), QString::fromStdString(texts[laid_out_]));
  }
  // Whole lines, so that the end is followed without cutting the top one.
  const int hidden = int(lines_.size()) * line_height() + 2 * kMargin - viewport()->height();
  const int extra = (hidden + line_height() - 1) / line_height() * line_height();
  verticalScrollBar()->setPageStep(viewport()->height());
  verticalScrollBar()->setSingleStep(line_height());
  verticalScrollBar()->setRange(0, std::max(0, extra));
  follow_end_or_cursor();
}

void TokenTextView::place(uint32_t token, const QString& text) {
  const float width = float(viewport()->width() - 2 * kMargin);
  const auto add = [&](const QString& part, float advance) {
    lines_.back().pieces.push_back({token, x_, advance, part});
    x_ += advance;
  };
  if (text.isEmpty()) return add({}, advance_of("·") * 0.6f);  // part of a character that is not whole yet
  const QStringList rows = text.split('\n');
  for (int row = 0; row < rows.size(); ++row) {
    if (row > 0) {
      add("↵", advance_of("↵"));
      new_line();
    }
    if (rows[row].isEmpty()) continue;
    const float advance = advance_of(rows[row]);
    if (x_ > 0 && x_ + advance > width) {
      new_line();
      if (row == 0) first_line_.back() = uint32_t(lines_.size() - 1);
    }
    if (advance <= width) {
      add(rows[row], advance);
      continue;
    }
    for (const QChar c : rows[row]) {  // longer than a line: broken anywhere
      if (x_ + advance_of(c) > width && x_ > 0) new_line();
      add(c, advance_of(c));
    }
  }
}

void TokenTextView::follow_end_or_cursor() {
  QScrollBar* bar = verticalScrollBar();
  if (!model_.cursor()) return bar->setValue(bar->maximum());
  if (*model_.cursor() >= first_line_.size()) return;
  const int top = line_of(*model_.cursor()) * line_height();
  if (top < bar->value()) bar->setValue(top);
  if (top + line_height() + 2 * kMargin > bar->value() + viewport()->height())
    bar->setValue(top + line_height() + 2 * kMargin - viewport()->height());
}

int TokenTextView::line_of(uint64_t token) const {
  return token < first_line_.size() ? int(first_line_[token]) : 0;
}

QColor TokenTextView::tint(uint64_t token) const {
  const Theme& theme = current_theme();
  if (reading_.strength) {
    const auto strength = reading_.strength(token);
    return strength ? mix(theme.dock, theme.edit, 0.6 * *strength) : QColor();
  }
  const auto& frames = model_.data().frames;
  const int row = model_.selection().moe_layer;
  if (quantity_ == TokenQuantity::kNone || token >= frames.size() || !frames[token]) return {};
  const RoutingFrame& frame = *frames[token];
  if (frame.header().capture == CaptureLevel::kOff || row >= frame.header().moe_layers) return {};
  const double value = token_value(frame, quantity_, row);
  const double strength = theme.dark ? 0.55 : 0.42;
  if (quantity_ == TokenQuantity::kExpert) {
    if (value < 0) return {};
    return mix(theme.dock, expert_color(row, int(value)), theme.dark ? 0.45 : 0.5);
  }
  if (quantity_ == TokenQuantity::kChanged) {
    if (value <= 0) return {};
    return mix(theme.dock, theme.edit, 0.2 + 0.4 * value / std::max(1.0, high_));
  }
  const double t = high_ > low_ ? (value - low_) / (high_ - low_) : 0;
  return mix(theme.dock, theme.selection, strength * t);
}

void TokenTextView::paintEvent(QPaintEvent*) {
  QPainter painter(viewport());
  painter.setRenderHint(QPainter::Antialiasing);
  const Theme& theme = current_theme();
  painter.fillRect(viewport()->rect(), color(theme.dock));
  const int height = line_height(), top = kMargin - verticalScrollBar()->value();
  const QFontMetricsF metrics(font());
  const double baseline = (height - metrics.height()) / 2 + metrics.ascent();
  const uint64_t prompt = model_.data().prompt_tokens;
  const int64_t shown = model_.data().frames.empty() ? -1 : int64_t(model_.data().shown_index(model_.cursor()));
  const int first = std::max(0, -top / height),
            last = std::min(int(lines_.size()), (viewport()->height() - top) / height + 1);
  painter.setFont(font());
  if (verticalScrollBar()->value() > 0)
    painter.setClipRect(viewport()->rect().adjusted(0, kMargin, 0, 0));  // no half line on top
  for (int line = first; line < last; ++line) {
    const double y = top + line * height;
    for (const Piece& piece : lines_[size_t(line)].pieces) {
      const QRectF cell(kMargin + piece.x, y + 1.5, piece.width, height - 3);
      const QColor background = tint(piece.token);
      if (background.isValid()) {
        painter.setPen(Qt::NoPen);
        painter.setBrush(background);
        painter.drawRoundedRect(cell.adjusted(0.5, 0, -0.5, 0), 3, 3);
      }
      const bool newline = piece.text == "↵";
      painter.setPen(color(newline ? theme.faint : piece.token < prompt ? theme.muted : theme.text));
      if (piece.text.isEmpty())
        painter.fillRect(cell.adjusted(1, height * 0.4, -1, -height * 0.4), color(theme.faint));
      else
        painter.drawText(QPointF(cell.left(), y + baseline), piece.text);
      if (hovered_ && *hovered_ == piece.token) {
        painter.setBrush(Qt::NoBrush);
        painter.setPen(QPen(color(theme.faint), 1));
        painter.drawRoundedRect(cell.adjusted(0, -0.5, 0, 0.5), 3, 3);
      }
      if (shown == int64_t(piece.token)) {
        painter.setBrush(Qt::NoBrush);
        painter.setPen(QPen(color(theme.selection), model_.cursor() ? 2 : 1.2));
        painter.drawRoundedRect(cell.adjusted(-0.5, -0.5, 0.5, 0.5), 3, 3);
      }
    }
  }
  if (hasFocus()) {
    painter.setClipping(false);
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(color(theme.selection), 1));
    painter.drawRoundedRect(QRectF(viewport()->rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4);
  }
}

std::optional<uint64_t> TokenTextView::token_at(QPoint position) const {
  const int line = (position.y() - kMargin + verticalScrollBar()->value()) / line_height();
  if (position.y() < 0 || line < 0 || line >= int(lines_.size())) return std::nullopt;
  for (const Piece& piece : lines_[size_t(line)].pieces) {
    const float x = float(position.x() - kMargin);
    if (x >= piece.x && x < piece.x + piece.width) return piece.token;
  }
  return std::nullopt;
}

QRect TokenTextView::token_rect(uint64_t token) const {
  if (token >= first_line_.size()) return {};
  const int line = line_of(token);
  for (const Piece& piece : lines_[size_t(line)].pieces)
    if (piece.token == token)
      return QRectF(kMargin + piece.x, kMargin - verticalScrollBar()->value() + line * line_height(), piece.width,
                    line_height())
          .toRect();
  return {};
}

void TokenTextView::resizeEvent(QResizeEvent* event) {
  QAbstractScrollArea::resizeEvent(event);
  relayout();
}

void TokenTextView::mousePressEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton) return QAbstractScrollArea::mousePressEvent(event);
  const auto token = token_at(event->position().toPoint());
  if (token && *token < model_.data().tokens()) model_.set_cursor(*token);
}

void TokenTextView::mouseMoveEvent(QMouseEvent* event) {
  const auto token = token_at(event->position().toPoint());
  if (token == hovered_) return;
  hovered_ = token;
  viewport()->update();
}

void TokenTextView::leaveEvent(QEvent*) {
  hovered_.reset();
  viewport()->update();
}

bool TokenTextView::viewportEvent(QEvent* event) {
  if (event->type() != QEvent::ToolTip) return QAbstractScrollArea::viewportEvent(event);
  const auto* help = static_cast<QHelpEvent*>(event);
  const auto token = token_at(help->pos());
  const QString text = token ? sentence(*token) : QString();
  if (text.isEmpty())
    QToolTip::hideText();
  else
    QToolTip::showText(help->globalPos(), Qt::convertFromPlainText(text), viewport());
  return true;
}

QString TokenTextView::sentence(uint64_t token) const {
  if (reading_.words) return reading_.words(token);
  const auto& data = model_.data();
  if (token >= data.frames.size() || !data.frames[token]) return {};
  return QString::fromStdString(token_sentence(*data.frames[token], data.pieces[token], model_.selection().moe_layer, model_.model_layer()));
}

void TokenTextView::move_line(int by) {
  const uint64_t at = model_.data().shown_index(model_.cursor());
  const QRect here = token_rect(at);
  const auto token = token_at(QPoint(here.center().x(), here.center().y() + by * line_height()));
  if (token && *token < model_.data().tokens())
    model_.set_cursor(*token);
  else
    model_.step_cursor(by);
}

void TokenTextView::keyPressEvent(QKeyEvent* event) {
  switch (event->key()) {
    case Qt::Key_Left:
      return model_.step_cursor(-1);
    case Qt::Key_Right:
      return model_.step_cursor(1);
    case Qt::Key_Up:
      return move_line(-1);
    case Qt::Key_Down:
      return move_line(1);
    case Qt::Key_Escape:
      return model_.set_cursor(std::nullopt);
    default:
      QAbstractScrollArea::keyPressEvent(event);
  }
}

void TokenTextView::changeEvent(QEvent* event) {
  QAbstractScrollArea::changeEvent(event);
  if (event->type() != QEvent::FontChange && event->type() != QEvent::StyleChange) return;
  if (font() != number_font()) setFont(number_font());
  advances_.clear();
  relayout();
}

void TokenTextView::update_accessible() {
  const auto& data = model_.data();
  if (!data.shown(model_.cursor())) return setAccessibleDescription(tr("No token yet"));
  setAccessibleDescription(sentence(data.shown_index(model_.cursor())));
}

}  // namespace switchyard
