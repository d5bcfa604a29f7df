// The chart of a live view, out of its table twin and its present settings: the same numbers as a picture for paper.
// GUI thread.
#pragma once

#include "engine/report/chart.h"
#include "views/view.h"

namespace switchyard {

// table: of the view, as its twin shows it. Empty: the view has no chart, or the table no rows.
ChartSpec chart_of_view(View& view, const ResultTable& table);

}  // namespace switchyard
