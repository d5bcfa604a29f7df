// Prompt and sampling controls over the streaming text. GUI thread.
#include "app/gui/docks/generation_panel.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include <QCheckBox>
#include <QDoubleSpinBox>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QPainter>
#include <QPlainTextEdit>
#include <QSpinBox>
#include <QToolButton>
#include <QVBoxLayout>
#include <QWidgetAction>

#include "app/gui/dock.h"
#include "app/gui/style.h"
#include "app/gui/tint_legend.h"
#include "app/gui/token_text_view.h"
#include "app/session/run_model.h"
#include "engine/model/checkpoint.h"

namespace switchyard {
namespace {

// The ends of the tint in numbers.
TintLegend::Scale tint_scale(const RunModel& model, const TokenTextView& view) {
  const Theme& theme = current_theme();
  const auto [low, high] = view.range();
  if (model.data().tokens() == 0) return {};
  const QColor strongest = mix(theme.dock, theme.selection, theme.dark ? 0.55 : 0.42);
  switch (view.quantity()) {
    case TokenQuantity::kNone:
      return {GenerationPanel::tr("no tint"), {}, {}};
    case TokenQuantity::kEntropy:
      return {GenerationPanel::tr("low entropy %1").arg(low, 0, 'f', 2), GenerationPanel::tr("high %1 nat").arg(high, 0, 'f', 2), strongest};
    case TokenQuantity::kMargin:
      return {GenerationPanel::tr("margin %1").arg(low, 0, 'f', 2), GenerationPanel::tr("%1 logits").arg(high, 0, 'f', 2), strongest};
    case TokenQuantity::kExpert:
      return {GenerationPanel::tr("colour = first expert in layer %1").arg(model.model_layer()), {}, {}};
    case TokenQuantity::kChanged:
      break;
  }
  if (high <= 0) return {GenerationPanel::tr("no token was changed by an edit"), {}, {}};
  return {GenerationPanel::tr("experts changed by edits: 0"), QString::number(int(high)), mix(theme.dock, theme.edit, 0.6)};
}

QDoubleSpinBox* real_field(double low, double high, double step, const QString& tip) {
  auto* field = new QDoubleSpinBox;
  field->setLocale(QLocale::c());
  field->setRange(low, high);
  field->setSingleStep(step);
  field->setDecimals(2);
  field->setToolTip(tip);
  field->setFont(number_font());
  field->setFixedWidth(QFontMetrics(number_font()).horizontalAdvance("00.000") + 12);
  return field;
}

QSpinBox* whole_field(int low, int high, const QString& widest, const QString& tip) {
  auto* field = new QSpinBox;
  field->setLocale(QLocale::c());
  field->setGroupSeparatorShown(false);
  field->setRange(low, high);
  field->setToolTip(tip);
  field->setFont(number_font());
  field->setFixedWidth(QFontMetrics(number_font()).horizontalAdvance(widest) + 16);
  return field;
}

}  // namespace

// "temperature 0.80  top-p 0.95  seed 7  max 256": words quiet, values tabular; a click opens the fields.
class SamplingSummary : public QToolButton {
 public:
  explicit SamplingSummary(GenerationPanel* panel) : QToolButton(panel), panel_(*panel) {
    setProperty("kind", "flat");
    setObjectName("samplingSummary");
    setPopupMode(QToolButton::InstantPopup);
    setFocusPolicy(Qt::TabFocus);
    setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
    setToolTip(QObject::tr("Sampling and length; click to change"));
  }
  QSize sizeHint() const override { return {80, fontMetrics().height() + 8}; }
  void refresh() {
    QStringList words;
    for (const auto& [label, value] : parts()) words << (label + " " + value).trimmed();
    setAccessibleName(QObject::tr("Sampling: ") + words.join(", "));
    update();
  }

 protected:
  void paintEvent(QPaintEvent*) override {
    QPainter p(this);
    const Theme& theme = current_theme();
    const QFontMetrics words(word_font()), numbers(number_font());
    if (underMouse() || hasFocus()) {
      p.setRenderHint(QPainter::Antialiasing);
      p.setPen(hasFocus() ? QPen(color(theme.selection)) : QPen(Qt::NoPen));
      p.setBrush(color(theme.raised));
      p.drawRoundedRect(QRectF(rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4);
    }
    int x = 2;
    const auto width_of_all = [&](const std::vector<std::pair<QString, QString>>& all) {
      int sum = 2;
      for (const auto& [label, value] : all)
        sum += words.horizontalAdvance(label) + numbers.horizontalAdvance(value) + 16;
      return sum;
    };
    auto shown = parts();
    if (width_of_all(shown) > width() - 10)
      for (auto& part : shown)
        if (part.first == QObject::tr("temperature")) part.first = QObject::tr("temp");
    for (const auto& [label, value] : shown) {
      const int wide = words.horizontalAdvance(label) + (value.isEmpty() ? 0 : 5 + numbers.horizontalAdvance(value));
      if (x + wide > width() - 14) break;
      p.setFont(word_font());
      p.setPen(color(theme.muted));
      p.drawText(QRect(x, 0, wide, height()), Qt::AlignVCenter, label);
      p.setFont(number_font());
      p.setPen(color(theme.text));
      p.drawText(QRect(x, 0, wide, height()), Qt::AlignVCenter | Qt::AlignRight, value);
      x += wide + 11;
    }
    p.setFont(word_font());
    p.setPen(color(theme.muted));
    p.drawText(QRect(x - 5, 0, 20, height()), Qt::AlignVCenter, "▾");
  }

 private:
  std::vector<std::pair<QString, QString>> parts() const {
    const Sampling s = panel_.sampling();
    const QString longest = QString::number(panel_.max_new_tokens());
    if (s.greedy) return {{QObject::tr("greedy"), {}}, {QObject::tr("max"), longest}};
    std::vector<std::pair<QString, QString>> out{{QObject::tr("temperature"), QString::number(s.temperature, 'f', 2)},
                                                 {QObject::tr("top-p"), QString::number(s.top_p, 'f', 2)}};
    if (s.top_k > 0) out.push_back({QObject::tr("top-k"), QString::number(s.top_k)});
    out.push_back({QObject::tr("seed"), QString::number(s.seed)});
    out.push_back({QObject::tr("max"), longest});
    return out;
  }
  GenerationPanel& panel_;
};

GenerationPanel::GenerationPanel(RunModel& model, QWidget* parent) : QWidget(parent), model_(model) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 8, 8, 6);
  column->setSpacing(6);

  prompt_ = new QPlainTextEdit;
  prompt_->setObjectName("prompt");
  prompt_->setAccessibleName(tr("Prompt"));
  prompt_->setPlaceholderText(tr("Type a prompt, or take one under “prompts”. Ctrl+Enter runs it."));
  prompt_->setFont(number_font());
  prompt_->setTabChangesFocus(true);
  prompt_->setMinimumHeight(QFontMetrics(number_font()).lineSpacing() * 3 + 14);
  prompt_->setMaximumHeight(QFontMetrics(number_font()).lineSpacing() * 4 + 11);
  prompt_->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
  column->addWidget(prompt_);

  temperature_ = real_field(0.01, 10, 0.05, tr("Divides the logits before sampling"));
  top_p_ = real_field(0.01, 1, 0.05, tr("Keeps the smallest set of tokens with this much probability"));
  top_k_ = whole_field(0, 1'000'000, "0000", tr("Keeps the k likeliest tokens; 0 is off"));
  seed_ = whole_field(0, 2'147'483'647, "00000", tr("The same seed, prompt and edits give the same text"));
  max_ = whole_field(1, 1'000'000, "00000", tr("Tokens to generate"));
  max_->setValue(256);
  greedy_ = new QCheckBox(tr("greedy"));
  greedy_->setToolTip(tr("Always the likeliest token; temperature, top-p, top-k and seed do not matter"));

  summary_ = new SamplingSummary(this);
  auto* form = new QWidget;
  auto* fields = new QFormLayout(form);
  fields->setContentsMargins(14, 10, 14, 10);
  fields->addRow(greedy_);
  for (const auto& [text, field] :
       std::initializer_list<std::pair<QString, QWidget*>>{{tr("temperature"), temperature_},
                                                           {tr("top-p"), top_p_},
                                                           {tr("top-k"), top_k_},
                                                           {tr("seed"), seed_},
                                                           {tr("max tokens"), max_}}) {
    field->setAccessibleName(text);
    fields->addRow(text, field);
  }
  auto* popup = new QMenu(summary_);
  auto* holder = new QWidgetAction(popup);
  holder->setDefaultWidget(form);
  popup->addAction(holder);
  summary_->setMenu(popup);
  auto* demo = flat_button(tr("prompts ▾"), tr("Fill the prompt with one of the shipped texts"), this);
  fill_demo_prompts(demo);
  auto* line = new QHBoxLayout;
  line->setContentsMargins(0, 0, 0, 0);
  chat_ = new QCheckBox(tr("Chat template"));
  chat_->setObjectName("chatTemplate");
  line->addWidget(summary_, 1);
  line->addWidget(chat_);
  line->addWidget(demo);
  column->addLayout(line);

  text_ = new TokenTextView(model_);
  column->addWidget(text_, 1);
  legend_ = new TintLegend([this] { return tint_scale(model_, *text_); }, this);
  column->addWidget(legend_);

  connect(text_, &TokenTextView::range_changed, this, &GenerationPanel::update_legend);
  connect(&model_, &RunModel::model_changed, this, &GenerationPanel::take_model_defaults);
  connect(&model_, &RunModel::model_changed, this, &GenerationPanel::update_chat);
  connect(&model_, &RunModel::started, this, [this](const QString& prompt, bool chat) {
    started_prompt_ = prompt;
    started_chat_ = chat;
  });
  connect(&model_, &RunModel::selection_changed, this, &GenerationPanel::update_legend);
  connect(greedy_, &QCheckBox::toggled, this, &GenerationPanel::sampling_edited);
  connect(chat_, &QCheckBox::clicked, this, [this](bool on) { wanted_chat_ = on; });
  for (QDoubleSpinBox* field : {temperature_, top_p_})
    connect(field, &QDoubleSpinBox::valueChanged, this, &GenerationPanel::sampling_edited);
  for (QSpinBox* field : {top_k_, seed_})
    connect(field, &QSpinBox::valueChanged, this, &GenerationPanel::sampling_edited);
  connect(max_, &QSpinBox::valueChanged, this, [this] { summary_->refresh(); });
  greedy_->setChecked(true);
  update_chat();
}

void GenerationPanel::fill_demo_prompts(QToolButton* button) {
  auto* menu = new QMenu(button);
  button->setMenu(menu);
  button->setPopupMode(QToolButton::InstantPopup);
  const auto assets = find_assets();
  if (!assets) return button->hide();
  std::vector<std::filesystem::path> files;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(*assets / "prompts", ignored))
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  button->setHidden(files.empty());
  for (const auto& file : files) {
    connect(menu->addAction(QString::fromStdString(file.stem().string())), &QAction::triggered, this, [this, file] {
      std::ifstream in(file, std::ios::binary);
      set_prompt(QString::fromStdString(std::string((std::istreambuf_iterator<char>(in)), {})));
    });
  }
}

QString GenerationPanel::prompt() const {
  return prompt_->toPlainText();
}

void GenerationPanel::set_prompt(const QString& text) {
  prompt_->setPlainText(text);
}

Sampling GenerationPanel::sampling() const {
  return {greedy_->isChecked(), float(temperature_->value()), float(top_p_->value()), top_k_->value(),
          uint64_t(seed_->value())};
}

void GenerationPanel::set_sampling(const Sampling& sampling) {
  const QSignalBlocker blockers[] = {QSignalBlocker(greedy_), QSignalBlocker(temperature_), QSignalBlocker(top_p_),
                                     QSignalBlocker(top_k_), QSignalBlocker(seed_)};
  greedy_->setChecked(sampling.greedy);
  temperature_->setValue(sampling.temperature);
  top_p_->setValue(sampling.top_p);
  top_k_->setValue(sampling.top_k);
  seed_->setValue(int(std::min<uint64_t>(sampling.seed, 2'147'483'647)));
  sampling_edited();
}

uint64_t GenerationPanel::max_new_tokens() const {
  return uint64_t(max_->value());
}
void GenerationPanel::set_max_new_tokens(uint64_t tokens) {
  max_->setValue(int(std::min<uint64_t>(tokens, 1'000'000)));
}

bool GenerationPanel::starts_anew() const {
  return !model_.has_sequence() || prompt() != started_prompt_ || chat() != started_chat_;
}

bool GenerationPanel::chat() const {
  return chat_->isChecked();
}

void GenerationPanel::set_chat(bool wrap) {
  wanted_chat_ = wrap;
  update_chat();
}

void GenerationPanel::update_chat() {
  const bool has = model_.chat_template() != nullptr;
  chat_->setEnabled(has);
  chat_->setVisible(has);  // most checkpoints of the field have none, and the row is narrow
  chat_->setChecked(has && wanted_chat_);
  chat_->setToolTip(has ? tr("Wraps the prompt, as a user's message, in the model's chat template (%1)")
                              .arg(QString::fromStdString(model_.chat_template()->where()))
                        : model_.why_no_chat_template());
}

void GenerationPanel::take_model_defaults() {
  if (known_model_ == model_.checkpoint()) return;
  known_model_ = model_.checkpoint();
  started_prompt_.clear();
  if (model_.snapshot() && model_.has_session()) set_sampling(model_.snapshot()->sampling);
  update_legend();
}

void GenerationPanel::sampling_edited() {
  for (QWidget* field : std::initializer_list<QWidget*>{temperature_, top_p_, top_k_, seed_})
    field->setEnabled(!greedy_->isChecked());
  summary_->refresh();
  model_.set_sampling(sampling());
}

void GenerationPanel::update_legend() {
  legend_->update();
}

}  // namespace switchyard
