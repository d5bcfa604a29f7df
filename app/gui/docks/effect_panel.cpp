// Buttons, numbers, tinted text and bars of the edit effects. GUI thread.
#include "app/gui/docks/effect_panel.h"

#include <algorithm>
#include <cmath>

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "app/gui/dock.h"
#include "app/gui/effect_bars.h"
#include "app/gui/style.h"
#include "app/gui/tint_legend.h"
#include "app/gui/token_text_view.h"
#include "app/gui/words.h"
#include "engine/runtime/effect_run.h"

namespace switchyard {
namespace {

constexpr double kRounding = 1e-9;  // nats; a KL below is that of single precision, not of edits

}  // namespace

EffectPanel::EffectPanel(RunModel& model, Jobs& jobs, QWidget* parent) : QWidget(parent), model_(model), probe_(model, jobs) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 6, 8, 6);
  column->setSpacing(3);
  compute_ = new QPushButton(tr("Measure the edits"));
  compute_->setObjectName("effects.compute");
  cancel_ = new QPushButton(tr("Cancel"));
  cancel_->setObjectName("effects.cancel");
  auto* line = new QHBoxLayout;
  line->addWidget(compute_);
  line->addWidget(cancel_);
  line->addStretch(1);
  column->addLayout(line);
  const auto one_line = [column](const char* kind, const char* name, const QString& text) {
    auto* label = new ElidedLabel(text);
    label->setObjectName(name);
    label->setProperty("kind", kind);
    column->addWidget(label);
    return label;
  };
  message_ = text_label("muted", "effects.message");
  column->addWidget(message_);
  stale_ = one_line("edit", "effects.stale", tr("The edits have changed since: measure again."));
  for (ElidedLabel*& label : summary_) label = one_line("", "effects.summary", {});
  whose_ = one_line("muted", "effects.whose", tr("Own tokens, chosen by whichever model was running."));
  text_ = new TokenTextView(model_);
  text_->setObjectName("effects.text");
  text_->setAccessibleName(tr("Text, tinted by KL"));
  text_->set_reading({[this](uint64_t token) { return strength(token); }, [this](uint64_t token) { return words(token); }});
  text_->setMinimumHeight(QFontMetrics(number_font()).height() * 3);
  column->addWidget(text_, 3);
  legend_ = new TintLegend([this]() -> TintLegend::Scale {
    const Theme& theme = current_theme();
    if (most_ <= kRounding) return {tr("no token is predicted differently"), {}, {}};
    return {tr("√KL: 0"), tr("KL %1 nat").arg(most_, 0, 'g', 3), mix(theme.dock, theme.edit, 0.6)};
  });
  legend_->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
  column->addWidget(legend_);
  bars_ = new EffectBars([this](uint64_t token) { return words(token); });
  column->addWidget(bars_, 2);
  column->addStretch(0);
  connect(compute_, &QPushButton::clicked, this, &EffectPanel::compute);
  connect(cancel_, &QPushButton::clicked, this, &EffectPanel::cancel);
  connect(bars_, &EffectBars::token_clicked, this, [this](uint64_t token) { model_.set_cursor(token); });
  connect(&model_, &RunModel::cursor_changed, this, [this] { bars_->show_cursor(model_.cursor()); });
  for (const auto signal : {&RunModel::model_changed, &RunModel::data_changed, &RunModel::history_changed}) connect(&model_, signal, this, &EffectPanel::refresh);
  show_effect();
  refresh();
}

QString EffectPanel::why_not() const {
  if (!model_.has_session()) return model_.has_trace() ? tr("a trace has no model to run: open a model") : tr("open a model first");
  const size_t tokens = model_.data().token_ids.size();
  if (tokens == 0 && model_.checkpoint()->plan.encoder_layers == 0) return tr("there are no tokens yet: run a prompt");
  if (const std::string why = why_no_effect(model_.checkpoint()->plan, tokens); !why.empty()) return QString::fromStdString(why);
  const Recipe* recipe = recipe_in_force(*model_.snapshot());
  if (!recipe || recipe->is_identity()) return tr("no edits are in force: mute or bias an expert, or choose a scheme");
  if (running()) return tr("the edits are being measured");
  return {};
}

bool EffectPanel::stale() const {
  if (!effect() || !model_.snapshot()) return false;
  const Recipe* now = recipe_in_force(*model_.snapshot());
  return !same_edits(now ? *now : Recipe{}, effect()->recipe);
}

void EffectPanel::compute() {
  if (!why_not().isEmpty()) return;
  probe_.start(
      "effects", tr("Measuring the edits"),
      [backend = model_.opened().backend](const Checkpoint& checkpoint, const std::vector<TokenId>& tokens, const Recipe& recipe, Task& task) {
        return text_effect(checkpoint, backend, tokens, recipe, task);
      },
      [this] {
        show_effect();
        refresh();
      });
  refresh();
}

TableData EffectPanel::table() const { return effect() ? effect_table(*effect(), model_.data().pieces) : TableData{}; }

std::optional<double> EffectPanel::strength(uint64_t token) const {
  const PositionEffect* one = effect() ? effect()->at(token) : nullptr;
  return one && most_ > kRounding ? std::optional(std::sqrt(std::max(one->kl, 0.0) / most_)) : std::nullopt;
}

QString EffectPanel::words(uint64_t token) const {
  const PositionEffect* one = effect() ? effect()->at(token) : nullptr;
  if (!one || token >= model_.data().pieces.size()) return {};
  return tr("token %1 “%2”: %3").arg(token).arg(QString::fromStdString(model_.data().pieces[token]), QString::fromStdString(effect_sentence(*one)));
}

void EffectPanel::show_effect() {
  most_ = 0;
  if (effect())
    for (const PositionEffect& one : effect()->effect.positions()) most_ = std::max(most_, one.kl);
  if (effect()) {
    const auto lines = effect_summary(effect()->effect);
    for (size_t i = 0; i < lines.size(); ++i) summary_[i]->set_full_text(QString::fromStdString(lines[i]));
  }
  text_->refresh_tints();
  legend_->update();
  bars_->show_effect(effect());
  Q_EMIT effect_changed();
}

QString EffectPanel::next_step() const {
  if (running()) return tr("The text runs twice, without and with the edits, on a backend of its own; the run goes on.");
  if (effect()) return {};
  const QString what = tr("What do the edits in force do to the loss of this text? Runs it twice, without and with them, beside the run."), why = why_not();
  return why.isEmpty() ? what : tr("%1\nNot now: %2.").arg(what, why);
}

void EffectPanel::refresh() {
  if (probe_.drop_of_other_text()) show_effect();
  const QString why = why_not();
  compute_->setEnabled(why.isEmpty());
  compute_->setToolTip(why);
  cancel_->setVisible(running());
  const bool there = effect() != nullptr;
  stale_->setVisible(stale());
  whose_->setVisible(there && !stale());
  for (QWidget* shown : std::initializer_list<QWidget*>{text_, legend_, bars_}) shown->setVisible(there);
  for (ElidedLabel* line : summary_) line->setVisible(there);
  message_->setText(next_step());
  message_->setVisible(!message_->text().isEmpty());
}

}  // namespace switchyard
