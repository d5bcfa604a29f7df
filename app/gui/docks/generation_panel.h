// The Generation dock: prompt, transport, sampling, and the text as it streams. GUI thread.
#pragma once

#include <QWidget>

#include "engine/runtime/sampler.h"

class QCheckBox;
class QDoubleSpinBox;
class QLabel;
class QPlainTextEdit;
class QSpinBox;
class QToolButton;

namespace switchyard {

class RunModel;
class SamplingSummary;
class TokenTextView;

class GenerationPanel : public QWidget {
  Q_OBJECT
 public:
  explicit GenerationPanel(RunModel& model, QWidget* parent = nullptr);

  QString prompt() const;
  void set_prompt(const QString& text);
  Sampling sampling() const;
  void set_sampling(const Sampling& sampling);
  bool chat() const;         // whether the prompt is wrapped in the model's chat template
  void set_chat(bool wrap);  // as soon as a model is there that has one
  uint64_t max_new_tokens() const;
  void set_max_new_tokens(uint64_t tokens);
  TokenTextView* text() const { return text_; }
  QPlainTextEdit* prompt_edit() const { return prompt_; }

  // Whether Run would begin anew: the prompt or its wrapping differs from the running sequence's, or there is none.
  bool starts_anew() const;

 private:
  void fill_demo_prompts(QToolButton* button);
  void take_model_defaults();
  void update_chat();
  void update_legend();
  void sampling_edited();

  RunModel& model_;
  QPlainTextEdit* prompt_;
  QCheckBox *greedy_, *chat_;
  QDoubleSpinBox *temperature_, *top_p_;
  QSpinBox *top_k_, *seed_, *max_;
  SamplingSummary* summary_;
  TokenTextView* text_;
  QWidget* legend_;
  QString started_prompt_;
  bool started_chat_ = false, wanted_chat_ = false;
  const void* known_model_ = nullptr;
};

}  // namespace switchyard
