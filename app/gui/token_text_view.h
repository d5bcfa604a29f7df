// The streaming text: every token a tinted cell that can be pointed at, clicked and walked to by keyboard.
// Painted by hand: only visible lines are drawn and new tokens extend the layout. GUI thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <QAbstractScrollArea>
#include <QHash>
#include <QString>

#include "app/session/token_facts.h"

namespace switchyard {

class RunModel;

class TokenTextView : public QAbstractScrollArea {
  Q_OBJECT
 public:
  explicit TokenTextView(RunModel& model, QWidget* parent = nullptr);

  void set_quantity(TokenQuantity quantity);
  TokenQuantity quantity() const { return quantity_; }

  // In place of the quantities of frames: how strongly a token is tinted, 0 .. 1 (nullopt: not), and what is said of it
  // (empty: nothing). Asked while painting; refresh_tints() where the answers change.
  struct Reading {
    std::function<std::optional<double>(uint64_t token)> strength;
    std::function<QString(uint64_t token)> words;
  };
  void set_reading(Reading reading);

  QString full_text() const;                                // for copy and screen readers
  std::optional<uint64_t> token_at(QPoint position) const;  // in the viewport
  QRect token_rect(uint64_t token) const;                   // its first piece, in the viewport; empty: none
  // Ends of the legend: smallest and largest value of the sequence; {0, 0} without tokens.
  std::pair<double, double> range() const { return {low_, high_}; }

  void refresh();        // new tokens or a new snapshot
  void refresh_tints();  // another layer or theme

 Q_SIGNALS:
  void range_changed();

 protected:
  void paintEvent(QPaintEvent*) override;
  void resizeEvent(QResizeEvent*) override;
  void mousePressEvent(QMouseEvent*) override;
  void mouseMoveEvent(QMouseEvent*) override;
  void leaveEvent(QEvent*) override;
  void keyPressEvent(QKeyEvent*) override;
  void changeEvent(QEvent*) override;
  bool viewportEvent(QEvent*) override;

 private:
  struct Piece {  // a token's part on one line
    uint32_t token = 0;
    float x = 0, width = 0;
    QString text;
  };
  struct Line {
    std::vector<Piece> pieces;
  };

  void relayout();
  void append_tokens();
  void place(uint32_t token, const QString& text);
  void new_line();
  float advance_of(const QString& text);
  void follow_end_or_cursor();
  void update_range();
  void update_accessible();
  QColor tint(uint64_t token) const;
  QString sentence(uint64_t token) const;  // empty: nothing is known of it
  int line_height() const;
  int line_of(uint64_t token) const;
  void move_line(int by);

  RunModel& model_;
  TokenQuantity quantity_ = TokenQuantity::kEntropy;
  Reading reading_;
  std::vector<Line> lines_;
  std::vector<uint32_t> first_line_;  // of each token laid out
  size_t laid_out_ = 0;
  uint64_t seen_sequence_ = 0;
  float x_ = 0;
  QHash<QString, float> advances_;
  double low_ = 0, high_ = 0;
  size_t ranged_ = 0;  // tokens already in low_, high_
  int ranged_row_ = -1;
  std::optional<uint64_t> hovered_;
};

}  // namespace switchyard
