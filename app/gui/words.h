// What plots and panels share: tooltips of what is under the pointer, and labels of wrapped plain text. GUI thread.
#pragma once

#include <functional>

#include <QLabel>
#include <QPoint>
#include <QString>

class QEvent;

namespace switchyard {

// For QWidget::event(): a tooltip event shows text_at(position) as plain text, none where that is empty. False: another event.
bool show_tip(QWidget* widget, QEvent* event, const std::function<QString(const QPoint&)>& text_at);

// kind: of the style sheet ("muted", "faint", "error").
QLabel* text_label(const char* kind, const char* name = "");

}  // namespace switchyard
