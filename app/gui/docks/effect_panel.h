// The Edit effects dock: what the edits in force do to the loss of the text so far: perplexity before and after, the text
// tinted by KL, the difference token by token. GUI thread; the work is a job.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include <QWidget>

#include "app/gui/docks/text_probe.h"
#include "app/session/text_effect.h"

class QLabel;
class QPushButton;

namespace switchyard {

class EffectBars;
class ElidedLabel;
class TintLegend;
class TokenTextView;

class EffectPanel : public QWidget {
  Q_OBJECT
 public:
  EffectPanel(RunModel& model, Jobs& jobs, QWidget* parent = nullptr);

  void compute();
  void cancel() { probe_.cancel(); }
  bool running() const { return probe_.running(); }
  QString why_not() const;  // empty: it can be computed now
  std::shared_ptr<const TextEffect> effect() const { return probe_.reading(); }
  bool stale() const;  // other edits are in force than were measured
  TableData table() const;
  TokenTextView& text() const { return *text_; }
  EffectBars& bars() const { return *bars_; }

 Q_SIGNALS:
  void effect_changed();

 private:
  void refresh();
  void show_effect();
  QString next_step() const;                             // what stands in place of numbers
  std::optional<double> strength(uint64_t token) const;  // of the tint, 0 .. 1
  QString words(uint64_t token) const;                   // empty: it was not measured

  RunModel& model_;
  TextProbe<TextEffect> probe_;
  QPushButton *compute_, *cancel_;
  QLabel* message_;
  ElidedLabel *stale_, *whose_;
  std::array<ElidedLabel*, 4> summary_;
  TokenTextView* text_;
  TintLegend* legend_;
  EffectBars* bars_;
  double most_ = 0;  // the largest KL
};

}  // namespace switchyard
