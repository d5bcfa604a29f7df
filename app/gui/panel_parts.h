// How panels are put together: what stands in several of them. GUI thread.
#pragma once

class QScrollArea;
class QWidget;

namespace switchyard {

// What may be higher than its panel: scrolled downwards, on the panel's own ground.
QScrollArea* scrolled(QWidget* body);
// Two halves with a handle between them, `ems` wide at first; the right one takes what is left.
void put_side_by_side(QWidget& panel, QWidget* left, int left_ems, QWidget* right, int right_ems);

}  // namespace switchyard
