// See words.h.
#include "app/gui/words.h"

#include <QHelpEvent>
#include <QTextDocument>
#include <QToolTip>

namespace switchyard {

bool show_tip(QWidget* widget, QEvent* event, const std::function<QString(const QPoint&)>& text_at) {
  if (event->type() != QEvent::ToolTip) return false;
  const auto* help = static_cast<QHelpEvent*>(event);
  const QString text = text_at(help->pos());
  if (text.isEmpty())
    QToolTip::hideText();
  else
    QToolTip::showText(help->globalPos(), Qt::convertFromPlainText(text), widget);
  return true;
}

QLabel* text_label(const char* kind, const char* name) {
  auto* label = new QLabel;
  label->setObjectName(name);
  label->setWordWrap(true);
  label->setTextFormat(Qt::PlainText);
  label->setProperty("kind", kind);
  label->setTextInteractionFlags(Qt::TextSelectableByMouse);
  return label;
}

}  // namespace switchyard
