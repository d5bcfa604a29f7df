// Table twin of the comparison: every recipe and layer, means over the tokens compared.
#include "views/compare/view.h"
#include "views/ui/table_twin.h"

namespace switchyard {

QAbstractTableModel* CompareView::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void CompareView::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection&, const TimeCursor&) {
  TableData table;
  table.columns = {{"recipe", "", 0},
                   {"layer", "", 0},
                   {"tokens", "compared", 0},
                   {"Jaccard", "experts both run ÷ either runs", 4},
                   {"weight L1", "Σ |w run − w recipe|", 4},
                   {"KL", "nat", 5},
                   {"JS", "nat", 5},
                   {"extra experts", "per token, recipe − run", 3},
                   {"extra FLOP", "per token, recipe − run", 0}};
  if (data.plan && data.snapshot && data.snapshot->shadows) {
    for (const ShadowState& shadow : *data.snapshot->shadows)
      for (int row = 0; row < shadow.totals->rows(); ++row) {
        const GateDifference mean = shadow.totals->mean(row);
        table.cells.insert(table.cells.end(),
                           {shadow.name, data.plan->row_name(row), int64_t(shadow.totals->tokens(row)), mean.jaccard,
                            mean.weight_l1, mean.kl, mean.js, mean.extra_experts, mean.extra_flops});
      }
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

}  // namespace switchyard
