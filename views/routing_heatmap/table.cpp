// Table twin of the routing heat map: one row per layer and expert, every quantity the picture can show.
#include <cmath>

#include "views/routing_heatmap/values.h"
#include "views/routing_heatmap/view.h"
#include "views/ui/edits.h"
#include "views/ui/table_twin.h"

namespace switchyard {
namespace {

TableCell real_or_nothing(const std::vector<double>& values, size_t at) {
  if (at >= values.size() || std::isnan(values[at])) return std::monostate();
  return values[at];
}

}  // namespace

QAbstractTableModel* RoutingHeatmap::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void RoutingHeatmap::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection&,
                                   const TimeCursor& cursor) {
  TableData table;
  table.columns = {{"layer", "", 0},
                   {"expert", "", 0},
                   {"count", "decisions, all tokens", 0},
                   {"load, all", "× uniform", 3},
                   {"load, last " + std::to_string(data.window), "× uniform", 3},
                   {"weight", "as applied, of the shown token", 4},
                   {"change", "× uniform, after the last edit − before", 3},
                   {"edit", "in force at the shown token", 0}};
  if (data.plan && data.tokens() > 0) {
    const std::vector<double> all = data.load_all ? relative_load(data, *data.load_all) : std::vector<double>();
    const std::vector<double> window =
        data.load_window ? relative_load(data, *data.load_window) : std::vector<double>();
    const std::vector<double> weights = shown_weights(data, cursor), change = edit_change(data).values;
    const int width = data.plan->max_experts();
    for (int row = 0; row < int(data.plan->moe_layers.size()); ++row) {
      const LayerRecipe* recipe = recipe_shown(data, cursor, row);
      for (int e = 0; e < experts_of(data, row); ++e) {
        const size_t at = size_t(row) * width + e;
        TableCell count = std::monostate();
        if (data.load_all) count = int64_t(data.load_all->counts(row)[e]);
        table.cells.insert(
            table.cells.end(),
            {int64_t(model_layer(data, row)), int64_t(e), count, real_or_nothing(all, at), real_or_nothing(window, at),
             real_or_nothing(weights, at), real_or_nothing(change, at), in_words(edits_of(recipe, e))});
      }
    }
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

}  // namespace switchyard
