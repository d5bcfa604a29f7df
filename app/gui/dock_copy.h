// What a panel offers for copying, exporting and reports: the rows of its table, a chart of them, the picture as it is.
// GUI thread.
#pragma once

#include "app/gui/picture_copy.h"

namespace switchyard {

class Dock;

// Of a live view the chart has its present settings; else it is the table's first. No table: only the screen.
Copyable copyable_of(const Dock& dock);
// A `copy` button in the header of a panel that has a table.
void add_copy_button(Dock& dock);

}  // namespace switchyard
