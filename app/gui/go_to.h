// Places the palette can go to: layers, experts, tokens. GUI thread.
#pragma once

#include <vector>

#include "app/gui/palette.h"

namespace switchyard {

class RunModel;

// What `query` may mean in this run. all: lists layers also for an empty query.
std::vector<PaletteItem> go_to_items(RunModel& model, const QString& query, bool all);

}  // namespace switchyard
