// Rows of the action table that plugins add: their views, commands, metrics, report sections and themes. GUI thread.
#pragma once

#include <vector>

#include "app/gui/action_table.h"

namespace switchyard {

class MainWindow;

std::vector<ActionRow> plugin_action_rows(MainWindow& window);

}  // namespace switchyard
