// Table twin of expert load: counts of the selected layer, for the tokens the picture shows.
#include "views/expert_load/view.h"
#include "views/ui/edits.h"
#include "views/ui/table_twin.h"

namespace switchyard {

QAbstractTableModel* ExpertLoad::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void ExpertLoad::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                               const TimeCursor& cursor) {
  TableData table;
  table.columns = {{"expert", "", 0},
                   {"count", "decisions", 0},
                   {"first choice", "decisions, slot 0", 0},
                   {"share", "% of the layer", 2},
                   {"load", "× uniform", 3},
                   {"edit", "in force at the shown token", 0}};
  if (data.plan && !data.plan->moe_layers.empty() && load(data)) {
    const int row = clamped_row(data, selection), experts = experts_of(data, row);
    const auto counts = load(data)->counts(row).first(size_t(experts)), first = load(data)->first_choice_counts(row);
    const double total = double(load_stats(counts).total);
    for (int e = 0; e < experts; ++e) {
      TableCell share = std::monostate(), relative = std::monostate();
      if (total > 0) share = 100.0 * double(counts[e]) / total, relative = double(counts[e]) * experts / total;
      table.cells.insert(table.cells.end(), {int64_t(e), int64_t(counts[e]), int64_t(first[e]), share, relative,
                                             in_words(edits_of(recipe_shown(data, cursor, row), e))});
    }
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

}  // namespace switchyard
