// See panel_parts.h.
#include "app/gui/panel_parts.h"

#include <QFontMetrics>
#include <QHBoxLayout>
#include <QScrollArea>
#include <QSplitter>

#include "app/gui/style.h"

namespace switchyard {

QScrollArea* scrolled(QWidget* body) {
  auto* scroll = new QScrollArea;
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setWidgetResizable(true);
  scroll->setWidget(body);
  for (QWidget* plain : {scroll->viewport(), body}) plain->setAutoFillBackground(false);
  return scroll;
}

void put_side_by_side(QWidget& panel, QWidget* left, int left_ems, QWidget* right, int right_ems) {
  auto* columns = new QHBoxLayout(&panel);
  columns->setContentsMargins(8, 6, 8, 6);
  auto* split = new QSplitter(Qt::Horizontal);
  split->setChildrenCollapsible(false);
  columns->addWidget(split);
  split->addWidget(left);
  split->addWidget(right);
  split->setStretchFactor(0, 0);
  split->setStretchFactor(1, 1);
  const int em = QFontMetrics(word_font()).horizontalAdvance('m');
  split->setSizes({em * left_ems, em * right_ems});
}

}  // namespace switchyard
