// The rows of the action table. GUI thread.
#pragma once

#include <vector>

#include "app/gui/action_table.h"

namespace switchyard {

class MainWindow;

// window outlives the rows.
std::vector<ActionRow> action_rows(MainWindow& window);

}  // namespace switchyard
