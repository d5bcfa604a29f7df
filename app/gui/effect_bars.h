// What edits do to the loss of each token: a bar per token, NLL after - NLL before, up where the token became less likely.
// GUI thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include <QRectF>
#include <QString>
#include <QWidget>

#include "app/session/text_effect.h"

namespace switchyard {

class EffectBars : public QWidget {
  Q_OBJECT
 public:
  // words: of a token, for the tooltip.
  explicit EffectBars(std::function<QString(uint64_t token)> words, QWidget* parent = nullptr);

  void show_effect(std::shared_ptr<const TextEffect> effect);  // null: nothing
  void show_cursor(std::optional<uint64_t> token);             // the shown token, marked
  std::optional<uint64_t> token_at(const QPointF& at) const;   // predicted ones only
  QRectF bar(uint64_t token) const;

  QSize minimumSizeHint() const override;

 Q_SIGNALS:
  void token_clicked(uint64_t token);

 protected:
  void paintEvent(QPaintEvent*) override;
  void mousePressEvent(QMouseEvent*) override;
  bool event(QEvent* event) override;

 private:
  QRectF area() const;

  std::function<QString(uint64_t)> words_;
  std::shared_ptr<const TextEffect> effect_;
  std::optional<uint64_t> shown_;
  double low_ = 0, high_ = 0;  // of the differences, 0 among them
};

}  // namespace switchyard
