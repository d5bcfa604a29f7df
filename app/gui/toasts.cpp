// Cards stacked upwards from the corner. GUI thread.
#include "app/gui/toasts.h"

#include <algorithm>

#include <QClipboard>
#include <QEvent>
#include <QGuiApplication>
#include <QHBoxLayout>
#include <QLabel>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/gui/dock.h"
#include "app/gui/style.h"

namespace switchyard {
namespace {

constexpr int kWidth = 420, kMost = 4;

}  // namespace

Toasts::Toasts(QWidget* over, Log& log) : QObject(over), over_(over), log_(log) {
  over_->installEventFilter(this);
  connect(&log_, &Log::added, this, &Toasts::show);
}

void Toasts::show(const LogEntry& entry) {
  newest_ = entry.text;
  const bool error = entry.level == LogEntry::kError;
  auto* card = new QWidget(over_);
  card->setObjectName("toast");
  card->setAttribute(Qt::WA_StyledBackground);
  card->setProperty("level", error ? "error" : "note");
  card->setAccessibleName(error ? tr("Error") : tr("Message"));
  card->setAccessibleDescription(entry.text);
  auto* column = new QVBoxLayout(card);
  column->setContentsMargins(12, 8, 8, 8);
  auto* row = new QHBoxLayout;
  auto* text = new QLabel(entry.text);
  text->setTextFormat(Qt::PlainText);
  text->setWordWrap(true);
  text->setTextInteractionFlags(Qt::TextSelectableByMouse);
  auto* close_button = flat_button("×", tr("Close this message"), card);
  row->addWidget(text, 1);
  row->addWidget(close_button, 0, Qt::AlignTop);
  column->addLayout(row);
  if (error) {
    auto* buttons = new QHBoxLayout;
    auto* copy =
        flat_button(tr("Copy for bug report"), tr("Copies versions and the last messages; paths are left out"), card);
    auto* log = flat_button(tr("Open log"), tr("Shows all messages"), card);
    connect(copy, &QToolButton::clicked, this, [this] { QGuiApplication::clipboard()->setText(log_.bug_report()); });
    connect(log, &QToolButton::clicked, this, [this] { Q_EMIT log_asked(); });
    buttons->addStretch();
    buttons->addWidget(copy);
    buttons->addWidget(log);
    column->addLayout(buttons);
  }
  connect(close_button, &QToolButton::clicked, this, [this, card] { close(card); });
  auto* timer = new QTimer(card);
  timer->start(error ? 10'000 : 4'000);
  connect(timer, &QTimer::timeout, this, [this, card] {
    if (!card->underMouse()) close(card);
  });

  cards_.push_back(card);
  while (int(cards_.size()) > kMost) close(cards_.front());
  card->show();
  arrange();
}

void Toasts::close(QWidget* card) {
  const auto found = std::find(cards_.begin(), cards_.end(), card);
  if (found == cards_.end()) return;
  cards_.erase(found);
  card->hide();
  card->deleteLater();
  arrange();
}

void Toasts::arrange() {
  int bottom = over_->height() - 44;
  const int width = std::min(kWidth, over_->width() - 32);
  for (auto card = cards_.rbegin(); card != cards_.rend(); ++card) {
    const int height = std::max((*card)->sizeHint().height(), (*card)->heightForWidth(width));
    (*card)->setGeometry(over_->width() - width - 16, bottom - height, width, height);
    (*card)->raise();
    bottom -= height + 8;
  }
}

bool Toasts::eventFilter(QObject* watched, QEvent* event) {
  if (event->type() == QEvent::Resize) arrange();
  return QObject::eventFilter(watched, event);
}

}  // namespace switchyard
